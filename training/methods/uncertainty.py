"""Weights learned with the network."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from training.methods.base import Balancing, Context, Method, MethodSettings
from training.methods.similarity import sum_of, total


class Settings(MethodSettings):
    learning_rate: PositiveFloat = 0.005
    """Of the log-variances. Some units of s must be passed in the first per cent of a long run; learnt with the shipped
    schedules (a test)."""


class Uncertainty(Balancing):
    """Weights learned with the network: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses
    for Scene Geometry and Semantics", 2018, section 3.2, equations 7 and 10.

    With s, the log of a task's noise variance, a sample adds e^(-s) / 2 * loss + s / 2 (regression) or
    e^(-s) * loss + s / 2 (classification). s stays within +-6, so that no weight vanishes or explodes.

    Where the losses stay, s goes to ln(loss) or ln(2 loss). That is several units from 0, and AdamW moves a parameter
    by about its learning rate a step: the heads' rates are too small by orders of magnitude, so s has its own.
    """

    LIMIT = 6.0
    uses_weights = False

    def __init__(
        self,
        likelihoods: Mapping[str, Literal["regression", "classification"]],
        *,
        learning_rate: float,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.factors = {task: 0.5 if kind == "regression" else 1.0 for task, kind in likelihoods.items()}
        self.learning_rate = learning_rate
        self.s = {task: nn.Parameter(torch.zeros((), device=device, dtype=dtype)) for task in likelihoods}

    def weighted(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        self._keep_in_range()
        return sum_of(self._task_loss(task, losses[task], valid[task]) for task in losses)

    def weights(self) -> dict[str, float]:
        self._keep_in_range()
        inverse = torch.stack([(-s).exp() for s in self.s.values()]).tolist()
        return {task: self.factors[task] * value for task, value in zip(self.s, inverse, strict=True)}

    def parameters_of(self, group: str) -> list[nn.Parameter]:
        return [self.s[group]] if group in self.s else []

    def state(self) -> dict[str, Any]:
        return super().state() | {"s": {task: s.detach() for task, s in self.s.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        with torch.no_grad():
            for task, s in self.s.items():
                s.copy_(state["s"][task])

    def _task_loss(self, task: str, losses: Tensor, valid: Tensor) -> Tensor:
        s = self.s[task]
        return self.factors[task] * (-s).exp() * total(losses, valid) + s / 2 * valid.sum()

    def _keep_in_range(self) -> None:
        """Moves s itself: clamping it in the formula would end its gradient, and it would never come back."""
        with torch.no_grad():
            for s in self.s.values():
                s.clamp_(-self.LIMIT, self.LIMIT)


def make(settings: Settings, context: Context) -> Uncertainty:
    like = context.like
    return Uncertainty(context.likelihoods, learning_rate=settings.learning_rate, device=like.device, dtype=like.dtype)


METHODS = {"uncertainty": Method(make, Settings, asymmetric=True)}
