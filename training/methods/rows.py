"""What methods share that need each task's gradient on the shared parameters."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from errors import UserError
from training import distributed
from training.methods.fixed import Fixed
from training.methods.similarity import cosines, inner_products


class Rows(Fixed):
    """Each task has a row: the gradient of its losses times its fixed weight. Rows add up over micro-batches.

    At the shared parameters' step `aggregate` divides them by the number of frames, so that their plain sum is the
    gradient of `Fixed`, and a subclass makes one gradient of them all; it is not linear, so it can't be done a
    micro-batch at a time. Heads get ordinary gradients.

    Autograd adds to the rows in place, so they take the memory of one gradient of the shared parameters a task, and a
    micro-batch need not have all tasks. (TorchJD's `mtl_backward` makes the same rows in new memory each time, for a
    fixed list of tasks.)
    """

    def __init__(self, weights: Mapping[str, float], shared: Iterable[nn.Parameter]):
        super().__init__(weights)
        self.tasks = list(weights)
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.jacobians = [rows_like(p, len(self.tasks)) for p in self.shared]
        self.counts = torch.zeros(len(self.tasks), dtype=torch.int64, device=self.shared[0].device)
        self.steps = 0
        self.similarity_every = 0  # steps from one time that the rows' similarities are told to the next
        # of the last step, for logging
        self.similarities: dict[str, float] = {}
        self._weighed: tuple[list[str], Tensor | None] = self.tasks, None  # as of `to_gradient`, on the device

    @abstractmethod
    def to_gradient(self, jacobians: Sequence[Tensor], present: Sequence[int]) -> Tensor | None:
        """One gradient of the rows into `.grad` of the shared parameters -> each row's weight; None: they have none.

        jacobians: a tensor a parameter, of the present tasks' rows; present: the places of these tasks in `tasks`.
        """

    def backward(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor], loss_scale: float = 1.0) -> None:
        if loss_scale != 1:
            raise UserError("balancing by a gradient for each task does not work with precision fp16; set bf16 or fp32")
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
        weights = self.to_gradient(jacobians, present)
        self._weighed = tasks, weights
        for parameter in self.shared:
            assert parameter.grad is not None  # from `to_gradient`
            # laid out as the parameter: fused optimisers on CUDA want that
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        self.steps += 1
        self.clear()

    def shared_stepped(self) -> dict[str, float]:
        """The method has the gradients of every step: they cost nothing more."""
        due = self.similarity_every > 0 and (self.steps - 1) % self.similarity_every == 0
        return self.similarities if due else {}

    @property
    def row_weights(self) -> dict[str, float]:
        """Of the last step, for logging; 1 if the method weighs no rows, 0 for empty ones. Waits for the device."""
        tasks, weights = self._weighed
        values = [1.0] * len(tasks) if weights is None else weights.tolist()
        return dict.fromkeys(self.tasks, 0.0) | dict(zip(tasks, values, strict=True))

    def weights(self) -> dict[str, float]:
        """Each task's weight in the last gradient of the shared parameters (the fixed one where there is none)."""
        of_rows = self.row_weights
        return {task: weight * of_rows[task] for task, weight in super().weights().items()}

    def pending(self) -> list[Tensor]:
        """What adds up over micro-batches and processes."""
        return [*self.jacobians, self.counts]

    def clear(self) -> None:
        for tensor in self.pending():
            tensor.zero_()

    def collect(self) -> None:
        self._sum_over_processes()
        if not distributed.is_main():
            self.clear()

    def state(self) -> dict[str, Any]:
        return {"pending": self.pending(), "steps": self.steps, "row_weights": self.row_weights}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if distributed.is_main():
            for tensor, value in zip(self.pending(), state["pending"], strict=True):
                tensor.copy_(value)
        self.steps = state["steps"]
        saved = [state["row_weights"][task] for task in self.tasks]
        self._weighed = self.tasks, torch.tensor(saved, dtype=torch.float64)

    def _products_and_counts(self) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Inner products of the pending rows, and how many samples each has; one transfer from the device."""
        products = inner_products(self.jacobians)
        *rows, counts = torch.cat([products.double(), self.counts.double()[None]]).tolist()
        named = [dict(zip(self.tasks, row, strict=True)) for row in (*rows, counts)]
        return dict(zip(self.tasks, named[:-1], strict=True)), named[-1]

    def _sum_over_processes(self) -> None:
        distributed.sum_in_buckets(self.jacobians)
        distributed.sum_tensors(self.counts)


def rows_like(parameter: nn.Parameter, count: int) -> Tensor:
    """Zeros, count x the parameter's shape; each row has its memory format, so that autograd adds without copying."""
    size = parameter.numel()
    return parameter.new_zeros(count * size).as_strided((count, *parameter.shape), (size, *parameter.stride()))
