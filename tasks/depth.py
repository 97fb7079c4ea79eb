"""Depth from one image, in metres along the viewing direction; the labels are sparse lidar measurements.

label: uint16 H x W, metres x 256, 0 = no measurement; target {"depth": uint16 B x H x W}; output: metres B x 1 x H x W,
positive.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from datasets.spec import LabelSpec
from errors import UserError
from tasks.base import Target, Task, masked_mean
from tasks.depth_unit import STEPS_PER_METRE, metres
from tasks.maps import checked_map, flip_maps, resampled, stack_maps
from tasks.written import Written

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric

VARIANCE_FOCUS = 0.85  # the share of a wrong overall scale that is forgiven; at 1 the scale does not count at all
TYPICAL_DEPTH = 16.0  # m, about the median of a sweep: where a network starts that never sees a measurement
DEFAULT_RANGE = (0.1, 255.9)  # m, evaluated where the data set does not say: nearly all that a label can hold


class DepthTask(Task):
    kind = "depth"
    best_metric = "abs_rel"
    metrics = {
        "abs_rel": Written("AbsRel", better="lower"),
        "sq_rel": Written("SqRel", "m", better="lower"),
        "rmse": Written("RMSE", "m", better="lower"),
        "rmse_log": Written("RMSE log", better="lower"),
        "mae": Written("MAE", "m", better="lower"),
        **{f"delta{k}": Written(f"δ{k}", better="higher") for k in (1, 2, 3)},
    }
    unscorable = "no label has a measurement within the range that is evaluated"
    likelihood = "regression"
    default_network, default_head = "densedepth", "depth"

    class Settings(Task.Settings):
        cap: PositiveFloat | None = None
        """Metres; the metrics are over measurements from the data set's nearest to here (default: its farthest)."""

    settings: Settings

    def __init__(self, settings: Settings | None = None, spec: LabelSpec | None = None, name: str | None = None):
        super().__init__(settings, spec, name)
        self.nearest, farthest = self.spec.range or DEFAULT_RANGE
        self.cap = self.settings.cap or farthest
        if self.cap <= self.nearest:
            raise UserError(f"tasks.{self.name}.settings.cap: {self.cap} m is not beyond the nearest, {self.nearest} m")
        self.median_depth: float | None = None  # m, of all training measurements; from `fit` or `load_state`

    def parse(self, content: np.ndarray) -> np.ndarray:
        return checked_map(content, np.uint16)

    def collate(self, labels: list[np.ndarray | None]) -> Target:
        return {"depth": stack_maps(labels, missing=0)}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        # the bits as int16: torch knows few operations on uint16
        return {"depth": flip_maps(target["depth"].view(torch.int16), flip).view(torch.uint16)}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Scale-invariant log loss of each image over its measured pixels.

        sqrt(mean d^2 - 0.85 (mean d)^2 + 1e-6) with d = log prediction - log truth: Eigen et al. 2014, equation 4,
        with the root and the factor 0.85 of BTS (Lee et al. 2019; theirs is 10 times as large).
        """
        prediction = output.squeeze(1).to(torch.promote_types(output.dtype, torch.float32))  # B H W
        truth = metres(target["depth"], prediction.dtype)
        measured = truth > 0
        # both 1 where nothing is measured: log 0 would make the gradient NaN there, masked or not
        d = torch.where(measured, prediction, 1).log() - torch.where(measured, truth, 1).log()
        mean, valid = masked_mean(d, measured)
        mean_square, _ = masked_mean(d.square(), measured)
        # the 1e-6 keeps the root's slope finite at 0
        loss = (mean_square - VARIANCE_FOCUS * mean.square() + 1e-6).sqrt()
        return torch.where(valid, loss, 0), valid

    def decode(self, output: Tensor) -> Tensor:
        """B x 1 x H x W -> metres, float32 B x H x W."""
        return output.squeeze(1).float()

    def at_size_of(self, target: Target, output: Tensor) -> Tensor:
        return resampled(output, target["depth"], "bilinear")

    def constant_at_size_of(self, target: Target, prediction: Tensor) -> Tensor:
        return resampled(prediction[:, None], target["depth"], "bilinear").squeeze(1)

    def relative_errors(self, predictions: Tensor, target: Target) -> Tensor:
        """|prediction - truth| / truth of every pixel, float32 B x H x W, whose mean is AbsRel; NaN where none counts.

        predictions: as from `decode`, at any size.
        """
        truth = metres(target["depth"], torch.float32).to(predictions.device)
        predictions = self.constant_at_size_of(target, predictions).clamp(self.nearest, self.cap)
        evaluated = (truth >= self.nearest) & (truth <= self.cap)
        return torch.where(evaluated, (predictions - truth).abs() / truth, torch.nan)

    def metric(self) -> "Metric":
        from tasks.depth_metric import DepthMetric

        return DepthMetric(nearest=self.nearest, cap=self.cap)

    def scorable(self, label: np.ndarray) -> bool:
        evaluated = (label >= self.nearest * STEPS_PER_METRE) & (label <= self.cap * STEPS_PER_METRE)
        return bool(evaluated.any())

    def constant(self, labels: Iterable[np.ndarray]) -> Tensor:
        """The median measurement of each pixel: metres, float32 1 x H x W.

        A pixel never measured takes the median of its row's medians, and in a row without any, of the whole map's.
        Memory: 8 bytes a measurement, twice that while they are joined: 1 GB at the peak for 7,500 sweeps of 8,000
        points, whatever the size of the image.
        """
        medians = _fill(_median_per_pixel(labels)) / STEPS_PER_METRE
        return torch.from_numpy(medians.astype(np.float32))[None]

    def fit(self, labels: Iterable[np.ndarray]) -> None:
        """The median of all measurements: the network starts with it everywhere."""
        counts = np.zeros(1 << 16, np.int64)  # of every value that a label can have
        for label in labels:
            counts += np.bincount(label[label > 0], minlength=len(counts))
        total = counts.sum()
        if total == 0:
            self.median_depth = TYPICAL_DEPTH
            return
        middle = np.searchsorted(counts.cumsum(), [(total - 1) // 2, total // 2], side="right")
        self.median_depth = float(middle.mean()) / STEPS_PER_METRE

    def state(self) -> dict[str, Tensor]:
        return {} if self.median_depth is None else {"median_depth": torch.tensor(self.median_depth).double()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.median_depth = state["median_depth"].item() if "median_depth" in state else None

    def outputs(self) -> dict[str, Any]:
        return {"median_depth": self._fitted_median()}

    def _fitted_median(self) -> float:
        if self.median_depth is None:
            raise RuntimeError("networks start at the training labels' median: call fit or load_state first")
        return self.median_depth


def _median_per_pixel(labels: Iterable[np.ndarray]) -> np.ndarray:
    """Median of each pixel's measurements in a label's unit, float64 H x W; NaN where there is none."""
    measurements, shape = _sorted_measurements(labels)
    borders = np.searchsorted(measurements, np.arange(np.prod(shape) + 1, dtype=np.uint64) << 16)
    start, end = borders[:-1], borders[1:]
    medians = np.full(len(start), np.nan)
    measured = start < end
    middle = np.stack([start + end - 1, start + end])[:, measured] // 2  # the same one twice for an odd number
    medians[measured] = (measurements[middle] & 0xFFFF).mean(0)
    return medians.reshape(shape)


def _sorted_measurements(labels: Iterable[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """All measurements as numbers `pixel << 16 | depth`, sorted, so that each pixel's lie side by side -> and H, W."""
    parts, shape = [], (0, 0)
    for label in labels:
        shape, values = label.shape, label.ravel()
        pixels = np.flatnonzero(values)
        parts.append(pixels.astype(np.uint64) << 16 | values[pixels])
    if not any(map(len, parts)):
        raise ValueError("no training label has a measured pixel to fit the constant baseline to")
    measurements = np.concatenate(parts)
    measurements.sort()
    return measurements, shape


def _fill(medians: np.ndarray) -> np.ndarray:
    """NaN -> the median of its row, and in a row of NaN only, of the whole map."""
    overall = np.nanmedian(medians)
    filled = medians.copy()
    for row in filled:
        missing = np.isnan(row)
        row[missing] = overall if missing.all() else np.median(row[~missing])
    return filled
