"""The contract of a method that weighs the tasks' losses against each other.

The loop calls `backward` for every micro-batch. Losses are sums over samples here as everywhere in training, and an
invalid sample adds nothing to any sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from strict import StrictModel
from training.methods.similarity import GradientSimilarity


class MethodSettings(StrictModel):
    """The config's section `balancing`; a method with parameters adds its keys."""

    name: str


@dataclass(frozen=True)
class Context:
    """What a method may be made from."""

    weights: Mapping[str, float]  # task -> fixed factor of its loss
    likelihoods: Mapping[str, Literal["regression", "classification"]]  # task -> which its loss resembles
    groups: Mapping[str, list[nn.Parameter]]  # BACKBONE and task -> parameters, on their device
    seed: int = 0

    @property
    def like(self) -> Tensor:
        """A tensor of the network's device and type."""
        return next(parameter for group in self.groups.values() for parameter in group)


@dataclass(frozen=True)
class Method:
    """How the registry of training/methods/__init__.py holds a method."""

    make: Callable[[Any, Context], "Balancing"]  # from its settings
    settings: type[MethodSettings] = MethodSettings
    asymmetric: bool = False  # does not need all groups to step together
    complete: bool = False  # needs frames that carry the labels of all tasks


class Balancing(ABC):
    """What the loop knows of a method."""

    learning_rate = 0.0  # of the method's own parameters
    uses_weights = True  # those of the config, `Context.weights`
    similarity: GradientSimilarity | None = None  # measured beside the method, where it is wanted

    @abstractmethod
    def weighted(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """task -> B losses, task -> B validities: the sum over tasks and valid samples, a scalar."""

    def backward(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor], loss_scale: float = 1.0) -> None:
        """Add the micro-batch's gradients, not divided by any count, to those pending."""
        if self.similarity:
            self.similarity.record(losses, valid)
        total = loss_scale * self.weighted(losses, valid)
        if total.requires_grad:  # not where all that the losses depend on is frozen
            total.backward()

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by at present, for logging."""

    def parameters_of(self, group: str) -> list[nn.Parameter]:
        """The method's own parameters that step with a group: a task's head's, or the backbone's."""
        return []

    def shared_stepped(self) -> dict[str, float]:
        """The shared parameters have stepped -> {"a/b": cosine similarity of the tasks' gradients}, where measured."""
        return self.similarity.stepped() if self.similarity else {}

    def epoch_ended(self) -> None:
        """All groups have stepped with what was left of the epoch."""

    def start_epoch_again(self) -> None:
        """The epoch in hand starts anew: drop what is pending, and what the method has added up over the epoch."""
        self.clear()

    def clear(self) -> None:
        """Drop what is pending."""
        if self.similarity:
            self.similarity.clear()

    def collect(self) -> None:
        """Every process calls it: what is pending becomes the first one's; the sum stays as it is."""
        if self.similarity:
            self.similarity.collect()

    def state(self) -> dict[str, Any]:
        """What changes during training, for the checkpoint: the first process's, after `collect`."""
        return {"similarity": self.similarity.state()} if self.similarity else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        if self.similarity:
            self.similarity.load_state(state["similarity"])
