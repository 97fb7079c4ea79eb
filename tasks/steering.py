"""Steering: the angle of the steering wheel, degrees, left positive; the last 10 samples (0.1 s) of a frame.

label: float32, up to 10 angles in degrees; target {"angles": float32 B x 10, "valid": bool B x 10}, right-aligned: the
last column is the newest angle; output: B x 10 in units of 100 degrees.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.files import parse_json
from datasets.spec import LARGEST_ANGLE
from strict import DataModel, checked
from tasks.base import Target, Task, masked_mean
from tasks.written import Written

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric

ANGLES = 10  # the last ones of a frame
DEGREES_PER_UNIT = 100  # of the networks' output


class SteeringTask(Task):
    kind = "steering"
    best_metric = "mae"
    metrics = {
        f"{key}{part}": Written(f"{key.upper()}{where}", "degrees", 2, "lower")
        for part, where in (("", ""), ("_straight", " below 10 degrees"), ("_turn", " from 10 degrees on"))
        for key in ("mae", "rmse")
    }
    likelihood = "regression"
    default_network, default_head = "pilotnet", "steering"

    def parse(self, content: bytes) -> np.ndarray:
        return angles_of(parse_json(content))[-ANGLES:]

    def collate(self, labels: list[np.ndarray | None]) -> Target:
        angles = np.zeros((len(labels), ANGLES), np.float32)
        valid = np.zeros((len(labels), ANGLES), bool)
        for i, label in enumerate(labels):
            if label is not None:
                angles[i, -len(label) :] = label
                valid[i, -len(label) :] = True
        return {"angles": torch.from_numpy(angles), "valid": torch.from_numpy(valid)}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        """In the mirror a left turn is a right turn."""
        angles = target["angles"]
        return {"angles": torch.where(flip[:, None], -angles, angles), "valid": target["valid"]}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Smooth L1 on angles / 100, so quadratic below 100 degrees of error; mean over the frame's valid angles."""
        prediction = output.to(torch.promote_types(output.dtype, torch.float32))
        truth = target["angles"].to(prediction.dtype) / DEGREES_PER_UNIT
        return masked_mean(F.smooth_l1_loss(prediction, truth, reduction="none"), target["valid"])

    def decode(self, output: Tensor) -> Tensor:
        """B x 10 in units of 100 degrees -> degrees, float32 B x 10."""
        return output.float() * DEGREES_PER_UNIT

    def metric(self) -> "Metric":
        from tasks.steering_metric import SteeringMetric

        return SteeringMetric()

    def constant(self, labels: Iterable[np.ndarray]) -> Tensor:
        """The mean of all angles: degrees, float32 1 x 10."""
        total, count = 0.0, 0
        for label in labels:
            total += label.sum(dtype=np.float64)
            count += len(label)
        if count == 0:
            raise ValueError("no training label to fit the constant baseline to")
        return torch.full((1, ANGLES), total / count)

    def outputs(self) -> dict[str, Any]:
        return {"numbers": ANGLES}


class SteeringFile(DataModel):
    """A processed steering label."""

    unit: Literal["deg"]
    angles: list[Annotated[float, Field(ge=-LARGEST_ANGLE, le=LARGEST_ANGLE)]] = Field(min_length=1)


def angles_of(content: object) -> np.ndarray:
    """The angles of a processed steering file (degrees, left positive; float32). ValueError: what is wrong with it."""
    return np.array(checked(SteeringFile, content).angles, np.float32)
