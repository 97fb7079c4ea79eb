"""Errors of steering angles, as a metric that merges exactly over processes."""

import torch
from torch import Tensor
from torchmetrics import Metric

from tasks.base import Target

TURN = 10.0  # degrees; from here on the car is turning


class SteeringMetric(Metric):
    """Errors in degrees over all valid angles of the split, each angle counting alike.

    update: predictions in degrees B x 10, target as from `SteeringTask.collate`. compute:
        mae, rmse                    over all; NaN for a split without labels
        mae_straight, rmse_straight  over those below 10 degrees to either side (of the truth), if there are any
        mae_turn, rmse_turn          over the others, if there are any
    Sums are float64.
    """

    full_state_update = False
    straight: Tensor
    turn: Tensor

    def __init__(self):
        super().__init__()
        for part in ("straight", "turn"):  # sums: count, |error|, error^2
            self.add_state(part, torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Target) -> None:
        truth = target["angles"].double()
        error = predictions.double() - truth
        is_turn = truth.abs() >= TURN
        self.straight += _sums(error[target["valid"] & ~is_turn])
        self.turn += _sums(error[target["valid"] & is_turn])

    def compute(self) -> dict[str, float]:
        scores = _mae_rmse(self.straight + self.turn)
        if self.straight[0] > 0:
            scores |= _mae_rmse(self.straight, "_straight")
        if self.turn[0] > 0:
            scores |= _mae_rmse(self.turn, "_turn")
        return scores


def _sums(error: Tensor) -> Tensor:
    return torch.stack([error.new_tensor(len(error)), error.abs().sum(), error.square().sum()])


def _mae_rmse(sums: Tensor, suffix: str = "") -> dict[str, float]:
    count, absolute, square = sums
    return {f"mae{suffix}": (absolute / count).item(), f"rmse{suffix}": (square / count).sqrt().item()}
