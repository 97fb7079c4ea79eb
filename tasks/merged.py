"""Segmentation in the 19 merged classes: the evaluation of networks that were trained on all 38.

The probability of a merged class is the sum of its members'; labels are merged before anything is counted.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.a2d2.classes import MERGED_CLASSES, SEMANTIC_CLASSES, merged_of_class
from datasets.frames import Frame
from datasets.processed import ProcessedData
from tasks.base import Target
from tasks.segmentation import SegmentationTask


class MergedSegmentation(SegmentationTask):
    """In place of the task that a network was trained with. Its loss weighs all classes alike."""

    classes = tuple(MERGED_CLASSES)

    def read(self, processed: ProcessedData, frame: Frame) -> np.ndarray | None:
        label = super().read(processed, frame)
        return None if label is None else merged_of_class()[label]

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        return super().loss(merge_logits(output), target)

    def decode(self, output: Tensor) -> Tensor:
        """Logits B x 38 x H x W -> map of merged classes uint8 B x H x W."""
        return super().decode(merge_logits(output))


def merge_logits(logits: Tensor) -> Tensor:
    """B x 38 x H x W -> logits B x 19 x H x W whose softmax is the sum of the members' probabilities."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    members = ([SEMANTIC_CLASSES.index(name) for name in names] for names in MERGED_CLASSES.values())
    return torch.stack([logits[:, indices].logsumexp(1) for indices in members], 1)
