"""Classes in their colours over the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from datasets.spec import IGNORE
from tasks.base import Target
from tasks.segmentation import SegmentationTask
from visual.drawing import blended, fitted, greyed, legend, with_strip
from visual.pictures.base import DrawOptions, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torchmetrics import Metric

COLOUR_SHARE = 0.6  # of a class's colour; the rest is the image


class SegmentationPicture(Picture):
    task: SegmentationTask
    strip_lines = 4
    narrow_lines = 8
    errors = "wrong pixels"

    def draw(
        self, image: np.ndarray, prediction: Tensor | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Classes in their colours over the image, and a legend of those present, the commonest first.

        With `options.errors` a prediction shows only its wrong pixels, on the image in grey.
        """
        truth = None if target is None else fitted(target["classes"][0].cpu().numpy(), image)
        shown = truth if prediction is None else fitted(prediction[0].cpu().numpy(), image)
        assert shown is not None  # one of them is given
        visible = shown != IGNORE
        if options.errors and prediction is not None and truth is not None:
            visible &= (truth != IGNORE) & (shown != truth)
            image = greyed(image, 0, 128)
        colours = self.task.classes.palette()
        size = options.text_size(image.shape[1])
        lines = self.lines(image.shape[1], size)
        picture, pen = with_strip(blended(image, colours[shown], visible, COLOUR_SHARE), lines, size)
        counts = np.bincount(shown[visible], minlength=len(self.task.classes))
        present = sorted(np.flatnonzero(counts).tolist(), key=lambda index: -counts[index])
        entries = [(self.task.classes.names[index], self.task.classes.rgb[index]) for index in present]
        legend(pen, entries, (0, image.shape[0]), image.shape[1], lines, size)
        return np.array(picture)

    def caption(self, target: Target) -> str:
        share = (target["classes"] == IGNORE).double().mean()
        return f"{share:.0%} without a class"

    def overlay(self, image: np.ndarray, prediction: Tensor, target: Target) -> dict[str, Any]:
        labels = dict(enumerate(self.task.classes.names)) | {IGNORE: "no class"}
        masks = {"prediction": prediction[0], "truth": target["classes"][0]}
        return {
            "masks": {
                name: {"mask_data": fitted(mask.cpu().numpy(), image), "class_labels": labels}
                for name, mask in masks.items()
            }
        }

    def plots(self, metric: "Metric") -> "dict[str, Figure]":
        from tasks.segmentation_metric import SegmentationMetric

        assert isinstance(metric, SegmentationMetric)
        return {"confusion": confusion_figure(metric.confusion.cpu().numpy(), self.task.classes.names, self.task.name)}


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], task: str) -> "Figure":
    """Truth by row, prediction by column, in per cent of the row; classes in neither are left out.

    As large as its letters need.
    """
    import matplotlib
    from matplotlib.figure import Figure

    present = np.flatnonzero(confusion.sum(0) + confusion.sum(1)).tolist()
    counts = confusion[np.ix_(present, present)].astype(np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [classes[index] for index in present]
    points = matplotlib.rcParams["font.size"]
    side = (1.75 * len(names) + 13) * points / 72  # inches; a cell has room for two digits
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(shares >= 0.005):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=0.75 * points)
    axes.set(xlabel="prediction", ylabel="truth", xticks=range(len(names)), yticks=range(len(names)))
    axes.set_xticklabels(names, rotation=90)
    axes.set_yticklabels(names)
    axes.set_title(f"{task}: % of the true class's pixels")
    return figure
