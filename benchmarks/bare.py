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
from training.step import Sums
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

    def __call__(self) -> None:
        step, sums = self.step, Sums()
        for _ in range(self.micro_batches):
            sums += step.accumulate(self.updates.loss_scale.value)
        _, counts, _ = sums.total(list(step.tasks), list(step.groups), step.device)
        self.updates.close(self.micro_batches * len(step.batch), counts)


def micro_batches_of(step: Step) -> int:
    """In a block."""
    return max(step.config.block_size_of(step.mode) // len(step.batch), 1)


class DistributedLoop(BareLoop):
    """With DistributedDataParallel over this one process. Use `close` afterwards."""

    def __init__(self, step: Step, port: int = 29_533):
        super().__init__(step)
        backend, address = "nccl" if step.device.type == "cuda" else "gloo", f"tcp://127.0.0.1:{port}"
        dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
        self.model = DistributedDataParallel(step.model)

    def close(self) -> None:
        dist.destroy_process_group()
