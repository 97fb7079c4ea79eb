"""YOLOv1: all boxes of an image in one pass.

Redmon, Divvala, Girshick, Farhadi, "You Only Look Once: Unified, Real-Time Object Detection", 2016, figure 3.
Departures: a norm after each convolution (models/norms.py; YOLOv2 has batch norm); images of any size, because the
last map before the figure's strided convolution is brought to twice the grid by adaptive pooling (for 448x448 and S = 7
it has that size already); a 1x1 convolution instead of the two dense layers, so weights do not depend on S; each
predictor has class scores of its own, since real frames put up to seven centres into one cell.
"""

import math

from pydantic import Field
from torch import Tensor, nn

from models.normalise import Normalise
from models.norms import NormFromScratch, set_norm
from models.pooling import average_pool
from models.precision import in_float32
from models.settings import Channels, FromScratch, Layers

BOX_VALUES = 5  # x, y, sqrt w, sqrt h, objectness; then one score a class


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, norm (its shift stands in for the bias), leaky ReLU with the paper's slope."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


class Darknet(nn.Sequential):
    """The figure's columns up to its strided convolution: B x 3 x H x W -> B x `out_channels` x H/32 x W/32.

    `pairs`: how many pairs of 1x1 and 3x3 convolutions each stage has, one stage a number; the figure has (2, 5, 2).
    Each stage halves the map, so fewer stages suit smaller images: two end at H/16, one at H/8.
    """

    def __init__(self, *, base_channels: int, pairs: tuple[int, ...]) -> None:
        channels = 3 * base_channels
        layers = [
            conv(3, base_channels, 7, stride=2),  # B 64 H/2 W/2
            nn.MaxPool2d(2),
            conv(base_channels, channels, 3),  # B 192 H/4 W/4
        ]
        for stage, count in enumerate(pairs):
            layers.append(nn.MaxPool2d(2))
            # the widths of a stage's pairs and of its last: 256..512, 512..1024, 1024..1024
            width, last = (min(factor << stage, 16) * base_channels for factor in (4, 8))
            for out_channels in [width] * (count - 1) + [last]:
                layers += [conv(channels, out_channels // 2, 1), conv(out_channels // 2, out_channels, 3)]
                channels = out_channels
        super().__init__(*layers)
        self.out_channels = channels


class YOLOv1Settings(FromScratch):
    base_channels: Channels = 64
    """Channels of the first convolution; the others are multiples."""
    pairs: tuple[Layers, ...] = Field((2, 5, 2), strict=False, max_length=16)  # YAML has no tuples
    """Pairs of 1x1 and 3x3 convolutions in each stage of the encoder; each stage halves the map."""


class YOLOv1(nn.Module):
    """Images uint8 B x 3 x H x W -> B x S x S x predictors x (5 + classes) raw numbers.

    The S x S grid (rows, columns) spans the whole image, whatever its shape. The last dimension is x, y, sqrt w,
    sqrt h, objectness and the class scores; what they mean is up to loss and decoding.
    """

    divisor = 1

    def __init__(
        self,
        *,
        classes: int,
        grid: int = 8,
        predictors: int = 10,
        base_channels: int = 64,
        pairs: tuple[int, ...] = (2, 5, 2),
        norm: NormFromScratch = "group",
    ) -> None:
        super().__init__()
        self.grid = grid
        self.normalise = Normalise()
        self.encoder = Darknet(base_channels=base_channels, pairs=pairs)
        width = self.encoder.out_channels
        self.before_grid = conv(width, width, 3)
        self.to_grid = conv(width, width, 3, stride=2)
        self.head = nn.Sequential(conv(width, width, 3), conv(width, width, 3))
        self.output = Predictions(width, classes=classes, predictors=predictors)
        set_norm(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.before_grid(self.encoder(self.normalise(images)))  # B 1024 H/32 W/32
        x = average_pool(x, 2 * self.grid, 2 * self.grid)  # B 1024 2S 2S
        x = self.head(self.to_grid(x))  # B 1024 S S
        return self.output(x)  # B S S 10 19


class Predictions(nn.Conv2d):
    """What a cell's predictors say, by a 1x1 convolution: B x C x S x S -> B x S x S x predictors x (5 + classes)."""

    def __init__(self, in_channels: int, *, classes: int, predictors: int) -> None:
        super().__init__(in_channels, predictors * (BOX_VALUES + classes), 1)
        self.predictors = predictors
        # Nearly all predictors are empty: start near that, or the first epochs only unlearn false alarms
        prior = 0.01
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.bias.data.view(predictors, -1)[:, BOX_VALUES - 1].fill_(math.log(prior / (1 - prior)))

    def forward(self, x: Tensor) -> Tensor:
        x = in_float32(super().forward, x).permute(0, 2, 3, 1)  # B S S 190
        return x.unflatten(-1, (self.predictors, -1))  # B S S 10 19
