"""Groups of parameters that accumulate gradients and step at their own pace.

Losses of samples are summed, never averaged, before the backward pass; when a group has seen its batch_size it divides
its gradient by the true number of samples, clips, steps and clears. So a step depends neither on how its samples were
cut into micro-batches nor on the processes that shared them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

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
        *,
        make_gradient: Callable[[int], None] | None = None,
        balancing: Iterable[nn.Parameter] = (),
        balancing_rate: float = 0.0,
        slowed: tuple[Sequence[nn.Parameter], float] = ((), 1.0),
    ):
        """make_gradient: puts a mean gradient into `.grad` before a step, where it is not a sum of pending ones; it
        gets the number of samples. balancing: parameters of the losses' weights that step with this group, at a
        learning rate of their own, without decay, and neither clipped nor counted for the clip. slowed: those of the
        parameters whose learning rate is a factor of the group's, and this factor."""
        self.name, self.clip, self.config, self.make_gradient = name, clip, config, make_gradient
        self.network = [parameter for parameter in parameters if parameter.requires_grad]
        self.balancing = list(balancing)
        slow = {id(parameter) for parameter in slowed[0]}
        parts = [
            *with_decay([p for p in self.network if id(p) not in slow], config, 1.0),
            *with_decay([p for p in self.network if id(p) in slow], config, slowed[1]),
            {"params": self.balancing, "lr": balancing_rate, "weight_decay": 0.0},
        ]
        parts = [{**part, "initial_lr": part["lr"]} for part in parts if part["params"]]
        on_gpu = all(parameter.is_cuda for parameter in self.parameters)
        self.optimizer = torch.optim.AdamW(parts, fused=True if on_gpu else None)  # one kernel instead of a dozen
        self.count = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.network, *self.balancing]

    @property
    def full(self) -> bool:
        return self.count >= self.config.batch_size

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def set_learning_rate(self, factor: float) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = factor * parameters["initial_lr"]

    def rescale(self, factor: float) -> None:
        """Multiply the pending gradient (the loss scale has changed)."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def prepare(self, loss_scale: float) -> Tensor:
        """Divide the gradient, summed over the processes, and clip it -> its norms, on the device.

        The first is that of the network's parameters before clipping.
        """
        if self.make_gradient:
            self.make_gradient(self.count)
        else:
            self.rescale(1 / (self.count * loss_scale))
        norm = nn.utils.clip_grad_norm_(self.network, self.clip, foreach=True)
        return torch.stack([norm, *(p.grad.abs().max().to(norm) for p in self.balancing if p.grad is not None)])

    def step(self, norms: list[float]) -> StepReport | None:
        """Step and clear. None where the gradient, with these norms, is not finite: it is dropped with its count."""
        finite = all(map(math.isfinite, norms))
        if finite:
            self.optimizer.step()
        report = StepReport(self.name, self.count, norms[0]) if finite else None
        self.clear()
        return report

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.count = 0

    def collect(self) -> None:
        """Every process calls it: their pending gradients become the first one's; the sum stays as it is."""
        if self.count and not self.make_gradient:
            distributed.sum_gradients(self.parameters)
            if not distributed.is_main():
                self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Of this process; the first one's is the run's, after `collect`."""
        gradients = [parameter.grad for parameter in self.parameters]
        return {"optimizer": self.optimizer.state_dict(), "count": self.count, "gradients": gradients}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """ValueError: it is of other parameters."""
        kernels = [group["fused"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, fused in zip(self.optimizer.param_groups, kernels, strict=True):
            group["fused"] = fused  # this device's, not those of the one that the checkpoint was written on
        for parameter, moments in self.optimizer.state.items():
            if moments["exp_avg"].shape != parameter.shape or moments["exp_avg_sq"].shape != parameter.shape:
                raise ValueError(f"moments of {self.name} are of another shape than its parameters")
        self.count = state["count"]
        for parameter, gradient in zip(self.parameters, state["gradients"], strict=True):
            pending = gradient is not None and distributed.is_main()
            parameter.grad = gradient.to(parameter) if pending else None


def with_decay(parameters: list[nn.Parameter], config: GroupConfig, factor: float) -> list[dict[str, Any]]:
    """An optimiser's groups; biases and norms (one dimension) are not decayed. factor: of the learning rate."""
    decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    rate = factor * config.learning_rate
    return [
        {"params": decayed, "lr": rate, "weight_decay": config.weight_decay},
        {"params": others, "lr": rate, "weight_decay": 0.0},
    ]


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
        return {"value": self.value, "good_steps": self.good_steps, "enabled": self.enabled}

    def load_state(self, state: Mapping[str, Any]) -> float:
        """Returns this scale / the one saved, by which pending gradients are to be multiplied.

        In the precision that the run had (a checkpoint may say nothing of it) it goes on as it was, else it starts.
        """
        if state.get("enabled") in (None, self.enabled):
            self.value, self.good_steps = state["value"], state["good_steps"]
        return self.value / state["value"]


@dataclass(frozen=True)
class Schedule:
    """Factor of every learning rate by samples seen: a linear rise to 1, then half a cosine down to 0 at the end."""

    warmup: float  # samples over which it rises
    start: float  # samples at which the cosine starts, from `peak`
    peak: float
    end: float  # samples planned

    @classmethod
    def over(cls, samples: int, warmup: float) -> "Schedule":
        """Of a whole run; warmup: the share of its samples over which the factor rises."""
        return cls(warmup * samples, warmup * samples, 1.0, samples)

    def factor(self, seen: float) -> float:
        if seen < self.warmup:
            return seen / self.warmup
        done = min((seen - self.start) / (self.end - self.start), 1.0)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))

    def restarted(self, seen: int, end: int) -> "Schedule":
        """The cosine anew from its peak, as a warm restart (Loshchilov and Hutter 2017, SGDR, section 3)."""
        return Schedule(self.warmup, max(seen, self.warmup), 1.0, end)

    def laid_anew(self, seen: int, end: int) -> "Schedule":
        """As it was up to `seen`; from there the cosine leads from the factor reached to 0 at the new end."""
        if seen < self.warmup:
            return Schedule(self.warmup, self.warmup, 1.0, end)
        return Schedule(self.warmup, seen, self.factor(seen), end)


class Updates:
    """All groups of a network, the schedule and the loss scale.

    A frame counts once for every group that its valid labels reach.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        schedule: Schedule,
        loss_scale: LossScale,
        together: bool = False,
        frozen: Iterable[str] = (),
    ):
        """together: all groups step at every block's border, with the counts that they have. frozen: names of groups
        that do not learn, whose samples are counted all the same."""
        self.groups = {group.name: group for group in groups}
        self.schedule, self.loss_scale, self.together = schedule, loss_scale, together
        self.samples_seen = 0
        self.middle = 0.0  # samples seen in the middle of the block that has just ended
        self.seen: dict[str, int] = dict.fromkeys([*self.groups, *frozen], 0)  # samples with a valid label, by group
        self.steps = 0
        self.overflows = 0

    def close(self, samples: int, counts: Mapping[str, int]) -> list[StepReport]:
        """The border of a block: count its samples, step the groups that are full."""
        self.add(samples, counts)
        return self.step_full_groups()

    def add(self, samples: int, counts: Mapping[str, int]) -> None:
        """A block of so many samples has ended: add those of all processes that count for each group."""
        self.middle = self.samples_seen + samples / 2
        self.samples_seen += samples
        for name, count in counts.items():
            self.seen[name] += count
            if name in self.groups:
                self.groups[name].count += count

    def step_full_groups(self) -> list[StepReport]:
        """Step each group that has seen its batch_size, or all together. Called at the border of a block."""
        return self._step(group for group in self.groups.values() if (group.count if self.together else group.full))

    def step_rest(self) -> list[StepReport]:
        """Step what is left at the end of an epoch with the count that it has: nothing leaks into the next epoch."""
        return self._step(group for group in self.groups.values() if group.count)

    def start_again(self, seen: int, end: int) -> None:
        """Go back to `seen` samples, with other samples ahead: pending gradients are dropped, `end` is planned."""
        for group in self.groups.values():
            group.clear()
        self.samples_seen, self.schedule = seen, self.schedule.laid_anew(seen, end)

    def _step(self, groups: Iterable[Group]) -> list[StepReport]:
        """The learning rates are those at the middle of the block that has just ended: never 0, alike for all."""
        groups, growth, reports = list(groups), 1.0, []
        distributed.sum_gradients(p for group in groups if not group.make_gradient for p in group.parameters)
        prepared = [group.prepare(self.loss_scale.value) for group in groups]
        for group, norms in zip(groups, in_one_transfer(prepared), strict=True):
            group.set_learning_rate(self.schedule.factor(self.middle))
            report = group.step(norms)
            if report is None and self.loss_scale.value == 1:  # not the scale's fault
                raise FloatingPointError(f"the gradient of {group.name} is not finite")
            if self.loss_scale.enabled:
                growth *= self.loss_scale.update(overflow=report is None)
            if report is None:
                self.overflows += 1
            else:
                reports.append(report)
                self.steps += 1
        if growth != 1:
            for group in self.groups.values():
                group.rescale(growth)  # what is pending; those that stepped have nothing
        return reports

    def collect(self) -> None:
        """Every process calls it: what is pending becomes the first one's."""
        for group in self.groups.values():
            group.collect()

    def state(self) -> dict[str, Any]:
        return {
            "groups": {name: group.state() for name, group in self.groups.items()},
            "loss_scale": self.loss_scale.state(),
            "schedule": asdict(self.schedule),
            "samples_seen": self.samples_seen,
            "seen": self.seen,
            "steps": self.steps,
            "overflows": self.overflows,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, group in self.groups.items():
            group.load_state(state["groups"][name])
        growth = self.loss_scale.load_state(state["loss_scale"])
        if growth != 1:
            for group in self.groups.values():
                group.rescale(growth)
        self.schedule = Schedule(**state["schedule"])
        self.samples_seen, self.seen, self.steps = state["samples_seen"], dict(state["seen"]), state["steps"]
        self.overflows = state["overflows"]


def in_one_transfer(tensors: list[Tensor]) -> list[list[float]]:
    """The numbers of each, which are of one dimension."""
    if not tensors:
        return []
    numbers = iter(torch.cat([tensor.double() for tensor in tensors]).tolist())
    return [list(islice(numbers, len(tensor))) for tensor in tensors]
