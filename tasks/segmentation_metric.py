"""IoU and accuracy of class maps, as a metric that merges exactly over processes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from datasets.spec import IGNORE
from tasks.base import Target

FREQUENT = 0.005  # classes with a larger share of the pixels count for `miou_frequent`


class SegmentationMetric(Metric):
    """IoU and accuracy from one confusion matrix over all pixels of the split; pixels without a class don't count.

    update: predictions uint8 B x H x W, target as from `SegmentationTask.collate`. compute:
        accuracy         share of the pixels with the right class
        iou/CLASS        intersection / union of truth and prediction, for each class present
        share/CLASS      the class's share of the truth's pixels, for each class present
        classes_present  classes with at least one pixel of the truth; one that is only predicted is not present
        miou             mean IoU of the classes present
        miou_frequent    mean IoU of the classes with more than 0.5 % of the truth's pixels
    A mean over nothing (a split without labels) is NaN.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, classes: Sequence[str]):
        super().__init__()
        self.classes = tuple(classes)
        # rows: truth, columns: prediction
        size = len(self.classes)
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Target) -> None:
        truth = target["classes"].long()
        size = len(self.classes)
        pairs = truth * size + predictions
        # pixels without a class are counted in one more bin, which is cut off: no gather of variable length
        pairs = torch.where(truth == IGNORE, size**2, pairs)
        counts = torch.bincount(pairs.flatten(), minlength=size**2 + 1)
        self.confusion += counts[:-1].view(size, size)

    def compute(self) -> dict[str, float]:
        confusion = self.confusion.double()
        hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        iou = hits / (truth + predicted - hits)  # NaN where a class is in neither
        present = truth > 0
        scores = {
            "miou": iou[present].mean().item(),
            "miou_frequent": iou[truth > FREQUENT * truth.sum()].mean().item(),
            "accuracy": (hits.sum() / truth.sum()).item(),
            "classes_present": float(present.sum()),
        }
        share, there = truth / truth.sum(), present.nonzero().flatten().tolist()
        by_class = {"iou": iou, "share": share}
        return scores | {f"{key}/{self.classes[i]}": of[i].item() for key, of in by_class.items() for i in there}
