"""The least that a training can do, for comparison: network, losses, optimiser, nothing else; beside it the project's
own step.

The same network on the same batch, so the same FLOPs; no counts, no groups of their own pace, no clipping, no checks.
`DistributedLoop` is what torchvision's reference scripts do: DistributedDataParallel around the network, one loss, one
optimiser step a batch.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.steps import Step
from datasets.samples import Batch
from training.step import Sums, accumulate
from training.updates import LossScale, Schedule, Updates


class BareLoop:
    """On the network, tasks and batch of `step`; one optimiser step for as many micro-batches as a block has."""

    def __init__(self, step: Step):
        self.step, self.micro_batches = step, micro_batches_of(step)
        self.model: nn.Module = step.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=step.device.type == "cuda")

    def __call__(self) -> None:
        """A block's micro-batches, one step of all parameters."""
        batch, tasks = self.step.batch, self.step.tasks
        for _ in range(self.micro_batches):
            with self.step.precision.autocast():
                outputs = self.model(batch.images, batch.places)
            loss = sum(tasks[name].loss(outputs[name], target)[0].mean() for name, target in batch.targets.items())
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class TrainingLoop:
    """What the project's own loop does between two borders of blocks, on the same batch again and again."""

    def __init__(self, step: Step):
        self.step, self.micro_batches = step, micro_batches_of(step)
        self.updates = Updates(
            list(step.groups.values()),
            schedule=Schedule.over(10**9, warmup=0),
            loss_scale=LossScale(enabled=step.precision.dtype is torch.float16),
            together=step.config.steps_together,
        )
        self.sums, self.pending = Sums(), 0  # micro-batches since the last border

    def __call__(self) -> None:
        """A block on the step's own batch."""
        for _ in range(self.micro_batches):
            self.train_on(self.step.batch)

    def train_on(self, batch: Batch) -> None:
        """A micro-batch, and the border where the block ends with it."""
        step = self.step
        self.sums += accumulate(
            step.model, batch, step.tasks, step.balancing, step.precision, self.updates.loss_scale.value
        )
        self.pending += 1
        if self.pending == self.micro_batches:
            _, counts, _ = self.sums.total(list(step.tasks), list(step.groups), step.device)
            self.updates.close(self.pending * len(batch), counts)
            self.sums, self.pending = Sums(), 0


def micro_batches_of(step: Step) -> int:
    """In a block."""
    return max(step.config.portions().block_size // len(step.batch), 1)


class DistributedLoop(BareLoop):
    """With DistributedDataParallel over this one process. Use `close` afterwards."""

    def __init__(self, step: Step, port: int = 29_533):
        super().__init__(step)
        backend, address = "nccl" if step.device.type == "cuda" else "gloo", f"tcp://127.0.0.1:{port}"
        dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
        self.model = DistributedDataParallel(step.model)

    def close(self) -> None:
        dist.destroy_process_group()
