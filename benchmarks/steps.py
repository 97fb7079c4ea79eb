"""One training step without data on the disk: a network, its groups of parameters, and a micro-batch of made-up labels.

It runs on real tensors and, but for `update`, on fake ones (torch's FakeTensorMode: shapes and types without content).
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import accumulate as running_sums
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.samples import Batch, Sample
from models.base import TaskNetwork
from models.memory_format import lay_out
from tasks.base import Task
from tasks.box import BoxLabel
from tasks.depth_unit import STEPS_PER_METRE
from training.averaging import MovingAverage
from training.build import make_groups
from training.evaluation import Precision
from training.methods.rows import Rows
from training.runs import RunConfig
from training.step import Sums, accumulate
from training.updates import Group

BOXES = 20  # of a frame; they weigh next to nothing
CPU = torch.device("cpu")


def made_up_labels(width: int, height: int) -> dict[str, Any]:
    """Task -> a label as its `read` gives it."""
    corners = np.random.default_rng(0).uniform(0, 0.5, (BOXES, 2))
    return {
        "steering": np.zeros(10, np.float32),
        "segmentation": np.zeros((height, width), np.uint8),
        "depth": np.full((height, width), 20 * STEPS_PER_METRE, np.uint16),  # 20 m
        "box": BoxLabel(np.hstack([corners, corners + 0.25]).astype(np.float32), np.zeros(BOXES, np.int64)),
    }


def fitted_tasks(config: RunConfig, labels: Mapping[str, Any]) -> dict[str, Task]:
    """The mode's tasks, each fitted to one label, which networks need."""
    tasks = config.make_tasks(LABELS)
    for name, task in tasks.items():
        task.fit([labels[name]])
    return tasks


class Step:
    """A config's mode in the middle of a batch: gradients are pending and the optimisers have their states.

    The micro-batch has the labels of all tasks of the mode.
    precision: of autocast, a config's `training.precision`.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        size: tuple[int, int],
        micro_batch_size: int | None = None,
        precision: str = "bf16",
        fake: FakeTensorMode | None = None,
        device: torch.device = CPU,
    ):
        self.config, self.device, self.fake = config, device, fake
        self.precision = Precision(precision, device)
        labels = made_up_labels(*size)
        self.tasks = fitted_tasks(config, labels)
        count = micro_batch_size or config.portions().micro_batch_size
        targets = {name: self.tasks[name].collate([labels[name]] * count) for name in self.tasks}
        with fake or nullcontext():
            targets = {
                name: {key: self._placed(value) for key, value in target.items()} for name, target in targets.items()
            }
            images = torch.zeros(count, 3, *reversed(size), dtype=torch.uint8)  # B 3 H W
            samples = [Sample(Frame("made_up", "scene", str(i)), tuple(self.tasks)) for i in range(count)]
            self.batch = Batch(samples, images, targets, dict.fromkeys(targets)).to(device)
            self.model = self._make_network()
            ema = config.training.ema  # of a network made anew, as fake tensors can't be copied deeply
            self.average = MovingAverage(self.model, self._make_network(), ema) if ema else None
            self.balancing = config.make_balancing(self.model, self.tasks)
            self.groups = self._make_groups(config)
            for group in self.groups.values():
                self._start(group)

    def _placed(self, value: Tensor) -> Tensor:
        return self.fake.from_tensor(value) if self.fake else value

    def _make_network(self) -> Any:  # a TaskNetwork of the config's kind
        model = self.config.make_model(self.tasks).train()
        if not self.fake:  # whose parameters can't be moved
            lay_out(model.to(self.device), channels_last=self.config.training.channels_last)
        return model

    def _make_groups(self, config: RunConfig) -> dict[str, Group]:
        """On the CPU with torch's AdamW of many tensors at once, which needs more memory than the fused one of CUDA."""
        groups = {group.name: group for group in make_groups(config, self.model, self.balancing)}
        for group in groups.values() if self.device.type == "cpu" else ():
            for options in group.optimizer.param_groups:
                options["foreach"] = True
        return groups

    def _start(self, group: Group) -> None:
        """Optimiser states by a step along zero, then pending gradients (zero as well), unless rows stand for them."""
        for parameter in group.parameters:
            parameter.grad = torch.zeros_like(parameter)
        group.optimizer.step()
        if group.make_gradient:
            group.clear()

    # ---- what a step does ---------------------------------------------------------------------------------------

    def accumulate(self) -> Sums:
        """Forward, losses, backward: what the loop calls."""
        return accumulate(self.model, self.batch, self.tasks, self.balancing, self.precision)

    def step_optimisers(self) -> None:
        """Clip and step every group: the part of `update` that needs no numbers."""
        for group in self.groups.values():
            nn.utils.clip_grad_norm_(group.network, group.clip, foreach=True)
            group.optimizer.step()

    def update(self) -> None:
        """Step every group, real tensors only: whether a gradient is finite is a question about numbers."""
        for group in self.groups.values():
            group.count = len(self.batch)
            group.step(group.prepare(1.0).tolist())
        if self.average:
            self.average.update()

    # ---- memory -------------------------------------------------------------------------------------------------

    def held(self) -> dict[str, int]:
        """Bytes that stay from micro-batch to micro-batch; parameters with buffers and their average, gradients with
        `rows`."""
        parameters = [parameter for group in self.groups.values() for parameter in group.parameters]
        weights = {tensor for network in self.networks() for tensor in (*network.parameters(), *network.buffers())}
        return {
            "parameters": bytes_of({*weights, *parameters}),
            "gradients": bytes_of([*(p.grad for p in parameters if p.grad is not None), *self.rows()]),
            "optimiser": bytes_of(self.optimiser_states()),
        }

    def networks(self) -> list[TaskNetwork]:
        """The one that trains, and the moving average of its weights."""
        return [self.model, *([self.average.model] if self.average else [])]

    def inputs(self) -> list[Tensor]:
        """Images and targets."""
        return [self.batch.images, *(tensor for target in self.batch.targets.values() for tensor in target.values())]

    def rows(self) -> list[Tensor]:
        """The gradients a task that balancing by gradients keeps."""
        return self.balancing.jacobians if isinstance(self.balancing, Rows) else []

    def optimiser_states(self) -> Iterator[Tensor]:
        for group in self.groups.values():
            for state in group.optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def allocated_peak(call: Callable[[], Any]) -> int:
    """The most bytes that a call on real tensors has allocated at once, by the CPU allocator's own events.

    torch.profiler records each allocation and each release, those inside operators included, which fake tensors
    don't show. What oneDNN takes past torch's allocator is not seen.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    changes = [event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])]
    return max(running_sums(changes, initial=0))
