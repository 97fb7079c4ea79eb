"""Groups of parameters that accumulate gradients and step at their own pace.

Losses of samples are summed, never averaged, before the backward pass; when a group has seen its batch_size it divides
its gradient by the true number of samples, clips, steps and clears. So a step depends neither on how its samples were
cut into micro-batches nor on the processes that shared them.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training import distributed
from training.config import GroupConfig


@dataclass
class StepReport:
    """What one step did, for logging."""

    group: str
    samples: int
    gradient_norm: float  # after division, before clipping


class Group:
    """Parameters with one AdamW and one count of samples since their last step."""

    def __init__(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        config: GroupConfig,
        clip: float,
        make_gradient: Callable[[], None] | None = None,
    ):
        """make_gradient: puts a mean gradient into `.grad` before a step, where it is not a sum of pending ones."""
        self.name, self.clip, self.config, self.make_gradient = name, clip, config, make_gradient
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        # Biases and norms (one dimension) are not decayed
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )
        self.count = 0

    @property
    def full(self) -> bool:
        return self.count >= self.config.batch_size

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def set_learning_rate(self, factor: float) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = factor * self.config.learning_rate

    def rescale(self, factor: float) -> None:
        """Multiply the pending gradient (the loss scale has changed)."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def step(self, loss_scale: float) -> StepReport | None:
        """Divide, clip, step, clear. None where the gradient was not finite: it is dropped with its count."""
        if self.make_gradient:
            self.make_gradient()
        else:
            distributed.sum_gradients(self.parameters)
            self.rescale(1 / (self.count * loss_scale))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
        report = StepReport(self.name, self.count, float(norm)) if finite else None
        self.clear()
        return report

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.count = 0

    def state(self) -> dict[str, Any]:
        """The pending gradients of all processes become the first one's: the sum stays as it is."""
        if self.count:
            distributed.sum_gradients(self.parameters)
            if not distributed.is_main():
                self.optimizer.zero_grad(set_to_none=True)
        gradients = [parameter.grad for parameter in self.parameters]
        return {"optimizer": self.optimizer.state_dict(), "count": self.count, "gradients": gradients}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.count = state["count"]
        for parameter, gradient in zip(self.parameters, state["gradients"], strict=True):
            pending = gradient is not None and distributed.is_main()
            parameter.grad = gradient.to(parameter) if pending else None


class LossScale:
    """fp16's loss scale: small gradients would vanish. Halved by an overflow, doubled after 2,000 good steps.

    Factor 1 and constant unless `enabled`. (torch.amp.GradScaler serves one optimiser that steps after each backward
    pass; here groups hold pending gradients across changes of the scale.)
    """

    INITIAL, GROWTH_INTERVAL = 2.0**16, 2000

    def __init__(self, enabled: bool):
        self.enabled = enabled
        self.value = self.INITIAL if enabled else 1.0
        self.good_steps = 0

    def update(self, overflow: bool) -> float:
        """Take note of a step; returns new / old scale, by which pending gradients are to be multiplied."""
        old = self.value
        if overflow:
            self.value, self.good_steps = max(self.value / 2, 1.0), 0
        else:
            self.good_steps += 1
            if self.good_steps % self.GROWTH_INTERVAL == 0:
                self.value *= 2
        return self.value / old

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "good_steps": self.good_steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.value, self.good_steps = state["value"], state["good_steps"]


class Updates:
    """All groups of a network, the schedule and the loss scale.

    A frame counts once for every group that its valid labels reach.
    """

    def __init__(self, groups: list[Group], *, planned_samples: int, warmup: float, loss_scale: LossScale):
        self.groups = {group.name: group for group in groups}
        self.planned_samples, self.warmup, self.loss_scale = planned_samples, warmup, loss_scale
        self.samples_seen = 0
        self.seen: dict[str, int] = dict.fromkeys(self.groups, 0)  # samples with a valid label, by group
        self.steps = 0
        self.overflows = 0

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the samples of a block, in all processes, to the groups' counts, after their backward passes."""
        for name, count in counts.items():
            self.groups[name].count += count
            self.seen[name] += count

    def step_full_groups(self) -> list[StepReport]:
        """Step each group that has seen its batch_size. Called at the border of a block."""
        return self._step(group for group in self.groups.values() if group.full)

    def step_rest(self) -> list[StepReport]:
        """Step what is left at the end of an epoch with the count that it has: nothing leaks into the next epoch."""
        return self._step(group for group in self.groups.values() if group.count > 0)

    def _step(self, groups: Iterable[Group]) -> list[StepReport]:
        reports = []
        for group in list(groups):
            group.set_learning_rate(self.schedule())
            report = group.step(self.loss_scale.value)
            if report is None and self.loss_scale.value == 1:  # not the scale's fault
                raise FloatingPointError(f"the gradient of {group.name} is not finite")
            factor = self.loss_scale.update(overflow=report is None) if self.loss_scale.enabled else 1.0
            if factor != 1:
                for other in self.groups.values():
                    other.rescale(factor)
            if report is None:
                self.overflows += 1
            else:
                reports.append(report)
                self.steps += 1
        return reports

    def schedule(self) -> float:
        """Factor of every learning rate: linear warm-up, then half a cosine; a function of samples seen / planned."""
        done = min(self.samples_seen / self.planned_samples, 1.0)
        if done < self.warmup:
            return done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def state(self) -> dict[str, Any]:
        return {
            "groups": {name: group.state() for name, group in self.groups.items()},
            "loss_scale": self.loss_scale.state(),
            "samples_seen": self.samples_seen,
            "seen": self.seen,
            "steps": self.steps,
            "overflows": self.overflows,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, group in self.groups.items():
            group.load_state(state["groups"][name])
        self.loss_scale.load_state(state["loss_scale"])
        self.samples_seen, self.seen, self.steps = state["samples_seen"], dict(state["seen"]), state["steps"]
        self.overflows = state["overflows"]
