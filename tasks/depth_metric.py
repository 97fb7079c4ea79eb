"""Errors of depth maps, as a metric that merges exactly over processes."""

import torch
from torch import Tensor
from torchmetrics import Metric

from tasks.base import Target
from tasks.depth_unit import metres


class DepthMetric(Metric):
    """Errors over the measured pixels between `nearest` and `cap` metres (both included) of the whole split.

    Every pixel weighs the same, whichever image it is in (KITTI's tables average per image first). Predictions are
    clamped to the same range, as is usual on KITTI (monodepth's and BTS's evaluation do it); NaN stays NaN.

    update: predictions in metres B x H x W, target as from `DepthTask.collate`. compute, with p predicted and t true:
        abs_rel   mean |p - t| / t                      sq_rel  mean (p - t)^2 / t, m
        rmse      root of the mean (p - t)^2, m         mae     mean |p - t|, m
        rmse_log  root of the mean (ln p - ln t)^2
        delta1, delta2, delta3  share of the pixels with max(p / t, t / p) < 1.25, 1.25^2, 1.25^3
    (the errors of Eigen et al. 2014). Sums are float64. NaN for a split without such a pixel.
    """

    full_state_update = False
    sums: Tensor
    count: Tensor

    def __init__(self, *, nearest: float, cap: float):
        super().__init__()
        self.nearest, self.cap = nearest, cap
        self.add_state("sums", torch.zeros(8, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Target) -> None:
        truth = metres(target["depth"], torch.float64)
        evaluated = (truth >= self.nearest) & (truth <= self.cap)
        t = truth[evaluated]
        p = predictions[evaluated].double().clamp(self.nearest, self.cap)
        error = p - t
        ratio = torch.maximum(p / t, t / p)
        terms = [error.abs() / t, error.square() / t, error.square(), ratio.log().square(), error.abs()]
        terms += [(ratio < 1.25**k).double() for k in (1, 2, 3)]
        self.sums += torch.stack([term.sum() for term in terms])
        self.count += len(t)

    def compute(self) -> dict[str, float]:
        abs_rel, sq_rel, square, square_log, mae, *deltas = (self.sums / self.count).tolist()
        scores = {"abs_rel": abs_rel, "sq_rel": sq_rel, "rmse": square**0.5, "rmse_log": square_log**0.5, "mae": mae}
        return scores | {f"delta{k}": delta for k, delta in enumerate(deltas, start=1)}
