"""Boxes: what stands where, each of one of the data set's C classes, by YOLOv1.

label: BoxLabel; target: {"boxes": float32 B x N x 4, "labels": int64 B x N, -1 = padding, "present": bool B};
output: raw numbers B x S x S x predictors x (5 + C). Boxes are left, top, right, bottom everywhere, in fractions of the
image's width and height, so they fit the image at every size; IoU, and with it every metric, is the same in pixels.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from datasets.files import parse_json
from datasets.images import MAX_PIXELS
from models.yolov1 import BOX_VALUES
from strict import DataModel, checked
from tasks.base import Target, Task
from tasks.box_grid import Predictions, assign, encode, paired_iou, to_boxes
from tasks.written import Written

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric

CANDIDATES = 300  # of an image that enter non-maximum suppression; COCO's metrics look at 100 of a class


class BoxLabel(NamedTuple):
    """The boxes of one frame."""

    boxes: np.ndarray  # float32 N x 4, fractions of the image
    classes: np.ndarray  # int64 N


class BoxTask(Task):
    kind = "box"
    best_metric = "map50"
    metrics = {
        "map": Written("mAP", "%", 1, "higher"),
        "map50": Written("mAP50", "%", 1, "higher"),
        "map75": Written("mAP75", "%", 1, "higher"),
        "ap": Written("AP", "%", 1, "higher"),
        "ap50": Written("AP50", "%", 1, "higher"),
        "ap50_any_class": Written("AP50 whatever the class", "%", 1, "higher"),
        "matched_iou": Written("mean IoU of matched boxes", "%", 1, "higher"),
        "objects": Written("objects", decimals=0),
        "dropped_boxes": Written("boxes beyond the predictors of their cell", decimals=0),
    }
    class_frequency = "objects"
    unscorable = "no label has a box"
    likelihood = "classification"  # of objectness and class; position and size are squares
    default_network, default_head = "yolov1", "levels"

    class Settings(Task.Settings):
        grid: int = Field(8, gt=0, le=256)
        """The image is divided into grid x grid cells."""
        predictors: int = Field(10, gt=0, le=1000)
        """Boxes that a cell can give (the paper's B)."""
        objectness_loss: Literal["bce", "square"] = "bce"
        """Binary cross-entropy, or the paper's square."""
        class_loss: Literal["cross_entropy", "square"] = "cross_entropy"
        """Cross-entropy, or the paper's sum of squares over the classes' probabilities."""
        lambda_coord: NonNegativeFloat = 5.0
        """Weight of position and size."""
        lambda_noobj: NonNegativeFloat = 0.5
        """Weight of the objectness of predictors without a box."""
        score_threshold: float = Field(0.01, ge=0, lt=1)
        """Decoding drops boxes below it. Low, because average precision lives on the ranking, not on a threshold."""
        nms_threshold: float = Field(0.5, gt=0, le=1)
        """Decoding drops a box that overlaps a better one of its class by more than this IoU."""

    settings: Settings

    def parse(self, content: bytes) -> BoxLabel:
        return label_of(parse_json(content), self.classes.index)

    def collate(self, labels: list[BoxLabel | None]) -> Target:
        longest = max((len(label.boxes) for label in labels if label is not None), default=0)
        boxes = torch.zeros(len(labels), longest, 4)
        classes = torch.full((len(labels), longest), -1)
        for i, label in enumerate(labels):
            if label is not None:
                boxes[i, : len(label.boxes)] = torch.from_numpy(label.boxes)
                classes[i, : len(label.boxes)] = torch.from_numpy(label.classes)
        return {"boxes": boxes, "labels": classes, "present": torch.tensor([label is not None for label in labels])}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        left, top, right, bottom = target["boxes"].unbind(-1)
        mirrored = torch.stack([1 - right, top, 1 - left, bottom], -1)
        real = (target["labels"] >= 0) & flip[:, None]  # B N
        return target | {"boxes": torch.where(real[..., None], mirrored, target["boxes"])}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """The paper's equation 3: a sum over the image's boxes and predictors, so frames with more boxes weigh more.

        Each box belongs to the cell of its centre; `assign` says which of the cell's predictors is responsible for it.
        Position and size are squares as in the paper, of numbers that a sigmoid keeps in range: x and y within the
        cell, square roots of width and height. Objectness aims at 1 for a responsible predictor, not at the paper's
        IoU, which starts near 0 and so first teaches that there is nothing (toy of coloured rectangles, one seed, 420
        steps: mAP50 0.72 with 1, 0.63 with the IoU).
        """
        present = target["present"]
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        output = output.where(present[:, None, None, None, None], 0)  # not even a NaN leaves an unlabelled sample
        cell, wanted = encode(target["boxes"].to(output.dtype), self.settings.grid)
        with torch.no_grad():
            predictor = self._responsible(output, target, cell, wanted)  # B N, -1 = none
        matched = predictor >= 0

        flat = output.flatten(1, 3)  # B S*S*predictors 5+C
        place = cell * self.settings.predictors + predictor.clamp(min=0)  # B N, in S*S*predictors
        own = flat.gather(1, place[..., None].expand(-1, -1, flat.shape[-1]))  # B N 5+C
        coordinates = (own[..., :4].sigmoid() - wanted).square().sum(-1)
        box_losses = self.settings.lambda_coord * coordinates + self._class_losses(own[..., BOX_VALUES:], target)
        # unmatched boxes are counted in one more place, which is cut off
        taken = flat.new_zeros(len(flat), flat.shape[1] + 1).scatter(1, place.where(matched, flat.shape[1]), 1)
        objectness_losses = self._objectness_losses(flat[..., BOX_VALUES - 1], taken[:, :-1])
        return box_losses.where(matched, 0).sum(1) + objectness_losses.where(present[:, None], 0).sum(1), present

    def _responsible(self, output: Tensor, target: Target, cell: Tensor, wanted: Tensor) -> Tensor:
        """Which predictor of its cell is responsible for each box: B N, -1 where none."""
        cells = output.flatten(1, 2)[..., :4]  # B S*S predictors 4
        guess = cells.gather(1, cell[..., None, None].expand(-1, -1, *cells.shape[2:])).sigmoid()  # B N predictors 4
        iou = paired_iou(to_boxes(guess, cell[..., None], self.settings.grid), target["boxes"][:, :, None])
        distance = (guess - wanted[:, :, None]).square().sum(-1)  # B N predictors
        return assign(iou, distance, cell, target["labels"] >= 0, self.settings.grid**2)

    def _class_losses(self, scores: Tensor, target: Target) -> Tensor:
        """B N x C class scores -> B N losses."""
        labels = target["labels"].clamp(min=0)
        if self.settings.class_loss == "cross_entropy":
            return F.cross_entropy(scores.movedim(-1, 1), labels, reduction="none")
        return (scores.softmax(-1) - F.one_hot(labels, len(self.classes))).square().sum(-1)

    def _objectness_losses(self, logits: Tensor, taken: Tensor) -> Tensor:
        if self.settings.objectness_loss == "bce":
            losses = F.binary_cross_entropy_with_logits(logits, taken, reduction="none")
        else:
            losses = (logits.sigmoid() - taken).square()
        return losses.where(taken > 0, self.settings.lambda_noobj * losses)

    def decode(self, output: Tensor) -> Predictions:
        """Class-wise non-maximum suppression. A score is objectness times the probability of the class.

        One predictor may give a box of several classes; boxes are in fractions of the image, clipped to it.
        """
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        cell = torch.arange(self.settings.grid**2, device=output.device)[:, None]  # S*S 1
        boxes = to_boxes(output.flatten(1, 2)[..., :4].sigmoid(), cell, self.settings.grid).flatten(1, 2).clamp(0, 1)
        flat = output.flatten(1, 3)  # B S*S*predictors 5+C
        scores = flat[..., BOX_VALUES - 1 : BOX_VALUES].sigmoid() * flat[..., BOX_VALUES:].softmax(-1)
        scores, index = scores.flatten(1).topk(min(CANDIDATES, scores[0].numel()))  # B candidates
        boxes = boxes.gather(1, (index // len(self.classes))[..., None].expand(-1, -1, 4))  # B candidates 4
        return self._suppress(boxes, scores, index % len(self.classes))

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Predictions:
        """All images in one call: a box competes with those of its image and class only."""
        sample = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(labels)
        from torchvision.ops import batched_nms  # takes a second to import

        good = scores > self.settings.score_threshold
        boxes, scores, labels, sample = boxes[good], scores[good], labels[good], sample[good]
        # batched_nms moves each group to a place of its own, which costs float32 digits
        kept = batched_nms(
            boxes.double(), scores.double(), sample * len(self.classes) + labels, self.settings.nms_threshold
        )
        kept = kept[sample[kept].argsort(stable=True)]
        counts = sample[kept].bincount(minlength=len(good)).tolist()
        parts = zip(boxes[kept].split(counts), scores[kept].split(counts), labels[kept].split(counts), strict=True)
        return [{"boxes": b, "scores": s, "labels": c} for b, s, c in parts]

    def metric(self) -> "Metric":
        from tasks.box_metric import BoxMetric

        return BoxMetric(classes=self.classes.names, grid=self.settings.grid, predictors=self.settings.predictors)

    def scorable(self, label: BoxLabel) -> bool:
        return len(label.boxes) > 0

    def constant(self, labels: Iterable[BoxLabel]) -> Predictions:
        """The commonest boxes of each class, scored by how common they are (`commonest_boxes`)."""
        labels = list(labels)
        boxes = torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *(label.boxes for label in labels)]))
        classes = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(label.classes for label in labels)]))
        found = [(commonest_boxes(boxes[classes == index]), index) for index in classes.unique().tolist()]
        predictions = {
            "boxes": torch.cat([boxes[:0], *(common for (common, _), _ in found)]),
            "scores": torch.cat([boxes[:0, 0], *(count / len(boxes) for (_, count), _ in found)]),
            "labels": torch.cat([classes[:0], *(torch.full((len(count),), index) for (_, count), index in found)]),
        }
        order = predictions["scores"].argsort(descending=True, stable=True)
        return [{name: values[order] for name, values in predictions.items()}]

    def outputs(self) -> dict[str, Any]:
        return {"classes": len(self.classes), "grid": self.settings.grid, "predictors": self.settings.predictors}


class OneBox(DataModel):
    kind: str = Field(alias="class")
    bbox: list[float] = Field(min_length=4, max_length=4)


class BoxFile(DataModel):
    """A processed box label."""

    size: list[PositiveFloat] = Field(min_length=2, max_length=2)
    boxes: list[OneBox]


def label_of(content: Any, index: Mapping[str, int]) -> BoxLabel:
    """A processed label's JSON -> BoxLabel; index: of each class by name. ValueError: it is not such a label."""
    file = checked(BoxFile, content)
    if unknown := {box.kind for box in file.boxes} - index.keys():
        raise ValueError(f"unknown classes {sorted(unknown)}")
    if math.prod(file.size) > MAX_PIXELS:
        raise ValueError(f"size {file.size} is of no image: at most {MAX_PIXELS:,} pixels are read")
    size = np.array(file.size)
    edges = np.array([box.bbox for box in file.boxes] or np.zeros((0, 4)))
    left, top, right, bottom = edges.T
    if not (
        (left >= 0) & (left < right) & (right <= size[0]) & (top >= 0) & (top < bottom) & (bottom <= size[1])
    ).all():
        raise ValueError("a bbox is not left < right, top < bottom within the image")
    classes = np.array([index[box.kind] for box in file.boxes], np.int64)
    return BoxLabel((edges / np.tile(size, 2)).astype(np.float32), classes)


def commonest_boxes(boxes: Tensor, how_many: int = 20, of_at_most: int = 2000) -> tuple[Tensor, Tensor]:
    """N x 4 -> the `how_many` commonest places (x 4) and how many of the N boxes each stands for.

    Greedy: the box that overlaps most others by IoU 0.5 or more stands for them all; again with the rest. More than
    `of_at_most` boxes are represented by every k-th.
    """
    from torchvision.ops import box_iou

    total = len(boxes)
    boxes = boxes[:: -(-total // of_at_most) or 1]
    close = box_iou(boxes, boxes) >= 0.5
    left = torch.ones(len(boxes), dtype=torch.bool)
    picks: list[int] = []
    counts: list[int] = []
    while left.any() and len(picks) < how_many:
        together = (close & left).sum(1)
        picks.append(int(together.argmax()))
        counts.append(int(together[picks[-1]]))
        left &= ~close[picks[-1]]
    return boxes[picks], torch.tensor(counts, dtype=boxes.dtype) * (total / len(boxes) if counts else 1)
