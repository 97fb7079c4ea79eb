"""What a block adds up to before its border: losses of the tasks, samples that count for each group."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from datasets.layout import Frame
from training import distributed


class BlockSums:
    """Losses and numbers of valid samples of one block; they stay on the device until its border."""

    def __init__(self, tasks: Sequence[str], groups: Sequence[str], device: torch.device):
        self.tasks, self.groups, self.device = tasks, groups, device
        self.clear()

    def clear(self) -> None:
        self.losses: dict[str, list[Tensor]] = defaultdict(list)
        self.counts: dict[str, list[Tensor]] = defaultdict(list)
        self.by_frames: list[tuple[list[Frame], Tensor]] = []  # micro-batches and their losses, to name a culprit

    def add(self, losses: Mapping[str, Tensor], reached: Mapping[str, Tensor], frames: list[Frame]) -> None:
        """task -> losses of its samples, group -> for each sample that may reach it, whether it counts for it."""
        for task, values in losses.items():
            self.losses[task].append(values.detach().sum())
        for group, mask in reached.items():
            self.counts[group].append(mask.sum())
        self.by_frames.append((frames, torch.stack([values.detach().sum() for values in losses.values()])))

    def total(self, stop: bool) -> tuple[dict[str, float], dict[str, int], bool]:
        """Losses and counts over all processes, and whether one of them wants to stop; one transfer from the device."""
        parts = [*(self.losses[task] for task in self.tasks), *(self.counts[group] for group in self.groups)]
        sums = [sum(part, start=torch.zeros((), dtype=torch.float64, device=self.device)) for part in parts]
        sums = torch.stack([*sums, sums[0].new_tensor(float(stop))])
        distributed.sum_tensors(sums)
        *numbers, stopping = sums.tolist()
        counts = map(int, numbers[len(self.tasks) :])
        losses = dict(zip(self.tasks, numbers, strict=False))
        return losses, dict(zip(self.groups, counts, strict=True)), stopping > 0

    def culprits(self) -> list[str]:
        """The frames of the micro-batches, of any process, whose loss is not finite."""
        names = [str(frame) for frames, losses in self.by_frames if not losses.isfinite().all() for frame in frames]
        return sorted(distributed.union(names))


def with_valid_label(valid: Mapping[str, Tensor], places: Mapping[str, Tensor | None], count: int) -> Tensor:
    """Which of a batch's samples have a valid label of any task: bool, `count` long.

    valid: task -> n, of the samples that have its label; places: where these stand in the batch (None: all of it).
    """
    reached = torch.zeros(count, dtype=torch.bool, device=next(iter(valid.values())).device)
    for task, mask in valid.items():
        reached |= mask if places[task] is None else torch.zeros_like(reached).index_copy(0, places[task], mask)
    return reached
