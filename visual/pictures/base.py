"""The contract of a picture: how a task's labels and predictions are shown, and what is shown of one without its own.

A picture is made from its task, whose classes, units and settings it draws with. Predictions and targets are those of
the task, as from `decode` and `collate`, of one frame: B = 1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tasks.base import Target, Task
from visual.drawing import BLACK, blank, fitted, font, line_height, text_size, with_strip

if TYPE_CHECKING:  # takes a second to import: only where a plot is asked for
    from matplotlib.figure import Figure
    from torchmetrics import Metric

SMALLEST_MAP = 8  # px of a side; what has fewer is a list of numbers
FEW = 4  # numbers that are written one by one


@dataclass(frozen=True)
class DrawOptions:
    """How pictures are drawn; each looks at what concerns it."""

    threshold: float = 0.3
    """Boxes with a lower score are not drawn."""
    errors: bool = False
    """Show where prediction and truth differ in the place of predictions, of what has such a picture."""
    letters: int | None = None
    """Their height in px; None: readable on a picture of its width."""

    def text_size(self, width: int) -> int:
        return text_size(width) if self.letters is None else self.letters


class Picture(ABC):
    """How the labels and predictions of one kind are shown."""

    strip_lines: ClassVar[int] = 0  # lines of text by which it is higher than the image
    narrow_lines: ClassVar[int | None] = None  # the same where a line has room for fewer than 40 letters; None: as many
    on_image: ClassVar[bool] = True  # False: all is below the image, which a sheet beside the camera leaves out
    errors: ClassVar[str | None] = (
        None  # what it shows with `DrawOptions.errors`, in words; None: what it shows without
    )
    scene_axis: ClassVar[str | None] = None  # what `scene_value` is, with its unit; None: nothing to plot over time

    def __init__(self, task: Task):
        self.task = task

    @abstractmethod
    def draw(
        self, image: np.ndarray, prediction: Any | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """One frame's picture, uint8 RGB: the image's size, and below it the height of `lines`.

        image: uint8 H x W x 3, RGB, at any size. Without a prediction it shows the truth; with both, the prediction,
        and the truth where that helps to compare. At least one of them is given.
        """

    def blank(self, image: np.ndarray, options: DrawOptions) -> np.ndarray:
        """White, of the size of what `draw` gives: where there is nothing to draw."""
        size = options.text_size(image.shape[1])
        return blank(image, self.lines(image.shape[1], size), size)

    def lines(self, width: int, size: int) -> int:
        """Lines of letters of this size (px) below an image of this width."""
        narrow = width < 20 * size  # a letter is about half as wide as high
        return self.narrow_lines if narrow and self.narrow_lines is not None else self.strip_lines

    def caption(self, target: Target) -> str:
        """What of a label is better said than drawn. Default: nothing."""
        return ""

    def overlay(self, image: np.ndarray, prediction: Any, target: Target) -> dict[str, Any]:
        """Keywords of `wandb.Image` that lay a frame's prediction and truth over its image on the dashboard.

        image: uint8 H x W x 3, RGB, at any size. Default: none; then the picture of `draw` is shown.
        """
        return {}

    def plots(self, metric: "Metric") -> "dict[str, Figure]":
        """What a metric holds beyond numbers, as plots by name. Default: none."""
        return {}

    def scene_value(self, prediction: Any | None = None, target: Target | None = None) -> float:
        """The number of one frame's prediction or truth that is plotted over a scene; NaN where it has none."""
        return math.nan


class DefaultPicture(Picture):
    """Of a kind without a picture of its own: a map of up to three channels as colours, and numbers in words."""

    strip_lines = 2

    def draw(
        self, image: np.ndarray, prediction: Any | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """The prediction's map, else the truth's, both in the truth's range; else the image. Below it what both are."""
        given = {"true": target, "predicted": prediction}
        samples = {name: only_sample(value) for name, value in given.items() if value is not None}
        maps = {name: map_in(sample) for name, sample in samples.items()}
        scale, shown = next(iter(maps.values())), list(maps.values())[-1]
        size = options.text_size(image.shape[1])
        canvas, pen = with_strip(image if shown is None else as_colours(shown, scale, image), self.strip_lines, size)
        line = line_height(size)
        for i, (name, sample) in enumerate(samples.items()):
            place = size // 4, image.shape[0] + i * line + line // 4
            pen.text(place, f"{name}: {in_words(sample)}", fill=BLACK, font=font(size))
        return np.array(canvas)


def only_sample(value: Any) -> Any:
    """A prediction or target without its dimension B, which is 1."""
    return {name: part[0] for name, part in value.items()} if isinstance(value, Mapping) else value[0]


def map_in(sample: Any) -> np.ndarray | None:
    """The first map in a sample, float32 H x W x C with C up to 3; None where there is none."""
    if isinstance(sample, Mapping):
        return next((found for part in sample.values() if (found := map_in(part)) is not None), None)
    if not isinstance(sample, Tensor) or sample.ndim not in (2, 3) or min(sample.shape[-2:]) < SMALLEST_MAP:
        return None
    channels = sample.float().cpu().reshape(-1, *sample.shape[-2:])  # C H W
    return channels.permute(1, 2, 0).contiguous().numpy() if len(channels) <= 3 else None


def as_colours(values: np.ndarray, scale: np.ndarray | None, image: np.ndarray) -> np.ndarray:
    """A map H x W x C as uint8 RGB at the image's size: dark to bright over the range of `scale`, black if not finite.

    One channel is grey, two are red and green.
    """
    known = values if scale is None else scale
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if known.size else (0, 1)
    levels = np.nan_to_num((values - low) / max(high - low, np.finfo(np.float32).tiny), posinf=0, neginf=0)
    levels = np.rint(255 * levels.clip(0, 1)).astype(np.uint8)
    channels = levels.shape[2]
    three = levels.repeat(3, 2) if channels == 1 else np.pad(levels, ((0, 0), (0, 0), (0, 3 - channels)))
    return fitted(three, image)


def in_words(sample: Any) -> str:
    """Few numbers one by one; of more their shape and range."""
    if isinstance(sample, Mapping):
        return ", ".join(f"{name} {in_words(part)}" for name, part in sample.items())
    if not isinstance(sample, Tensor):
        return str(sample)
    if sample.numel() <= FEW:
        return " ".join(f"{number:.4g}" for number in sample.flatten().tolist()) or "none"
    low, high = sample.to(torch.float64).aminmax()
    return f"{' x '.join(map(str, sample.shape))}, {low:.4g} to {high:.4g}"
