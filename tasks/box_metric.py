"""COCO's average precision for boxes, as a metric that merges exactly over processes."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from tasks.base import Target
from tasks.box_grid import Predictions, encode


class Evaluated(NamedTuple):
    """COCO's evaluation of some images."""

    present: list[int]  # classes that have a true box
    counts: list[int]  # their true boxes
    precision: Tensor  # 10 IoU thresholds x 101 recalls x classes present
    any_class: Tensor  # 10 x 101: all classes taken as one
    ious: list[Tensor]  # detections by falling score x truths, a table of each image and class


class BoxMetric(Metric):
    """COCO's average precision over all images of the split.

    update: predictions as from `BoxTask.decode`, target as from `BoxTask.collate`. compute:
        map, map50, map75  mean over the classes present: of IoU 0.50, 0.55 ... 0.95; at 0.5; at 0.75
        ap/CLASS           the class's own share of map, for each class present
        ap50/CLASS         the class's own share of map50
        ap50_any_class     AP at 0.5 with all classes taken as one: are things found, whatever they are called (COCO's
                           100 best detections of each class in an image are then the 100 best of the image)
        objects            true boxes in the split: how much the numbers above can mean
        objects/CLASS      those of the class, for each class present
        matched_iou        mean IoU of the matched boxes: by falling score, with the free box of the class and image
                           that fits best, if by 0.5 or more (as COCO matches)
        dropped_boxes      boxes that no predictor could answer for, since their cell has more boxes than predictors
    A mean over nothing (a split without boxes) is NaN.

    States are flat, since torchmetrics' own MeanAveragePrecision hangs when processes have seen different numbers of
    images.
    """

    full_state_update = False
    detections: list[Tensor]  # these four are one tensor each once processes are merged
    detection_counts: list[Tensor]
    truths: list[Tensor]
    truth_counts: list[Tensor]
    dropped: Tensor

    def __init__(self, *, classes: Sequence[str], grid: int, predictors: int):
        super().__init__()
        self.classes = tuple(classes)
        self.grid, self.predictors = grid, predictors
        for name in ("detections", "detection_counts", "truths", "truth_counts"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("dropped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.evaluated: Evaluated | None = None  # by `compute`, for plots: of all processes, until the next update

    def update(self, predictions: Predictions, target: Target) -> None:
        self.evaluated = None
        present, real = target["present"], target["labels"] >= 0
        truths = torch.cat([target["boxes"], target["labels"][..., None]], -1)  # B N 5
        self.truths.append(truths[real].flatten())
        self.truth_counts.append(real.sum(1)[present].float())

        # one constant prediction stands for every image
        predictions = predictions * len(present) if len(predictions) == 1 else predictions
        seen = [image for image, labelled in zip(predictions, present.tolist(), strict=True) if labelled]
        rows = [torch.cat([p["boxes"], p["labels"][:, None], p["scores"][:, None]], 1).flatten() for p in seen]
        self.detections.append(torch.cat([truths.new_zeros(0), *(row.to(truths) for row in rows)]))  # 6 a detection
        self.detection_counts.append(truths.new_tensor([len(p["scores"]) for p in seen]))

        cell, _ = encode(target["boxes"], self.grid)
        boxes_in_cell = cell.new_zeros(len(cell), self.grid**2).scatter_add(1, cell, real.long())
        self.dropped += (boxes_in_cell - self.predictors).clamp(min=0).sum()

    def compute(self) -> dict[str, float]:
        self.evaluated = evaluated(*self._by_image())
        return _scores(self.evaluated, self.classes) | {"dropped_boxes": int(self.dropped)}

    def precision_at_recall(self) -> dict[str, np.ndarray]:
        """At IoU 0.5, COCO's precision at the recalls 0, 0.01 ... 1: of all classes taken as one ("any class"), then of
        each class present, the commonest first. The mean over the recalls is ap50. Empty without a true box."""
        found = self.evaluated or evaluated(*self._by_image())
        if found is None:
            return {}
        commonest_first = sorted(range(len(found.counts)), key=lambda place: -found.counts[place])
        curves = {self.classes[found.present[place]]: found.precision[0, :, place] for place in commonest_first}
        return {name: curve.numpy() for name, curve in {"any class": found.any_class[0], **curves}.items()}

    def reset(self) -> None:
        super().reset()
        self.evaluated = None

    def _by_image(self) -> tuple[Predictions, Predictions]:
        """Detections and truths of each image."""
        truths = [
            {"boxes": rows[:, :4], "labels": rows[:, 4].long()}
            for rows in _images(self.truths, self.truth_counts, columns=5)
        ]
        detections = [
            {"boxes": rows[:, :4], "labels": rows[:, 4].long(), "scores": rows[:, 5]}
            for rows in _images(self.detections, self.detection_counts, columns=6)
        ]
        return detections, truths


def _images(rows: list[Tensor] | Tensor, counts: list[Tensor] | Tensor, columns: int) -> tuple[Tensor, ...]:
    """A pair of the metric's states (lists, or one tensor once processes are merged) -> rows x columns, by image."""
    rows, counts = (
        (state if isinstance(state, Tensor) else torch.cat([torch.zeros(0), *(part.cpu() for part in state)])).cpu()
        for state in (rows, counts)
    )
    return rows.view(-1, columns).split(counts.long().tolist())


def evaluated(detections: Predictions, truths: Predictions) -> Evaluated | None:
    """By COCO's own rules, over the images of these lists; None without a true box."""
    labels = torch.cat([torch.zeros(0).long(), *(image["labels"] for image in truths)])
    present = labels.unique().tolist()
    if not present:
        return None
    precision, classes, ious = _evaluate(detections, truths)
    any_class, _, _ = _evaluate(_of_one_class(detections), _of_one_class(truths))
    places = [classes.index(index) for index in present]
    return Evaluated(present, labels.bincount()[present].tolist(), precision[:, :, places], any_class[:, :, 0], ious)


def _scores(found: Evaluated | None, all_names: Sequence[str]) -> dict[str, float]:
    """Average precision: the mean of the precisions over all recalls."""
    if found is None:
        return dict.fromkeys(("map", "map50", "map75", "ap50_any_class", "matched_iou"), math.nan) | {"objects": 0}
    ap, names = found.precision.mean(1), [all_names[index] for index in found.present]
    return {
        "map": ap.mean().item(),
        "map50": ap[0].mean().item(),
        "map75": ap[5].mean().item(),
        "ap50_any_class": found.any_class[0].mean().item(),
        "matched_iou": _matched_iou(found.ious),
        "objects": sum(found.counts),
        **{f"ap/{name}": value for name, value in zip(names, ap.mean(0).tolist(), strict=True)},
        **{f"ap50/{name}": value for name, value in zip(names, ap[0].tolist(), strict=True)},
        **{f"objects/{name}": count for name, count in zip(names, found.counts, strict=True)},
    }


def _of_one_class(images: Predictions) -> Predictions:
    return [image | {"labels": torch.zeros_like(image["labels"])} for image in images]


def _evaluate(detections: Predictions, truths: Predictions) -> tuple[Tensor, list[int], list[Tensor]]:
    """COCO's evaluation; there is at least one true box.

    Precision, 10 IoU thresholds x 101 recalls x classes; the indices of these classes, with those that are only
    detected and have -1; tables of IoU, one of each image and class.
    """
    coco = MeanAveragePrecision(
        extended_summary=True,
        backend="faster_coco_eval",
        sync_on_compute=False,
        # torchmetrics' own are rounded to float32, so that a recall of exactly 0.2 misses the threshold 0.2
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    coco.warn_on_many_detections = False  # it looks at the 100 best of each class
    coco.update(detections, truths)
    result = coco.compute()
    # IoU thresholds, recalls, classes, areas (0 = all), detections an image (-1 = most)
    return result["precision"][:, :, :, 0, -1], result["classes"].view(-1).tolist(), list(result["ious"].values())


def _matched_iou(tables: Iterable[Tensor]) -> float:
    """Tables of IoU, detections by falling score x truths, one of each image and class -> mean IoU of the matched."""
    matched = []
    for table in tables:
        free = np.atleast_2d(torch.as_tensor(table).numpy().copy())  # torchmetrics makes a 1 x 1 table a scalar
        for row in free:
            if row.size and row.max() >= 0.5:
                matched.append(row.max())
                free[:, row.argmax()] = 0
    return float(np.mean(matched)) if matched else math.nan
