"""How the tasks' losses are weighed against each other: fixed weights, learned weights, or by their gradients.

The loop calls `backward` for every micro-batch. Losses are sums over samples here as everywhere in training, and an
invalid sample adds nothing to any sum.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad

from errors import UserError
from training import distributed

# Those of TorchJD that need no numbers of their own, keep nothing from step to step, and run on the pinned packages
AGGREGATORS: dict[str, type[aggregation.Aggregator]] = {
    "upgrad": aggregation.UPGrad,
    "pcgrad": aggregation.PCGrad,
    "mgda": aggregation.MGDA,
    "dualproj": aggregation.DualProj,
    "aligned_mtl": aggregation.AlignedMTL,
    "config": aggregation.ConFIG,
    "imtl_g": aggregation.IMTLG,
    "graddrop": aggregation.GradDrop,
}


class Balancing(ABC):
    """What the loop knows of a method."""

    learning_rate = 0.0  # of the method's own parameters
    similarity: "GradientSimilarity | None" = None  # measured beside the method, where it is wanted

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


class Fixed(Balancing):
    """The weights of the config."""

    def __init__(self, weights: Mapping[str, float]):
        self._weights = dict(weights)

    def weighted(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        return sum(self.task_loss(task, losses[task], valid[task]) for task in losses)

    def task_loss(self, task: str, losses: Tensor, valid: Tensor) -> Tensor:
        return self._weights[task] * total(losses, valid)

    def weights(self) -> dict[str, float]:
        return dict(self._weights)


class Uncertainty(Balancing):
    """Weights learned with the network: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses
    for Scene Geometry and Semantics", 2018, section 3.2, equations 7 and 10.

    With s, the log of a task's noise variance, a sample adds e^(-s) / 2 * loss + s / 2 (regression) or
    e^(-s) * loss + s / 2 (classification). s stays within +-6, so that no weight vanishes or explodes.

    Where the losses stay, s goes to ln(loss) or ln(2 loss). That is several units from 0, and AdamW moves a parameter
    by about its learning rate a step: the heads' rates are too small by orders of magnitude, so s has its own.
    """

    LIMIT = 6.0

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
        return sum(self._task_loss(task, losses[task], valid[task]) for task in losses)

    def weights(self) -> dict[str, float]:
        self._keep_in_range()
        inverse = torch.stack([(-s).exp() for s in self.s.values()]).tolist()
        return {task: self.factors[task] * value for task, value in zip(self.s, inverse, strict=True)}

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        return [self.s[task]]

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


class Aggregated(Fixed):
    """The shared parameters step along an aggregation of the tasks' gradients, by TorchJD: Quinton and Rey 2024,
    "Jacobian Descent for Multi-Objective Optimization", section 3 (UPGrad); Yu et al. 2020, "Gradient Surgery for
    Multi-Task Learning", algorithm 1 (PCGrad); TorchJD's documentation names the papers of the others.

    Each task has a row: the gradient of its losses times its fixed weight. Rows add up over micro-batches. At the
    shared parameters' step `aggregate` divides them by the number of frames, so that their plain sum is the gradient
    of `Fixed`, and makes one gradient of them all; it is not linear, so it can't be done a micro-batch at a time. Heads
    get ordinary gradients.

    Autograd adds to the rows in place, so they take the memory of one gradient of the shared parameters a task, and a
    micro-batch need not have all tasks. (TorchJD's `mtl_backward` makes the same rows in new memory each time, for a
    fixed list of tasks.)
    """

    def __init__(self, name: str, weights: Mapping[str, float], shared: Iterable[nn.Parameter], *, seed: int = 0):
        super().__init__(weights)
        self.aggregator = AGGREGATORS[name]()
        self.tasks = list(weights)
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.jacobians = [rows_like(p, len(self.tasks)) for p in self.shared]
        self.counts = torch.zeros(len(self.tasks), dtype=torch.int64, device=self.shared[0].device)
        self.seed, self.steps = seed, 0
        # of the last step, for logging
        self.similarities: dict[str, float] = {}
        self.row_weights = dict.fromkeys(self.tasks, 1.0)

    def backward(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor], loss_scale: float = 1.0) -> None:
        if loss_scale != 1:
            raise UserError("balancing by gradients does not work with precision fp16; set it to bf16 or fp32")
        last = list(losses)[-1]
        for task in losses:
            row = self.tasks.index(task)
            for parameter, jacobian in zip(self.shared, self.jacobians, strict=True):
                parameter.grad = jacobian[row]  # a view: autograd adds to the row
            self.task_loss(task, losses[task], valid[task]).backward(retain_graph=task != last)
            self.counts[row] += valid[task].sum()
        for parameter in self.shared:
            parameter.grad = None

    def aggregate(self, frames: int) -> None:
        """Rows of all processes -> `.grad` of the shared parameters; rows start anew. Empty ones are left out.

        frames: how many have given the rows; those without the label of a row's task count too.

        FloatingPointError: a row is not finite.
        """
        self._sum_over_processes()
        products, counts = self._products_and_counts()
        for task, row in products.items():
            if not math.isfinite(row[task]):
                raise FloatingPointError(f"the gradient of {task} is not finite")
        present = [i for i, task in enumerate(self.tasks) if counts[task]]
        tasks = [self.tasks[i] for i in present]
        jacobians = [torch.stack([jacobian[i] for i in present]) / frames for jacobian in self.jacobians]
        self.similarities = cosines({task: products[task] for task in tasks})
        weights = self._to_gradient(jacobians)
        self.row_weights = dict.fromkeys(self.tasks, 0.0) | dict(zip(tasks, weights, strict=True))
        self.steps += 1
        self.clear()

    def shared_stepped(self) -> dict[str, float]:
        """The method has the gradients of every step."""
        return self.similarities

    def _products_and_counts(self) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Inner products of the pending rows, and how many samples each has; one transfer from the device."""
        products = inner_products(self.jacobians)
        *rows, counts = torch.cat([products.double(), self.counts.double()[None]]).tolist()
        named = [dict(zip(self.tasks, row, strict=True)) for row in (*rows, counts)]
        return dict(zip(self.tasks, named[:-1], strict=True)), named[-1]

    def _sum_over_processes(self) -> None:
        distributed.sum_in_buckets(self.jacobians)
        distributed.sum_tensors(self.counts)

    def weights(self) -> dict[str, float]:
        """Each task's weight in the last gradient of the shared parameters (the fixed one where there is none)."""
        return {task: weight * self.row_weights[task] for task, weight in super().weights().items()}

    def pending(self) -> list[Tensor]:
        """What adds up over micro-batches and processes."""
        return [*self.jacobians, self.counts]

    def clear(self) -> None:
        for tensor in self.pending():
            tensor.zero_()

    def state(self) -> dict[str, Any]:
        """What the processes hold becomes the first one's: the sum stays as it is."""
        self._sum_over_processes()
        if not distributed.is_main():
            self.clear()
        return {"pending": self.pending(), "steps": self.steps, "row_weights": self.row_weights}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if distributed.is_main():
            for tensor, value in zip(self.pending(), state["pending"], strict=True):
                tensor.copy_(value)
        self.steps, self.row_weights = state["steps"], dict(state["row_weights"])

    def _to_gradient(self, jacobians: Sequence[Tensor]) -> list[float]:
        """Aggregates the rows into `.grad` -> each row's weight; 1 for the methods that do not weigh whole rows."""
        for parameter, jacobian in zip(self.shared, jacobians, strict=True):
            parameter.jac = jacobian
        # weights from the inner products alone: no second copy of all rows
        by_gramian = isinstance(self.aggregator, aggregation.GramianWeightedAggregator)
        device = self.counts.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # some methods draw random numbers: the same ones in every process and after a resume
            torch.manual_seed(self.seed + self.steps)
            weights = jac_to_grad(self.shared, self.aggregator, optimize_gramian_computation=by_gramian)
        for parameter in self.shared:
            # laid out as the parameter: fused optimisers on CUDA want that
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        return [1.0] * len(jacobians[0]) if weights is None else weights.tolist()


def rows_like(parameter: nn.Parameter, count: int) -> Tensor:
    """Zeros, count x the parameter's shape; each row has its memory format, so that autograd adds without copying."""
    size = parameter.numel()
    return parameter.new_zeros(count * size).as_strided((count, *parameter.shape), (size, *parameter.stride()))


def total(losses: Tensor, valid: Tensor) -> Tensor:
    """Sum of the valid samples' losses."""
    return torch.where(valid, losses, 0).sum()


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

    def state(self) -> dict[str, Any]:
        """What the processes hold becomes the first one's: the sum stays as it is."""
        self._sum()
        if not distributed.is_main():
            self.clear()
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
    return sum(rows @ rows.T for rows in flat)


def cosines(products: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """From inner products; pairs with a gradient that is zero are left out."""
    lengths = {task: row[task] ** 0.5 for task, row in products.items()}
    return {
        f"{a}/{b}": products[a][b] / (lengths[a] * lengths[b])
        for a, b in combinations(products, 2)
        if lengths[a] and lengths[b]
    }
