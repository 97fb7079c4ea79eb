"""The weights of the config."""

from collections.abc import Mapping

from torch import Tensor

from training.methods.base import Balancing, Method
from training.methods.similarity import sum_of, total


class Fixed(Balancing):
    """The weights of the config."""

    def __init__(self, weights: Mapping[str, float]):
        self._weights = dict(weights)

    def weighted(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        return sum_of(self.task_loss(task, losses[task], valid[task]) for task in losses)

    def task_loss(self, task: str, losses: Tensor, valid: Tensor) -> Tensor:
        return self._weights[task] * total(losses, valid)

    def weights(self) -> dict[str, float]:
        return dict(self._weights)


METHODS = {"fixed": Method(lambda settings, context: Fixed(context.weights), asymmetric=True)}
