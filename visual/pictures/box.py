"""Boxes over the image, a colour a class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tasks.base import Target
from tasks.box import BoxTask
from tasks.box_grid import Predictions
from visual.drawing import Colour, Rectangle, Tags, dashed_rectangle, line_width, note
from visual.pictures.base import DrawOptions, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torchmetrics import Metric


class BoxPicture(Picture):
    task: BoxTask

    def draw(
        self, image: np.ndarray, prediction: Predictions | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Predicted boxes in solid lines with class and score, true ones dashed; a colour a class.

        The true ones carry their class where no prediction is drawn. Where there is none, it says so.
        """
        canvas = Image.fromarray(image)
        size = options.text_size(canvas.width)
        pen, line = ImageDraw.Draw(canvas), line_width(size)
        names, colours = self.task.classes.names, self.task.classes.rgb
        truths = [(_on(canvas, box), index) for box, index in (_true_boxes(target) if target is not None else [])]
        for box, index in truths:
            dashed_rectangle(pen, box, colours[index], line)
        found = _boxes_over(prediction[0], options.threshold) if prediction is not None else []
        drawn = [(_on(canvas, box), index, score) for box, index, score in found]
        for box, index, _ in reversed(drawn):  # the best on top
            pen.rectangle(box, outline=colours[index], width=line)
        named = [(box, index, f" {score:.2f}") for box, index, score in drawn]
        if prediction is None:
            named = [(box, index, "") for box, index in truths]
        tags = Tags(pen, round(0.8 * size), [*(box for box, _ in truths), *(box for box, *_ in drawn)])
        for box, index, score in named:
            tags.add(f"{names[index]}{score}", box, colours[index])
        if not named:
            note(pen, "no boxes" if prediction is None else f"no boxes (score from {options.threshold:g})", size)
        return np.array(canvas)

    def caption(self, target: Target) -> str:
        return f"{len(_true_boxes(target))} boxes"

    def overlay(self, image: np.ndarray, prediction: Predictions, target: Target) -> dict[str, Any]:
        labels = dict(enumerate(self.task.classes.names))
        predicted = [
            _wandb_box(box, index, labels[index], score) for box, index, score in _boxes_over(prediction[0], 0.0)
        ]
        true = [_wandb_box(box, index, labels[index]) for box, index in _true_boxes(target)]
        boxes = {"prediction": predicted, "truth": true}
        return {"boxes": {name: {"box_data": data, "class_labels": labels} for name, data in boxes.items()}}

    def plots(self, metric: "Metric") -> "dict[str, Figure]":
        from tasks.box_metric import BoxMetric

        assert isinstance(metric, BoxMetric)
        curves = metric.precision_at_recall()
        colours = dict(zip(self.task.classes.names, self.task.classes.rgb, strict=True))
        return {"precision-recall": precision_figure(curves, colours, self.task.name)} if curves else {}


def precision_figure(curves: Mapping[str, np.ndarray], colours: Mapping[str, Colour], task: str) -> "Figure":
    """Precision at 101 recalls; a line a class in its colour with its AP50, all classes taken as one in black."""
    import matplotlib
    from matplotlib.figure import Figure

    inches = matplotlib.rcParams["font.size"] / 72
    figure = Figure(figsize=(35 * inches, (26 + 0.8 * len(curves)) * inches), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, precision) in enumerate(curves.items()):
        colour, style = colours.get(name, (0, 0, 0)), ("-", "--", ":", "-.")[i % 4]
        rgb = [0.8 * level / 255 for level in colour]  # a little darker: on white
        label = f"{name}, AP50 {100 * precision.mean():.1f} %"
        width = 1.0 if name in colours else 2.0
        axes.plot(np.linspace(0, 1, len(precision)), precision, style, color=rgb, linewidth=width, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=f"{task} at IoU 0.5")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _on(canvas: Image.Image, box: Tensor) -> Rectangle:
    """A box of fractions in px."""
    left, top, right, bottom = (box * torch.tensor([canvas.width - 1, canvas.height - 1] * 2)).tolist()
    return left, top, right, bottom


def _true_boxes(target: Target) -> list[tuple[Tensor, int]]:
    """The boxes of the only image: 4 fractions, class."""
    boxes, labels = target["boxes"][0].cpu(), target["labels"][0].tolist()
    return [(box, index) for box, index in zip(boxes, labels, strict=True) if index >= 0]


def _boxes_over(image: dict[str, Tensor], threshold: float) -> list[tuple[Tensor, int, float]]:
    """An image's predicted boxes with at least this score, best first: 4 fractions, class, score."""
    boxes, labels, scores = image["boxes"].float().cpu(), image["labels"].tolist(), image["scores"].tolist()
    return [found for found in zip(boxes, labels, scores, strict=True) if found[2] >= threshold]


def _wandb_box(box: Tensor, index: int, name: str, score: float | None = None) -> dict[str, Any]:
    """A box in wandb's format, with its score for the dashboard's slider."""
    position = dict(zip(("minX", "minY", "maxX", "maxY"), box.tolist(), strict=True))
    scores = {} if score is None else {"scores": {"score": score}}
    return {"position": position, "class_id": index, "box_caption": name, **scores}
