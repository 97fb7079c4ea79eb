"""The light heads of the multi-task network: P2-P5 of the BiFPN -> what a task's loss and decoding expect.

All read the list [P2, P3, P4, P5], B x channels at 1/4, 1/8, 1/16 and 1/32 of the image. GroupNorm throughout.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bifpn import separable_conv
from models.densedepth import bounded_exp, inverse_bounded_exp
from models.norms import CHANNELS_PER_GROUP, group_norm
from models.pooling import average_pool, max_pool
from models.precision import in_float32
from models.yolov1 import Predictions

STRIDE = 4  # of P2


class DenseHead(nn.Module):
    """Something for every pixel: B x out_channels x H x W, worked out at a quarter of the image's size.

    Reads P2 alone, into which the BiFPN has fused the other levels, as EfficientDet does for segmentation (Tan et al.
    2020, section 5.2).
    """

    def __init__(self, *, channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(separable_conv(channels, channels), separable_conv(channels, channels))
        self.output = nn.Conv2d(channels, out_channels, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return enlarge(in_float32(self.output, self.convs(levels[0])))  # B 38 H/4 W/4 -> B 38 H W


class DepthHead(DenseHead):
    """Metres B x 1 x H x W, bounded as DenseDepth's; a new head says about `median_depth` everywhere."""

    def __init__(self, *, channels: int, median_depth: float) -> None:
        super().__init__(channels=channels, out_channels=1)
        # small beside the bias: training starts from the constant guess, not from noise around it
        nn.init.normal_(self.output.weight, std=1e-3)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, inverse_bounded_exp(median_depth))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return bounded_exp(super().forward(levels))  # B 1 H W


class BoxHead(nn.Module):
    """B x S x S x predictors x (5 + classes) raw numbers, as YOLOv1's; S = `grid`, over the whole image.

    A separable convolution looks at every level at its own resolution, so that what is smaller than a cell is found
    where it can be seen; only then a level is brought to twice the grid, by the maximum, which keeps a strong answer of
    a few pixels that the mean would drown (at 1024 x 1024 and S = 8 an object of 24 pixels is 14 % of the 64 x 64 that
    become one). Then come YOLOv1's last stages, narrower (Redmon et al. 2016, figure 3).

    Its cost at 1024 x 1024 with 256 channels, nearly all of it on P2: 5 GFLOP more than if the levels were averaged to
    twice the grid first. That it finds more than such a head is not shown (studies/box_head).
    """

    def __init__(self, *, channels: int, classes: int, grid: int = 8, predictors: int = 10) -> None:
        super().__init__()
        self.grid = grid
        half = math.ceil(channels / 2 / CHANNELS_PER_GROUP) * CHANNELS_PER_GROUP
        self.levels = nn.ModuleList(separable_conv(channels, half) for _ in range(4))
        width = 2 * channels
        self.convs = nn.Sequential(conv(4 * half, width), conv(width, width, stride=2), conv(width, width))
        self.output = Predictions(width, classes=classes, predictors=predictors)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        found = [conv(level) for conv, level in zip(self.levels, levels, strict=True)]  # B 128 H/4 W/4 ... H/32 W/32
        x = torch.cat([max_pool(level, 2 * self.grid, 2 * self.grid) for level in found], 1)  # B 512 2S 2S
        return self.output(self.convs(x))  # B S S 10 19


class SteeringHead(nn.Module):
    """B x `outputs` numbers for the whole image.

    Where the lane lies to the left and right decides them, so P3 is not pooled to one vector but to 8 x 16 cells, and
    dense layers, as PilotNet's, see all of these. (P3: fine enough for lane markings, and the coarser levels are fused
    into it.)

    The norm keeps the units alive. A step of Adam moves each of a unit's 4,096 weights by the learning rate, and so at
    0.004 its sum by more than it is wide. Without the norm, of the demo's 128 ReLUs 4 and 6 still answered to any frame
    with two seeds; with two others one and none did, and the angle stayed the mean.
    """

    WIDTH, ROWS, COLUMNS = 32, 8, 16
    HIDDEN = 128

    def __init__(self, *, channels: int, outputs: int) -> None:
        super().__init__()
        self.reduce = separable_conv(channels, self.WIDTH)
        self.dense = nn.Sequential(
            nn.Linear(self.WIDTH * self.ROWS * self.COLUMNS, self.HIDDEN),
            nn.LayerNorm(self.HIDDEN),
            nn.SiLU(inplace=True),
            nn.Linear(self.HIDDEN, outputs),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x = self.reduce(levels[1])  # B 32 H/8 W/8
        x = average_pool(x, self.ROWS, self.COLUMNS)  # B 32 8 16
        return in_float32(self.dense[-1], self.dense[:-1](x.flatten(1)))


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, norm, Swish."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        group_norm(out_channels),
        nn.SiLU(inplace=True),
    )


def enlarge(x: Tensor) -> Tensor:
    """From P2's size to the image's."""
    return F.interpolate(x, scale_factor=STRIDE, mode="bilinear", align_corners=False)
