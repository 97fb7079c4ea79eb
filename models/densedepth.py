"""DenseDepth: depth from one image.

Alhashim, Wonka, "High Quality Monocular Depth Estimation via Transfer Learning", 2018, figure 2 and section 3.1; layer
by layer in the appendix's table. The encoder is a DenseNet trained on ImageNet, the decoder deliberately plain.
Departures: the paper's network gives the reciprocal of the depth at half the input's size; this one gives metres, as
the exponential of a bounded log depth, and doubles that log depth once more to the input's size.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import DenseNet121_Weights, DenseNet169_Weights, WeightsEnum
from torchvision.models.densenet import DenseNet

from models.normalise import Normalise
from models.norms import Norm, set_norm
from models.precision import in_float32
from models.settings import PretrainedSettings

MIN_DEPTH, MAX_DEPTH = 0.5, 256.0  # m; the labels lie between about 1 and 255.9
SLOPE = 0.2  # of the decoder's leaky ReLUs

ENCODERS = {
    "densenet169": {"growth_rate": 32, "block_config": (6, 12, 32, 32), "num_init_features": 64},  # the paper's
    "densenet121": {"growth_rate": 32, "block_config": (6, 12, 24, 16), "num_init_features": 64},
    "small": {"growth_rate": 12, "block_config": (2, 3, 4, 4), "num_init_features": 24},  # 0.2 M in all: for a CPU
}


IMAGENET_WEIGHTS = {
    "densenet169": DenseNet169_Weights.IMAGENET1K_V1,
    "densenet121": DenseNet121_Weights.IMAGENET1K_V1,
}


class DenseDepthSettings(PretrainedSettings):
    encoder: Literal["densenet169", "densenet121", "small"] = "densenet169"
    """The paper's is densenet169, small trains on a CPU."""

    @staticmethod
    def published(encoder: str) -> WeightsEnum | None:
        return IMAGENET_WEIGHTS.get(encoder)


class Up(nn.Module):
    """Bilinear upsampling to the skip's size, concatenation, two 3x3 convolutions with leaky ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.convs(torch.cat([x, skip], dim=1))


class DenseDepth(nn.Module):
    """Images uint8 B x 3 x H x W -> depth B x 1 x H x W in metres, between 0.5 and 256.

    H and W are free (at least 32); a new network says about `median_depth` (m, of the training labels) everywhere.
    42.6 M parameters with densenet169.
    """

    divisor = 1

    def __init__(self, *, median_depth: float, encoder: str = "densenet169", norm: Norm = "group") -> None:
        super().__init__()
        if not MIN_DEPTH < median_depth < MAX_DEPTH:
            raise ValueError(f"a median depth of {median_depth} m is outside {MIN_DEPTH}-{MAX_DEPTH} m")
        self.normalise = Normalise()
        self.encoder = DenseNet(**ENCODERS[encoder])
        features = self.encoder.features
        top = self.encoder.classifier.in_features  # 1664
        self.encoder.classifier = nn.Identity()  # not part of the encoder
        set_norm(self.encoder, norm)

        self.bridge = nn.Conv2d(top, top, 1)
        skips = [  # 64 64 128 256
            features.conv0.out_channels,
            features.conv0.out_channels,
            features.transition1.conv.out_channels,
            features.transition2.conv.out_channels,
        ]
        self.ups = nn.ModuleList(Up(top >> level, skip, top >> level + 1) for level, skip in enumerate(reversed(skips)))
        self.output = nn.Conv2d(top >> len(skips), 1, 3, padding=1)
        self._init_decoder(median_depth)

    def forward(self, images: Tensor) -> Tensor:
        x, skips = self.encode(self.normalise(images))
        x = self.bridge(x)  # B 1664 H/32 W/32
        for up in self.ups:
            x = up(x, skips.pop())  # B C/2 2H 2W, up to B 104 H/2 W/2
        x = in_float32(self.output, x)  # B 1 H/2 W/2
        x = F.interpolate(x, images.shape[-2:], mode="bilinear", align_corners=False)  # B 1 H W
        return bounded_exp(x)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """-> the deepest map and the four skips, largest first."""
        f = self.encoder.features
        skips = [f.relu0(f.norm0(f.conv0(x)))]  # B 64 H/2 W/2
        skips.append(f.pool0(skips[-1]))  # B 64 H/4 W/4
        skips.append(f.transition1(f.denseblock1(skips[-1])))  # B 128 H/8 W/8
        skips.append(f.transition2(f.denseblock2(skips[-1])))  # B 256 H/16 W/16
        x = f.denseblock4(f.transition3(f.denseblock3(skips[-1])))
        return F.relu(f.norm5(x)), skips  # B 1664 H/32 W/32

    def _init_decoder(self, median_depth: float) -> None:
        for module in [*self.bridge.modules(), *self.ups.modules()]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                assert module.bias is not None  # these have one
                nn.init.zeros_(module.bias)
        # small beside the bias: training starts from the constant guess, not from noise around it
        nn.init.normal_(self.output.weight, std=1e-3)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, inverse_bounded_exp(median_depth))


_CENTRE = (math.log(MAX_DEPTH) + math.log(MIN_DEPTH)) / 2
_HALF = (math.log(MAX_DEPTH) - math.log(MIN_DEPTH)) / 2


def bounded_exp(x: Tensor) -> Tensor:
    """Any real number -> metres in [MIN_DEPTH, MAX_DEPTH]; in the middle of the range it is nearly exp(x + centre)."""
    return torch.exp(_CENTRE + _HALF * torch.tanh(x / _HALF))


def inverse_bounded_exp(depth: float) -> float:
    """The number that `bounded_exp` turns into `depth` metres."""
    return _HALF * math.atanh((math.log(depth) - _CENTRE) / _HALF)
