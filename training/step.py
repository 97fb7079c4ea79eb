"""One training step: `accumulate` goes forward and backward with a micro-batch; its sums meet at the block's border,
where `Updates.close` divides, clips and steps.

What a benchmark or a test calls is what the loop calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datasets.frames import Frame
from datasets.samples import Batch
from models.base import TaskNetwork
from models.multitask import BACKBONE
from tasks.base import Task
from training import distributed
from training.evaluation import Precision
from training.methods.base import Balancing


@dataclass
class Sums:
    """Losses of the tasks and samples that count for each group, of the micro-batches of a block.

    They stay on the device until the block's border.
    """

    losses: dict[str, list[Tensor]] = field(default_factory=dict)  # task -> of each micro-batch, the sum over samples
    counts: dict[str, list[Tensor]] = field(default_factory=dict)  # group -> of each micro-batch, valid samples
    by_frames: list[tuple[list[Frame], Tensor]] = field(default_factory=list)  # to name a culprit

    def __iadd__(self, other: "Sums") -> "Sums":
        for mine, theirs in ((self.losses, other.losses), (self.counts, other.counts)):
            for name, values in theirs.items():
                mine.setdefault(name, []).extend(values)
        self.by_frames += other.by_frames
        return self

    def total(
        self, tasks: Sequence[str], groups: Sequence[str], device: torch.device, *, stop: bool = False
    ) -> tuple[dict[str, float], dict[str, int], bool]:
        """Losses and counts over all processes, and whether one of them wants to stop; one transfer from the device."""
        parts = [*(self.losses.get(task, []) for task in tasks), *(self.counts.get(group, []) for group in groups)]
        each = [sum(part, start=torch.zeros((), dtype=torch.float64, device=device)) for part in parts]
        sums = torch.stack([*each, torch.full_like(each[0], stop)])
        distributed.sum_tensors(sums)
        *numbers, stopping = sums.tolist()
        losses = dict(zip(tasks, numbers, strict=False))
        counts = dict(zip(groups, map(int, numbers[len(tasks) :]), strict=True))
        return losses, counts, stopping > 0

    def culprits(self) -> list[str]:
        """The frames of the micro-batches, of any process, whose loss is not finite."""
        names = [str(frame) for frames, losses in self.by_frames if not losses.isfinite().all() for frame in frames]
        return sorted(distributed.union(names))


def accumulate(
    model: TaskNetwork,
    batch: Batch | None,
    tasks: Mapping[str, Task],
    balancing: Balancing,
    precision: Precision,
    loss_scale: float = 1.0,
) -> Sums:
    """Forward, losses, backward: gradients of the weighted sum over samples, divided by no count, join those pending.

    batch: on the device, augmented; None where this process has none and others may have one.
    """
    with distributed.exchanged_batch_norm(model, takes_part=batch is not None and bool(batch.targets)):
        if batch is None or not batch.targets:
            return Sums()
        with precision.autocast():
            outputs = model(batch.images, batch.places)
        losses, valid = {}, {}
        for name, target in batch.targets.items():
            losses[name], valid[name] = tasks[name].loss(outputs[name], target)  # n, n
        balancing.backward(losses, valid, loss_scale)
    reached = {**valid, BACKBONE: with_valid_label(valid, batch.places, len(batch))}
    summed = {task: values.detach().sum() for task, values in losses.items()}
    return Sums(
        losses={task: [loss] for task, loss in summed.items()},
        counts={group: [mask.sum()] for group, mask in reached.items()},
        by_frames=[(batch.frames, torch.stack(list(summed.values())))],
    )


def with_valid_label(valid: Mapping[str, Tensor], places: Mapping[str, Tensor | None], count: int) -> Tensor:
    """Which of a batch's samples have a valid label of any task: bool, `count` long.

    valid: task -> n, of the samples that have its label; places: where these stand in the batch (None: all of it).
    """
    reached = torch.zeros(count, dtype=torch.bool, device=next(iter(valid.values())).device)
    for task, mask in valid.items():
        where = places[task]
        reached |= mask if where is None else torch.zeros_like(reached).index_copy(0, where, mask)
    return reached
