"""The contract of a method that weighs the tasks' losses against each other.

The loop calls `backward` for every micro-batch. Losses are sums over samples here as everywhere in training, and an
invalid sample adds nothing to any sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from training.methods.similarity import GradientSimilarity


class Balancing(ABC):
    """What the loop knows of a method."""

    learning_rate = 0.0  # of the method's own parameters
    similarity: GradientSimilarity | None = None  # measured beside the method, where it is wanted

    @abstractmethod
    def weighted(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """task -> B losses, task -> B validities: the sum over tasks and valid samples, a scalar."""

    def backward(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor], loss_scale: float = 1.0) -> None:
        """Add the micro-batch's gradients, not divided by any count, to those pending."""
        if self.similarity:
            self.similarity.record(losses, valid)
        (loss_scale * self.weighted(losses, valid)).backward()

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by at present, for logging."""

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        """The method's own parameters; they belong to the group of the task's head."""
        return []

    def shared_stepped(self) -> dict[str, float]:
        """The shared parameters have stepped -> {"a/b": cosine similarity of the tasks' gradients}, where measured."""
        return self.similarity.stepped() if self.similarity else {}

    def clear(self) -> None:
        """Drop what is pending."""
        if self.similarity:
            self.similarity.clear()

    def state(self) -> dict[str, Any]:
        """What changes during training, for the checkpoint."""
        return {"similarity": self.similarity.state()} if self.similarity else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        if self.similarity:
            self.similarity.load_state(state["similarity"])
