"""The measurement beside any method: do the tasks' gradients on the shared parameters agree?"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from training import distributed


def total(losses: Tensor, valid: Tensor) -> Tensor:
    """Sum of the valid samples' losses."""
    return torch.where(valid, losses, 0).sum()


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Of one tensor at least, from the first to the last."""
    return reduce(torch.add, tensors)


class GradientSimilarity:
    """Pairwise cosine similarity of the tasks' gradients on the shared parameters, once in `every` steps of theirs.

    While it measures, from one step to the next, each task's gradient is computed a second time.
    """

    def __init__(self, shared: Iterable[nn.Parameter], tasks: Sequence[str], every: int):
        """tasks: those that may come, in an order that all processes share."""
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.tasks, self.every, self.steps = tasks, every, 0
        self.rows: dict[str, list[Tensor]] = {}

    @property
    def measuring(self) -> bool:
        return self.every > 0 and self.steps % self.every == 0

    def record(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> None:
        """Add a micro-batch, before its backward pass (which frees the graph)."""
        if not self.measuring:
            return
        for task in losses:
            loss = total(losses[task], valid[task])
            gradients = torch.autograd.grad(loss, self.shared, retain_graph=True, materialize_grads=True)
            with torch.no_grad():  # some of torch's zeros, where a loss does not reach, want a gradient themselves
                torch._foreach_add_(self.rows.setdefault(task, self._zeros()), gradients)

    def stepped(self) -> dict[str, float]:
        """The shared parameters have stepped -> {"a/b": similarity} where it was measured."""
        self._sum()
        rows = {task: self.rows[task] for task in self.tasks if task in self.rows}
        similarities = cosine_similarities(rows) if rows else {}
        self.clear()
        self.steps += 1
        return similarities

    def clear(self) -> None:
        """Drop what is pending."""
        self.rows = {}

    def collect(self) -> None:
        """Every process calls it: what they hold becomes the first one's; the sum stays as it is."""
        self._sum()
        if not distributed.is_main():
            self.clear()

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "steps": self.steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.rows = {
            task: [gradient.to(parameter) for gradient, parameter in zip(row, self.shared, strict=True)]
            for task, row in state["rows"].items()
            if distributed.is_main()
        }

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in self.shared]

    def _sum(self) -> None:
        """Every process has the sum of all; the tasks are those that one of them has."""
        if not self.measuring or distributed.processes() == 1:
            return
        somewhere = distributed.union(self.rows)
        self.rows = {task: self.rows.get(task) or self._zeros() for task in self.tasks if task in somewhere}
        for row in self.rows.values():
            distributed.sum_in_buckets(row)


def cosine_similarities(rows: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """task -> gradients of the same parameters: {"a/b": cosine of the angle between the gradients of a and b}.

    Pairs with a gradient that is zero are left out.
    """
    products = inner_products([torch.stack(gradients) for gradients in zip(*rows.values(), strict=True)]).tolist()
    return cosines({task: dict(zip(rows, row, strict=True)) for task, row in zip(rows, products, strict=True)})


def inner_products(jacobians: Sequence[Tensor]) -> Tensor:
    """Of the rows of T x ... tensors, summed over the tensors: T x T, on their device."""
    flat = (jacobian.flatten(1) for jacobian in jacobians)
    return sum_of(rows @ rows.T for rows in flat)


def cosines(products: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """From inner products; pairs with a gradient that is zero are left out."""
    lengths = {task: row[task] ** 0.5 for task, row in products.items()}
    return {
        f"{a}/{b}": products[a][b] / (lengths[a] * lengths[b])
        for a, b in combinations(products, 2)
        if lengths[a] and lengths[b]
    }
