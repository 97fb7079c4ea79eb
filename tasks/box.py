"""Boxes: what stands where, one of 14 classes each, by YOLOv1.

label: BoxLabel; target: {"boxes": float32 B x N x 4, "labels": int64 B x N, -1 = padding, "present": bool B};
output: raw numbers B x S x S x predictors x 19. Boxes are left, top, right, bottom everywhere, in fractions of the
image's width and height, so they fit the image at every size; IoU, and with it every metric, is the same in pixels.
"""

import json
import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import batched_nms, box_iou

from datasets.classes import BOX_CLASSES
from datasets.layout import Frame, ProcessedData
from models.heads import BoxHead
from models.yolov1 import BOX_VALUES, YOLOv1
from tasks.base import StrictModel, Target, Task

CLASSES = len(BOX_CLASSES)
CLASS_INDEX = {name: index for index, name in enumerate(BOX_CLASSES)}
CANDIDATES = 300  # of an image that enter non-maximum suppression; COCO's metrics look at 100 of a class

Predictions = list[dict[str, Tensor]]  # an image: boxes N x 4 (fractions), scores N, labels N; best first


class BoxLabel(NamedTuple):
    """The boxes of one frame."""

    boxes: np.ndarray  # float32 N x 4, fractions of the image
    classes: np.ndarray  # int64 N


class BoxTask(Task):
    name = "box"
    best_metric = "map50"
    higher_is_better = True
    likelihood = "classification"  # of objectness and class; position and size are squares

    class Settings(StrictModel):
        grid: PositiveInt = 8
        """The image is divided into grid x grid cells."""
        predictors: PositiveInt = 10
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
        base_channels: PositiveInt = 64
        """Channels of the first convolution; the others are multiples."""
        pairs: tuple[PositiveInt, ...] = Field((2, 5, 2), strict=False)  # YAML has no tuples
        """Pairs of 1x1 and 3x3 convolutions in each stage of the encoder; each stage halves the map."""

    settings: Settings

    def read(self, processed: ProcessedData, frame: Frame) -> BoxLabel | None:
        path = processed.path(self.name, frame)
        try:
            return _parse(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a box label: {error}") from None

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

        flat = output.flatten(1, 3)  # B S*S*predictors 19
        place = cell * self.settings.predictors + predictor.clamp(min=0)  # B N, in S*S*predictors
        own = flat.gather(1, place[..., None].expand(-1, -1, flat.shape[-1]))  # B N 19
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
        """B N x 14 class scores -> B N losses."""
        labels = target["labels"].clamp(min=0)
        if self.settings.class_loss == "cross_entropy":
            return F.cross_entropy(scores.movedim(-1, 1), labels, reduction="none")
        return (scores.softmax(-1) - F.one_hot(labels, CLASSES)).square().sum(-1)

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
        flat = output.flatten(1, 3)  # B S*S*predictors 19
        scores = flat[..., BOX_VALUES - 1 : BOX_VALUES].sigmoid() * flat[..., BOX_VALUES:].softmax(-1)
        scores, index = scores.flatten(1).topk(min(CANDIDATES, scores[0].numel()))  # B candidates
        boxes = boxes.gather(1, (index // CLASSES)[..., None].expand(-1, -1, 4))  # B candidates 4
        return self._suppress(boxes, scores, index % CLASSES)

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Predictions:
        """All images in one call: a box competes with those of its image and class only."""
        sample = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(labels)
        good = scores > self.settings.score_threshold
        boxes, scores, labels, sample = boxes[good], scores[good], labels[good], sample[good]
        # batched_nms moves each group to a place of its own, which costs float32 digits
        kept = batched_nms(boxes.double(), scores.double(), sample * CLASSES + labels, self.settings.nms_threshold)
        kept = kept[sample[kept].argsort(stable=True)]
        counts = sample[kept].bincount(minlength=len(good)).tolist()
        parts = zip(boxes[kept].split(counts), scores[kept].split(counts), labels[kept].split(counts), strict=True)
        return [{"boxes": b, "scores": s, "labels": c} for b, s, c in parts]

    def metric(self) -> Metric:
        return BoxMetric(grid=self.settings.grid, predictors=self.settings.predictors)

    def blind(self, labels: Iterable[BoxLabel]) -> Predictions:
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

    def network(self) -> nn.Module:
        return YOLOv1(
            classes=CLASSES,
            grid=self.settings.grid,
            predictors=self.settings.predictors,
            base_channels=self.settings.base_channels,
            pairs=self.settings.pairs,
        )

    def head(self, channels: int) -> nn.Module:
        return BoxHead(channels=channels, classes=CLASSES, grid=self.settings.grid, predictors=self.settings.predictors)


def _parse(content: dict) -> BoxLabel:
    """A processed label's JSON -> BoxLabel. LookupError, TypeError, ValueError: it is not such a label."""
    unknown = {box["class"] for box in content["boxes"]} - CLASS_INDEX.keys()
    if unknown:
        raise ValueError(f"unknown classes {sorted(map(str, unknown))}")
    size = np.array(content["size"])
    edges = np.array([box["bbox"] for box in content["boxes"]] or np.zeros((0, 4)))
    if size.shape != (2,) or size.dtype.kind not in "if" or not (size > 0).all():
        raise ValueError(f"size {content['size']!r} instead of [width, height]")
    if edges.shape[1:] != (4,) or edges.dtype.kind not in "if":
        raise ValueError("a bbox is not four numbers")
    left, top, right, bottom = edges.T
    if not (
        (left >= 0) & (left < right) & (right <= size[0]) & (top >= 0) & (top < bottom) & (bottom <= size[1])
    ).all():
        raise ValueError("a bbox is not left < right, top < bottom within the image")
    classes = np.array([CLASS_INDEX[box["class"]] for box in content["boxes"]], np.int64)
    return BoxLabel((edges / np.tile(size, 2)).astype(np.float32), classes)


# ---- cells and predictors ---------------------------------------------------------------------------------------


def encode(boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Boxes ... x 4 -> the cell of the centre, row * grid + column, and what its predictor should say (... x 4).

    That is x and y within the cell, square root of width and of height in the image; all from 0 to 1.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre = (low + high) / 2 * grid
    corner = centre.floor().clamp(0, grid - 1)  # a centre on the image's last edge belongs to the last cell
    column, row = corner.long().unbind(-1)
    return row * grid + column, torch.cat([centre - corner, (high - low).clamp(min=0).sqrt()], -1)


def to_boxes(values: Tensor, cell: Tensor, grid: int) -> Tensor:
    """The inverse of `encode`: x, y, sqrt w, sqrt h (... x 4) of predictors in `cell` (...) -> boxes ... x 4."""
    corner = torch.stack([cell % grid, cell // grid], -1)
    centre = (corner + values[..., :2]) / grid
    half = values[..., 2:].square() / 2
    return torch.cat([centre - half, centre + half], -1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each box of `a` with the one of `b` in the same place: ... x 4, ... x 4 -> ... (shapes broadcast)."""
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap, area_a, area_b = size.prod(-1), (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    return overlap / (area_a + area_b - overlap)


def assign(iou: Tensor, distance: Tensor, cell: Tensor, valid: Tensor, cells: int) -> Tensor:
    """Which predictor of its cell is responsible for each box: B x N, -1 where none (padding, or the cell is full).

    iou, distance: B x N x predictors, of each box to the predictors of its cell; cell, valid: B x N.
    Greedy in each cell: of all pairs of a free predictor and a box without one, the best is taken, until one side runs
    out. Best = highest IoU, then smallest distance (decides where nothing overlaps yet), then first box, then first
    predictor. All cells of the batch advance at once, one pair a round.
    """
    b, n, predictors = iou.shape
    nearest = distance.flatten(1).argsort(stable=True)
    best_first = iou.flatten(1).gather(1, nearest).argsort(descending=True, stable=True)
    order = nearest.gather(1, best_first)  # B N*predictors: pairs of the sample, best first
    rank = order.argsort().view(b, n, predictors)  # the pair's place in that order; no two are equal
    never = n * predictors
    rank = rank.masked_fill(~valid[..., None], never)

    chosen = torch.full_like(cell, -1)
    indices = torch.arange(predictors, device=iou.device)
    for _ in range(predictors):
        best, predictor = rank.min(2)  # B N: of each box
        best_in_cell = best.new_full((b, cells), never).scatter_reduce(1, cell, best, "amin")
        wins = (best == best_in_cell.gather(1, cell)) & (best < never)  # at most one box a cell
        chosen = predictor.where(wins, chosen)
        taken = cell.new_full((b, cells), -1).scatter_reduce(1, cell, predictor.where(wins, -1), "amax")
        served = indices == taken.gather(1, cell)[..., None]  # B N predictors: this predictor has a box now
        rank = rank.masked_fill(served | wins[..., None], never)
    return chosen


def commonest_boxes(boxes: Tensor, how_many: int = 20, of_at_most: int = 2000) -> tuple[Tensor, Tensor]:
    """N x 4 -> the `how_many` commonest places (x 4) and how many of the N boxes each stands for.

    Greedy: the box that overlaps most others by IoU 0.5 or more stands for them all; again with the rest. More than
    `of_at_most` boxes are represented by every k-th.
    """
    step = -(-len(boxes) // of_at_most)
    boxes = boxes[::step]
    close = box_iou(boxes, boxes) >= 0.5
    left = torch.ones(len(boxes), dtype=torch.bool)
    picks, counts = [], []
    while left.any() and len(picks) < how_many:
        together = (close & left).sum(1)
        picks.append(int(together.argmax()))
        counts.append(int(together[picks[-1]]) * step)
        left &= ~close[picks[-1]]
    return boxes[picks], torch.tensor(counts, dtype=boxes.dtype)


# ---- metric -----------------------------------------------------------------------------------------------------


class BoxMetric(Metric):
    """COCO's average precision over all images of the split.

    update: predictions as from `BoxTask.decode`, target as from `BoxTask.collate`. compute:
        map, map50, map75  mean over the classes present: of IoU 0.50, 0.55 ... 0.95; at 0.5; at 0.75
        ap/CLASS           the class's own share of map, for each class present
        ap50/CLASS         the class's own share of map50
        matched_iou        mean IoU of the matched boxes: by falling score, with the free box of the class and image
                           that fits best, if by 0.5 or more (as COCO matches)
        dropped_boxes      boxes that no predictor could answer for, since their cell has more boxes than predictors
    A mean over nothing (a split without boxes) is NaN.

    States are flat, since torchmetrics' own MeanAveragePrecision hangs when processes have seen different numbers of
    images.
    """

    full_state_update = False

    def __init__(self, *, grid: int, predictors: int):
        super().__init__()
        self.grid, self.predictors = grid, predictors
        for name in ("detections", "detection_counts", "truths", "truth_counts"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("dropped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Predictions, target: Target) -> None:
        present, real = target["present"], target["labels"] >= 0
        truths = torch.cat([target["boxes"], target["labels"][..., None]], -1)  # B N 5
        self.truths.append(truths[real].flatten())
        self.truth_counts.append(real.sum(1)[present].float())

        # one blind prediction stands for every image
        predictions = predictions * len(present) if len(predictions) == 1 else predictions
        seen = [image for image, labelled in zip(predictions, present.tolist(), strict=True) if labelled]
        rows = [torch.cat([p["boxes"], p["labels"][:, None], p["scores"][:, None]], 1).flatten() for p in seen]
        self.detections.append(torch.cat([truths.new_zeros(0), *(row.to(truths) for row in rows)]))  # 6 a detection
        self.detection_counts.append(truths.new_tensor([len(p["scores"]) for p in seen]))

        cell, _ = encode(target["boxes"], self.grid)
        boxes_in_cell = cell.new_zeros(len(cell), self.grid**2).scatter_add(1, cell, real.long())
        self.dropped += (boxes_in_cell - self.predictors).clamp(min=0).sum()

    def compute(self) -> dict[str, float]:
        truths = [
            {"boxes": rows[:, :4], "labels": rows[:, 4].long()}
            for rows in _images(self.truths, self.truth_counts, columns=5)
        ]
        detections = [
            {"boxes": rows[:, :4], "labels": rows[:, 4].long(), "scores": rows[:, 5]}
            for rows in _images(self.detections, self.detection_counts, columns=6)
        ]
        return _coco(detections, truths) | {"dropped_boxes": float(self.dropped)}


def _images(rows: list[Tensor] | Tensor, counts: list[Tensor] | Tensor, columns: int) -> tuple[Tensor, ...]:
    """A pair of the metric's states (lists, or one tensor once processes are merged) -> rows x columns, by image."""
    rows, counts = (
        (state if isinstance(state, Tensor) else torch.cat([torch.zeros(0), *(part.cpu() for part in state)])).cpu()
        for state in (rows, counts)
    )
    return rows.view(-1, columns).split(counts.long().tolist())


def _coco(detections: Predictions, truths: list[dict[str, Tensor]]) -> dict[str, float]:
    """Average precision by COCO's own rules, over the images of this list."""
    present = torch.cat([torch.zeros(0).long(), *(image["labels"] for image in truths)]).unique().tolist()
    if not present:
        return dict.fromkeys(("map", "map50", "map75", "matched_iou"), math.nan)
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
    # IoU thresholds, recalls, classes, areas (0 = all), detections an image (-1 = most) -> 10 thresholds x classes
    precision = result["precision"][:, :, :, 0, -1].mean(1)
    listed = result["classes"].view(-1).tolist()  # with those that are only detected: they have no precision, but -1
    ap = precision[:, [listed.index(index) for index in present]]
    names = [BOX_CLASSES[index] for index in present]
    return {
        "map": ap.mean().item(),
        "map50": ap[0].mean().item(),
        "map75": ap[5].mean().item(),
        "matched_iou": _matched_iou(result["ious"].values()),
        **{f"ap/{name}": value for name, value in zip(names, ap.mean(0).tolist(), strict=True)},
        **{f"ap50/{name}": value for name, value in zip(names, ap[0].tolist(), strict=True)},
    }


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
