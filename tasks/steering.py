"""Steering: the angle of the steering wheel, degrees, left positive; the last 10 samples (0.1 s) of a frame.

label: float32, up to 10 angles in degrees; target {"angles": float32 B x 10, "valid": bool B x 10}, right-aligned: the
last column is the newest angle; output: B x 10 in units of 100 degrees.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from tasks.base import DrawOptions, Target, Task, masked_mean
from tasks.drawing import BLACK, GREY, Colour, dashed_line, font, text_size, with_strip

ANGLES = 10  # the last ones of a frame
DEGREES_PER_UNIT = 100  # of the networks' output
TURN = 10.0  # degrees; from here on the car is turning
BLUE = (31, 119, 180)  # of predictions in pictures


class SteeringTask(Task):
    kind = "steering"
    best_metric = "mae"
    strip_lines = 7
    best_metric_title = "MAE, degrees"
    scene_axis = "steering angle, degrees, left positive"
    higher_is_better = False
    likelihood = "regression"
    default_network, default_head = "pilotnet", "steering"

    def parse(self, content: bytes) -> np.ndarray:
        return angles_of(json.loads(content))[-ANGLES:]

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

    def metric(self) -> Metric:
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

    def draw(
        self, image: np.ndarray, prediction: Tensor | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Below the image a steering wheel, the newest angle in numbers, and all of them as a curve over 0.1 s.

        Predictions are solid lines, the truth dashed.
        """
        canvas, pen = with_strip(image, self.strip_lines)
        curves = [] if prediction is None else [Curve("predicted", prediction[0].tolist(), BLUE, dashed=False)]
        if target is not None and target["valid"][0].any():
            curves.append(Curve("true", _angles_of(target), BLACK, dashed=True))
        top, height = image.shape[0], canvas.height - image.shape[0]
        _draw_wheel(pen, (0.6 * height, top + height / 2), 0.42 * height, curves)
        _draw_numbers(pen, (1.12 * height, top + height / 2), curves)
        sides = canvas.width * 2 // 3, top + height // 8, canvas.width - height // 5, top + height * 7 // 8
        _draw_curves(pen, sides, curves)
        return np.array(canvas)

    def scene_value(self, prediction: Tensor | None = None, target: Target | None = None) -> float:
        """The newest angle."""
        return float(prediction[0, -1]) if target is None else _angles_of(target)[-1]


@dataclass(frozen=True)
class Curve:
    """Angles to draw (degrees; NaN where there is none), the newest last."""

    name: str
    angles: list[float]
    colour: Colour
    dashed: bool

    def line(self, pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: int) -> None:
        if self.dashed:
            dashed_line(pen, points, self.colour, width, dash=2.5 * width + 2)
        else:
            pen.line(points, self.colour, width)


def _angles_of(target: Target) -> list[float]:
    """The only frame's angles, NaN where it has none."""
    return target["angles"][0].where(target["valid"][0], math.nan).tolist()


def _draw_wheel(pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, curves: Sequence[Curve]) -> None:
    """A steering wheel with three spokes; left (positive) turns it anticlockwise."""
    x, y = centre
    line = max(2, round(radius / 18))
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=GREY, width=2 * line)
    for curve in curves:
        for spoke in (0, 120, 240):
            turned = math.radians(curve.angles[-1] + spoke)
            end = (x - 0.9 * radius * math.sin(turned), y - 0.9 * radius * math.cos(turned))
            # the spoke that points ahead is the thick one
            curve.line(pen, [centre, end], line if spoke else 2 * line)


def _draw_numbers(pen: ImageDraw.ImageDraw, place: tuple[float, float], curves: Sequence[Curve]) -> None:
    """A line of text a curve, around the height of `place`."""
    size = text_size(pen.im.size[0])
    for i, curve in enumerate(curves):
        y = place[1] + (i - (len(curves) - 1) / 2) * 2 * size
        curve.line(pen, [(place[0], y), (place[0] + 2 * size, y)], max(2, size // 7))
        text = f"{curve.name} {curve.angles[-1]:+.1f}°"
        pen.text((place[0] + 2.5 * size, y), text, fill=curve.colour, font=font(size), anchor="lm")


def _draw_curves(pen: ImageDraw.ImageDraw, frame: tuple[int, int, int, int], curves: Sequence[Curve]) -> None:
    """Angles over time, left upwards; the range is at least 20 degrees to either side."""
    left, top, right, bottom = frame
    size, middle = round(0.8 * text_size(pen.im.size[0])), (top + bottom) / 2
    limit = max([20.0, *(1.1 * abs(angle) for curve in curves for angle in curve.angles if not math.isnan(angle))])
    pen.rectangle(frame, outline=GREY)
    pen.line((left, middle, right, middle), GREY)
    for y, anchor, angle in ((top, "rt", limit), (middle, "rm", 0), (bottom, "rb", -limit)):
        pen.text((left - size / 2, y), f"{angle:+.0f}°" if angle else "0°", fill=BLACK, font=font(size), anchor=anchor)
    for curve in curves:
        points = [
            (left + (right - left) * i / (ANGLES - 1), middle - (bottom - top) / 2 * angle / limit)
            for i, angle in enumerate(curve.angles)
            if not math.isnan(angle)
        ]
        curve.line(pen, points, max(2, size // 6))


class SteeringMetric(Metric):
    """Errors in degrees over all valid angles of the split, each angle counting alike.

    update: predictions in degrees B x 10, target as from `SteeringTask.collate`. compute:
        mae, rmse                    over all; NaN for a split without labels
        mae_straight, rmse_straight  over those below 10 degrees to either side (of the truth), if there are any
        mae_turn, rmse_turn          over the others, if there are any
    Sums are float64.
    """

    full_state_update = False

    def __init__(self):
        super().__init__()
        for part in ("straight", "turn"):  # sums: count, |error|, error^2
            self.add_state(part, torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Target) -> None:
        truth = target["angles"].double()
        error = predictions.double() - truth
        is_turn = truth.abs() >= TURN
        self.straight += _sums(error[target["valid"] & ~is_turn])
        self.turn += _sums(error[target["valid"] & is_turn])

    def compute(self) -> dict[str, float]:
        scores = _mae_rmse(self.straight + self.turn)
        if self.straight[0] > 0:
            scores |= _mae_rmse(self.straight, "_straight")
        if self.turn[0] > 0:
            scores |= _mae_rmse(self.turn, "_turn")
        return scores


def angles_of(content: object) -> np.ndarray:
    """The angles of a processed steering file (degrees, left positive; float32). ValueError: what is wrong with it."""
    if not isinstance(content, dict) or not isinstance(content.get("angles"), list):
        raise ValueError("it has no list of angles")
    if content.get("unit") != "deg":
        raise ValueError(f"its unit is {content.get('unit')!r}, not 'deg'")
    if not content["angles"]:
        raise ValueError("its list of angles is empty")
    if not all(isinstance(angle, int | float) for angle in content["angles"]):
        raise ValueError("an angle is not a number")
    angles = np.array(content["angles"], np.float32)
    if not np.isfinite(angles).all():
        raise ValueError("an angle is not finite")
    return angles


def _sums(error: Tensor) -> Tensor:
    return torch.stack([error.new_tensor(len(error)), error.abs().sum(), error.square().sum()])


def _mae_rmse(sums: Tensor, suffix: str = "") -> dict[str, float]:
    count, absolute, square = sums
    return {f"mae{suffix}": (absolute / count).item(), f"rmse{suffix}": (square / count).sqrt().item()}
