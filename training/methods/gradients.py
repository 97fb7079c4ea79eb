"""The shared parameters step along an aggregation of the tasks' gradients."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad

from errors import UserError
from models.multitask import BACKBONE
from training.methods.base import Context, Method, MethodSettings
from training.methods.rows import Rows

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


class Aggregated(Rows):
    """By TorchJD: Quinton and Rey 2024, "Jacobian Descent for Multi-Objective Optimization", section 3 (UPGrad); Yu et
    al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1 (PCGrad); TorchJD's documentation names the papers
    of the others.
    """

    def __init__(self, name: str, weights: Mapping[str, float], shared: Iterable[nn.Parameter], *, seed: int = 0):
        super().__init__(weights, shared)
        try:
            self.aggregator = AGGREGATORS[name]()
        except ImportError as missing:  # of a solver that only this method needs
            raise UserError(f"balancing: {name}: {missing}") from None
        self.seed = seed

    def to_gradient(self, jacobians: Sequence[Tensor], present: Sequence[int]) -> Tensor | None:
        for parameter, jacobian in zip(self.shared, jacobians, strict=True):
            parameter.jac = jacobian  # type: ignore[attr-defined]  # TorchJD's own field
        # weights from the inner products alone: no second copy of all rows
        by_gramian = isinstance(self.aggregator, aggregation.GramianWeightedAggregator)
        device = self.counts.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # some methods draw random numbers: the same ones in every process and after a resume
            torch.manual_seed(self.seed + self.steps)
            # its overloads want one kind of aggregator to be known
            return jac_to_grad(  # type: ignore[call-overload]
                self.shared, self.aggregator, optimize_gramian_computation=by_gramian
            )


def make(settings: MethodSettings, context: Context) -> Aggregated:
    return Aggregated(settings.name, context.weights, context.groups[BACKBONE], seed=context.seed)


METHODS = {name: Method(make) for name in AGGREGATORS}
