"""PilotNet: from one image to the steering wheel.

Bojarski et al., "End to End Learning for Self-Driving Cars", 2016, figure 4. The figure's 1164 is its flattened map
(64 x 1 x 18 = 1152), so the dense layers are 100, 50 and 10; the 10 are this network's output.
Departures: RGB instead of YUV; a norm (models/norms.py) after each convolution (the paper trained on 72 hours of
driving; with a few thousand frames the plain stack often stays at the mean angle for many epochs).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.normalise import Normalise
from models.norms import NormFromScratch, set_norm
from models.precision import in_float32

INPUT_SIZE = (66, 200)  # H, W


def conv(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Unpadded convolution; the norm's shift stands in for its bias."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class PilotNet(nn.Module):
    """Images uint8 B x 3 x H x W of any size -> B x `numbers`, such as steering angles. 0.25 M parameters."""

    divisor = 1

    def __init__(self, *, numbers: int = 10, norm: NormFromScratch = "group") -> None:
        super().__init__()
        self.normalise = Normalise()
        self.convs = nn.Sequential(  # B 3 66 200
            conv(3, 24, 5, 2),  # B 24 31 98
            conv(24, 36, 5, 2),  # B 36 14 47
            conv(36, 48, 5, 2),  # B 48 5 22
            conv(48, 64, 3, 1),  # B 64 3 20
            conv(64, 64, 3, 1),  # B 64 1 18
        )
        self.dense = nn.Sequential(
            nn.Linear(64 * 1 * 18, 100),
            nn.ReLU(inplace=True),
            nn.Linear(100, 50),
            nn.ReLU(inplace=True),
            nn.Linear(50, numbers),
        )
        set_norm(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(self.normalise(images), INPUT_SIZE, mode="bilinear", antialias=True)
        x = self.dense[:-1](self.convs(x).flatten(1))  # B 64 1 18 -> B 1152 -> B 50
        return in_float32(self.dense[-1], x)  # B 10
