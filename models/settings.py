"""What the settings of networks and heads share."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from models.norms import Norm, NormFromScratch, check_norm, default_norm
from models.timm_encoder import TimmWeights
from strict import StrictModel

if TYPE_CHECKING:  # takes a second to import
    from torchvision.models import WeightsEnum

# Bounds are far above what any network here is good with: building one beyond them takes hours or all memory, so that a
# slip of the pen looks like a training that hangs
Channels = Annotated[int, Field(gt=0, le=16384)]
Layers = Annotated[int, Field(gt=0, le=64)]


class PartSettings(StrictModel):
    """The section of a config that names a network or a head; one with parameters adds its keys."""

    name: str


class FromScratch(PartSettings):
    """Of a network that starts from random weights."""

    norm: NormFromScratch = "group"
    """The network's norms: group, or train, which is batch norm. With group a result does not depend on how
    samples are cut into micro-batches. What train gives up: the result depends on micro_batch_size and on the number of
    processes, and statistics are those of as few images as a micro-batch has."""


class EncoderSettings(StrictModel):
    """Of what has an encoder that may start from given weights; a subclass tells which encoders there are."""

    encoder: str
    pretrained: str = "imagenet"
    """The encoder's initial weights: imagenet, none or a file. There are none from ImageNet for small."""
    norm: Norm = Field(default_factory=lambda before: default_norm(before.get("pretrained", "none")))
    """The encoder's norms (models/norms.py): frozen, group, or train, which is batch norm that learns. Default: frozen
    where the encoder is pretrained, else group. With both a result does not depend on how samples are cut into
    micro-batches. What train gives up: the result depends on micro_batch_size and on the number of processes, and
    statistics are those of as few images as a micro-batch has, and mix unlike data."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.pretrained == "imagenet" and self.imagenet_weights() is None:
            raise ValueError(f"encoder {self.encoder} has no ImageNet weights; set pretrained to none or a file")
        check_norm(self.norm, self.pretrained)
        return self

    @staticmethod
    @abstractmethod
    def published(encoder: str) -> "WeightsEnum | TimmWeights | None":
        """Where the encoder's ImageNet weights are; None: there are none."""

    def imagenet_weights(self) -> "WeightsEnum | TimmWeights | None":
        """Those that `pretrained` asks for."""
        return self.published(self.encoder) if self.pretrained == "imagenet" else None


class PretrainedSettings(PartSettings, EncoderSettings):
    """Of a single-task network with such an encoder, its module `encoder`."""
