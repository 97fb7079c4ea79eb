"""LR-ASPP: semantic segmentation by a light head of torchvision's on any encoder; an anchor from outside.

Howard et al., "Searching for MobileNetV3", 2019, section 6.4 and figure 10: class scores from a map at 1/8 of the
image's size, and from the deepest map, whose channels a global mean weighs. Departures: the deepest map is at 1/32
(the paper's, of a dilated last stage, at 1/16), and its mean is over the whole map, as torchvision has it.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from models.encoder import AnyEncoderSettings, make_encoder
from models.norms import Norm, set_norm
from models.precision import in_float32
from models.settings import PretrainedSettings

INNER_CHANNELS = 128  # as in torchvision's lraspp_mobilenet_v3_large


class LRASPPSettings(AnyEncoderSettings, PretrainedSettings):
    """One of any encoder."""


class LRASPP(nn.Module):
    """Images uint8 B x 3 x H x W -> class logits B x classes x H x W; H and W are free (at least 32).

    norm: the encoder's; the head's one norm is a group norm, or batch norm with `train`.
    """

    divisor = 1

    def __init__(self, *, classes: int, encoder: str = "resnet50", norm: Norm = "group") -> None:
        super().__init__()
        self.maps = make_encoder(encoder, norm)
        self.head = LRASPPHead(self.maps.channels[1], self.maps.channels[-1], classes, INNER_CHANNELS)
        set_norm(self.head, "train" if norm == "train" else "group")

    @property
    def encoder(self) -> nn.Module:
        """What files of initial weights are for."""
        return self.maps.pretrained_part()

    def forward(self, images: Tensor) -> Tensor:
        _, low, _, high = self.maps(images)  # B 512 H/8 W/8, B 2048 H/32 W/32
        scores = self.head({"low": low, "high": high})  # B classes H/8 W/8
        enlarge = partial(F.interpolate, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return in_float32(enlarge, scores)
