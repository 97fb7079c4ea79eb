"""Segmentation in merged classes, where the data set names some: the evaluation of networks trained on the fine ones.

The probability of a merged class is the sum of its members'; labels are merged before anything is counted.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.spec import LabelSpec
from errors import UserError
from tasks.base import Target
from tasks.segmentation import SegmentationTask


class MergedSegmentation(SegmentationTask):
    """In place of the task that a network was trained with. Its loss weighs all classes alike."""

    def __init__(self, fine: SegmentationTask):
        """UserError: the labels' settings merge no classes."""
        if not fine.classes.merged:
            raise UserError(f"{fine.name}: its data set merges no classes (merged in segmentation/settings.json)")
        super().__init__(spec=LabelSpec(fine.classes.coarser()), name=fine.name)
        self.fine, self.members = fine, fine.classes.members()

    def parse(self, content: np.ndarray) -> np.ndarray:
        return self.fine.classes.merged_of_class()[self.fine.parse(content)]

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        return super().loss(merge_logits(output, self.members), target)

    def decode(self, output: Tensor) -> Tensor:
        """Logits B x C x H x W of the fine classes -> map of merged classes uint8 B x H x W."""
        return super().decode(merge_logits(output, self.members))


def merge_logits(logits: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """B x C x H x W -> logits B x M x H x W whose softmax is the sum of the probabilities of each one's members."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.stack([logits[:, list(indices)].logsumexp(1) for indices in members], 1)
