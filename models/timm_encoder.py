"""timm's backbones as encoders: those whose `features_only` gives maps at strides 4, 8, 16 and 32.

timm is imported where one is used: that takes seconds.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.normalise import Normalise
from models.norms import Norm, set_norm

if TYPE_CHECKING:
    from timm.models import FeatureInfo

PREFIX = "timm/"  # of their names in configs: timm/tf_efficientnet_lite0
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class TimmWeights:
    """Where timm's weights of a network lie, as torchvision's entries tell it, and what the fetched file is called."""

    url: str
    file: str


class TimmEncoder(nn.Module):
    """Images uint8 B x 3 x H x W -> [C2, C3, C4, C5], as models/encoder.py.

    Norms that are not batch norm stay as they are. ValueError: timm has no such network, or not with these maps.
    """

    divisor = 32

    def __init__(self, *, name: str, norm: Norm = "group") -> None:
        super().__init__()
        self.features = features_of(name)
        self.channels = tuple(told_of(self.features).channels())
        published = config_of(name)
        self.normalise = Normalise(published.mean, published.std)
        set_norm(self.features, norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.features(self.normalise(images))

    def pretrained_part(self) -> nn.Module:
        """What files of initial weights are for; their names are those of timm's whole network."""
        return self.features


def features_of(name: str) -> nn.Module:
    """timm's network without what comes after the last map; random weights."""
    import timm

    name = name.removeprefix(PREFIX)
    try:
        return timm.create_model(name, features_only=True, out_indices=places_of(name))
    except (RuntimeError, ValueError, AttributeError, AssertionError):
        raise ValueError(f"timm/{name} is no network of timm's with maps at strides 4, 8, 16 and 32") from None


@cache
def places_of(name: str) -> tuple[int, ...]:
    """Of the maps at STRIDES among those that timm's network gives.

    Known once a config names it (check_maps): torch's FakeTensorMode, the memory estimate's, refuses meta tensors.
    """
    import timm

    with torch.device("meta"):
        strides = told_of(timm.create_model(name, features_only=True)).reduction()
    return tuple(strides.index(stride) for stride in STRIDES)


def told_of(features: nn.Module) -> "FeatureInfo":
    """What timm tells of the maps that a network gives."""
    from timm.models import FeatureInfo

    assert isinstance(features.feature_info, FeatureInfo)
    return features.feature_info


def config_of(name: str):
    import timm

    return timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=False)


@cache  # of every config that names it
def check_maps(name: str) -> None:
    """ValueError where the network does not take images of any size that 32 divides, or orders its maps otherwise."""
    with torch.device("meta"):
        encoder = TimmEncoder(name=name, norm="train").eval()
        try:
            shapes = [tuple(level.shape[1:]) for level in encoder(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))]
        except (RuntimeError, ValueError, AssertionError):
            shapes = []
    if shapes != [(c, 64 // s, 96 // s) for c, s in zip(encoder.channels, STRIDES, strict=True)]:
        raise ValueError(f"{name} does not give B x C x H x W maps of images of any size")


def weights_of(name: str) -> TimmWeights | None:
    """timm's published weights of the network; None where there are none."""
    published = config_of(name)
    if published.url:
        return TimmWeights(published.url, published.url.rsplit("/", 1)[-1])
    if published.hf_hub_id:
        hub = published.hf_hub_id
        return TimmWeights(
            f"https://huggingface.co/{hub}/resolve/main/pytorch_model.bin", f"{hub.replace('/', '--')}.bin"
        )
    return None
