"""All parameters step along the gradient of one number made of the tasks' mean losses, by TorchJD's scalarizers.

A value is a task's weight in the config times its mean loss over a block's valid samples, on all processes; so none of
these depends on micro-batches or processes. What is made of the values is known at the block's border only, hence a
row a task: the gradient is the sum of the rows times the slopes of the scalarizer there. That costs a backward pass
through the backbone a task, as balancing by gradients does. All groups step there, and on frames that carry all labels:
`frames: complete`.

TorchJD 0.18 has more. Left out: FAMO, which wants the losses of the same batch again after the step, when the block's
micro-batches are gone; UW, which `uncertainty` is, with a likelihood a task; Constant, Sum and Mean, which are `fixed`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torchjd import scalarization

from models.multitask import BACKBONE
from training import distributed
from training.methods.base import Context, Method, MethodSettings
from training.methods.rows import Rows

HISTORY = ("_loss_sum", "_n_batches", "_previous_averages")  # DWA's own, which is not in its state dict (a test)


class DWASettings(MethodSettings):
    temperature: PositiveFloat = 2.0
    """The larger, the more alike are the weights."""


class IMTLLSettings(MethodSettings):
    learning_rate: PositiveFloat = 0.005
    """Of the scales' logarithms, which step with the backbone."""


class STCHSettings(MethodSettings):
    mu: PositiveFloat = 0.1
    """The smaller, the nearer to the largest value alone."""


class COSMOSSettings(MethodSettings):
    penalty: NonNegativeFloat = 1.0
    """How much it counts that all values are alike."""


class PBISettings(MethodSettings):
    theta: NonNegativeFloat = 5.0
    """How much the distance counts from where all values are alike."""


class Scalarized(Rows):
    """A block in which a task has no valid label takes the task's value of the block before, for its part in the other
    tasks' weights; until each has had one, the weights are the config's."""

    def __init__(self, scalarizer: scalarization.Scalarizer, context: Context, learning_rate: float = 0.0):
        super().__init__(context.weights, context.groups[BACKBONE])
        self.scalarizer, self.learning_rate, self.seed = scalarizer, learning_rate, context.seed
        self.heads = {task: context.groups[task] for task in self.tasks}
        self.sums = torch.zeros(len(self.tasks), dtype=torch.float64, device=self.counts.device)
        self.values = torch.full_like(self.sums, torch.nan)  # of the last block
        self.valued: set[int] = set()  # places of the tasks that have one

    def task_loss(self, task: str, losses: Tensor, valid: Tensor) -> Tensor:
        loss = super().task_loss(task, losses, valid)
        self.sums[self.tasks.index(task)] += loss.detach()
        return loss

    def to_gradient(self, jacobians: Sequence[Tensor], present: Sequence[int]) -> Tensor:
        """The heads' pending gradients are of the same number: they get their slope too."""
        self.valued |= set(present)
        slopes = self._slopes()
        of_rows = torch.stack([slopes[i] for i in present])
        for parameter, jacobian in zip(self.shared, jacobians, strict=True):
            parameter.grad = torch.tensordot(of_rows.to(jacobian), jacobian, dims=1)
        for slope, task in zip(slopes, self.tasks, strict=True):
            for parameter in self.heads[task]:
                if parameter.grad is not None:
                    parameter.grad.mul_(slope.to(parameter))
        return of_rows

    def _slopes(self) -> Tensor:
        """Of the scalarizer at the block's values, float64; its own parameters get their gradients."""
        self.values = torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), self.values)
        if len(self.valued) < len(self.tasks):
            return torch.ones_like(self.values)
        values = self.values.clone().requires_grad_()
        with torch.random.fork_rng([values.device] if values.is_cuda else []):
            torch.manual_seed(self.seed + self.steps)  # the same numbers in every process and after a resume
            self.scalarizer(values).backward()
        assert values.grad is not None
        return values.grad

    def parameters_of(self, group: str) -> list[nn.Parameter]:
        return list(self.scalarizer.parameters()) if group == BACKBONE else []

    def epoch_ended(self) -> None:
        if isinstance(self.scalarizer, scalarization.DWA):
            self.scalarizer.step()

    def start_epoch_again(self) -> None:
        super().start_epoch_again()
        if isinstance(self.scalarizer, scalarization.DWA):
            self.scalarizer._loss_sum, self.scalarizer._n_batches = None, 0

    def pending(self) -> list[Tensor]:
        return [*super().pending(), self.sums]

    def state(self) -> dict[str, Any]:
        history = {name: getattr(self.scalarizer, name) for name in HISTORY if hasattr(self.scalarizer, name)}
        learnt = self.scalarizer.state_dict()
        return super().state() | {"values": self.values, "learnt": learnt, "history": history}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.values = state["values"].to(self.sums)
        self.valued = set(torch.nonzero(~state["values"].isnan()).flatten().tolist())
        self.scalarizer.load_state_dict(state["learnt"])
        for name, value in state["history"].items():
            setattr(self.scalarizer, name, placed(value, self.sums))

    def _sum_over_processes(self) -> None:
        super()._sum_over_processes()
        distributed.sum_tensors(self.sums)


def placed(value: Any, like: Tensor) -> Any:
    """A tensor, or those of a list, on the device of another; anything else as it is."""
    if isinstance(value, list):
        return [placed(part, like) for part in value]
    return value.to(like) if isinstance(value, Tensor) else value


def alike(context: Context) -> Tensor:
    """Preferences for the tasks: their weights in the config make the difference. Of the values' type, float64."""
    return torch.ones(len(context.weights), dtype=torch.float64, device=context.like.device)


def method(make: Callable[[Any, Context], scalarization.Scalarizer], settings: type[MethodSettings]) -> Method:
    """make: a scalarizer for float64 values from settings, where the network is."""

    def scalarized(chosen: Any, context: Context) -> Scalarized:
        return Scalarized(make(chosen, context), context, learning_rate=getattr(chosen, "learning_rate", 0.0))

    return Method(scalarized, settings, complete=True)


def imtl_l(chosen: IMTLLSettings, context: Context) -> scalarization.Scalarizer:
    """What it learns steps with the backbone, so it is of the network's type."""
    return scalarization.IMTLL(len(context.weights)).to(context.like)


METHODS = {
    "dwa": method(lambda chosen, context: scalarization.DWA(chosen.temperature), DWASettings),
    "imtl_l": method(imtl_l, IMTLLSettings),
    "geometric_mean": method(lambda chosen, context: scalarization.GeometricMean(), MethodSettings),
    "random": method(lambda chosen, context: scalarization.Random(), MethodSettings),
    "stch": method(lambda chosen, context: scalarization.STCH(chosen.mu), STCHSettings),
    "cosmos": method(lambda chosen, context: scalarization.COSMOS(chosen.penalty, alike(context)), COSMOSSettings),
    "pbi": method(lambda chosen, context: scalarization.PBI(chosen.theta, alike(context)), PBISettings),
}
