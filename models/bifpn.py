"""BiFPN: features of four scales exchange what they know, first downwards, then upwards.

Tan, Pang, Le, "EfficientDet: Scalable and Efficient Object Detection", 2020, figure 2 (d) and sections 3.2-3.3.
Departures: levels 2-5 instead of 3-7, since segmentation and depth need the finer one and images are 1024 wide at most;
GroupNorm (models/norms.py) instead of batch norm, since micro-batches are small and their samples carry unlike labels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.norms import group_norm

EPSILON = 1e-4  # of the fast normalised fusion


class BiFPN(nn.Module):
    """C2-C5 (B x in_channels[i], at 1/4 to 1/32) -> [P2, P3, P4, P5], each B x channels at the same sizes.

    Each level is exactly half as wide and as high as the one before.
    """

    def __init__(self, *, in_channels: Sequence[int], channels: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, channels, 1, bias=False), group_norm(channels)) for c in in_channels
        )
        self.layers = nn.Sequential(*(BiFPNLayer(channels) for _ in range(layers)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        # group norms want this order (models/memory_format.py), whatever the encoder's
        features = [c.contiguous() for c in features]
        return self.layers([project(c) for project, c in zip(self.project, features, strict=True)])


class BiFPNLayer(nn.Module):
    """One repetition of the figure's block. Nodes with a single input are left out, as there (P5 on the way down)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down4, self.down3 = Node(channels, inputs=2), Node(channels, inputs=2)
        self.out2 = Node(channels, inputs=2)
        self.out3, self.out4 = Node(channels, inputs=3), Node(channels, inputs=3)
        self.out5 = Node(channels, inputs=2)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        in2, in3, in4, in5 = levels
        # coarse to fine
        down4 = self.down4(in4, double(in5))
        down3 = self.down3(in3, double(down4))
        out2 = self.out2(in2, double(down3))
        # fine to coarse; the inputs come in once more
        out3 = self.out3(in3, down3, halve(out2))
        out4 = self.out4(in4, down4, halve(out3))
        out5 = self.out5(in5, halve(out4))
        return [out2, out3, out4, out5]


class Node(nn.Module):
    """Fast normalised fusion of its inputs (section 3.3), then a separable convolution."""

    def __init__(self, channels: int, *, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = separable_conv(channels, channels)

    def forward(self, *inputs: Tensor) -> Tensor:
        shares = self.shares().to(inputs[0].dtype)
        return self.conv(sum(share * x for share, x in zip(shares, inputs, strict=True)))

    def shares(self) -> Tensor:
        """How much each input counts: not negative, 1 in all (but for epsilon)."""
        weights = self.weights.relu()
        return weights / (weights.sum() + EPSILON)


def separable_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution across channels; norm and Swish."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        group_norm(out_channels),
        nn.SiLU(inplace=True),
    )


def double(x: Tensor) -> Tensor:
    """B C H W -> B C 2H 2W."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """B C H W -> B C H/2 W/2."""
    return F.max_pool2d(x, 3, stride=2, padding=1)
