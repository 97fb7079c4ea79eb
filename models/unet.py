"""U-Net: semantic segmentation.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015, figure 1.
Two departures, both usual today: every 3x3 convolution pads by one, so that the output has the input's size and no
skip is cropped, and a norm (models/norms.py) stands between convolution and ReLU.
"""

import torch
from torch import Tensor, nn

from models.normalise import Normalise
from models.norms import NormFromScratch, set_norm
from models.precision import in_float32
from models.settings import Channels, FromScratch

DEPTH = 4  # levels below the first; each halves the image


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions: the blue arrows of the figure. The norm's shift stands in for their bias."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Down(nn.Sequential):
    """Halve the image, then convolve."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), double_conv(in_channels, out_channels))


class Up(nn.Module):
    """Double the image ("up-conv 2x2", which halves the channels), join it with the skip, then convolve."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = double_conv(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNetSettings(FromScratch):
    base_channels: Channels = 64
    """Channels of the first level; each level below doubles them."""


class UNet(nn.Module):
    """Images uint8 B x 3 x H x W -> class logits B x classes x H x W; H and W are multiples of `divisor`.

    31.0 M parameters with 64 base channels.
    """

    divisor = 2**DEPTH

    def __init__(self, *, classes: int, base_channels: int = 64, norm: NormFromScratch = "group") -> None:
        super().__init__()
        widths = [base_channels << level for level in range(DEPTH + 1)]  # 64 128 256 512 1024
        self.normalise = Normalise()
        self.stem = double_conv(3, widths[0])
        self.downs = nn.ModuleList(Down(widths[i], widths[i + 1]) for i in range(DEPTH))
        self.ups = nn.ModuleList(Up(widths[i + 1], widths[i]) for i in reversed(range(DEPTH)))
        self.classify = nn.Conv2d(widths[0], classes, 1)
        self.apply(init_weights)
        set_norm(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(self.normalise(images))  # B 64 H W
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(x)  # B 2C H/2 W/2, down to B 1024 H/16 W/16
        for up in self.ups:
            x = up(x, skips.pop())  # B C/2 2H 2W, up to B 64 H W
        return in_float32(self.classify, x)  # B classes H W


def init_weights(module: nn.Module) -> None:
    """Gaussian with deviation sqrt(2 / N), N = incoming nodes of one neuron (the paper's section 3)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
