"""A steering wheel and the angles as numbers and curves, below the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from tasks.base import Target
from tasks.steering import ANGLES
from visual.drawing import BLACK, GREY, Colour, dashed_line, font, with_strip
from visual.pictures.base import DrawOptions, Picture

BLUE = (31, 119, 180)  # of predictions


class SteeringPicture(Picture):
    strip_lines = 7
    on_image = False
    scene_axis = "steering angle, degrees, left positive"

    def draw(
        self, image: np.ndarray, prediction: Tensor | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Below the image a steering wheel, the newest angle in numbers, and all of them as a curve over 0.1 s.

        Predictions are solid lines, the truth dashed.
        """
        size = options.text_size(image.shape[1])
        canvas, pen = with_strip(image, self.strip_lines, size)
        curves = [] if prediction is None else [Curve("predicted", prediction[0].tolist(), BLUE, dashed=False)]
        if target is not None and target["valid"][0].any():
            curves.append(Curve("true", _angles_of(target), BLACK, dashed=True))
        top, height = image.shape[0], canvas.height - image.shape[0]
        radius = min(0.33 * height, 0.16 * canvas.width)
        _draw_wheel(pen, (1.2 * radius, top + height / 2), radius, curves)
        left = round(2.5 * radius)
        _draw_numbers(pen, (left, top + size // 2), curves, size)
        sides = left + 3 * size, top + round(4.2 * size), canvas.width - size, canvas.height - size
        _draw_curves(pen, sides, curves, size)
        return np.array(canvas)

    def caption(self, target: Target) -> str:
        return ", ".join(f"{angle:+.1f}°" for angle in _angles_of(target) if not math.isnan(angle))

    def scene_value(self, prediction: Tensor | None = None, target: Target | None = None) -> float:
        """The newest angle."""
        if target is not None:
            return _angles_of(target)[-1]
        assert prediction is not None  # one of them is given
        return float(prediction[0, -1])


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


def _draw_numbers(pen: ImageDraw.ImageDraw, place: tuple[int, int], curves: Sequence[Curve], size: int) -> None:
    """A line of text a curve, the first one's upper left corner at `place`; smaller where the picture is narrow."""
    dash, room = 1.5 * size, pen.im.size[0] - place[0] - 2.5 * size
    texts = [f"{curve.name} {curve.angles[-1]:+.1f}°" for curve in curves]
    longest = max((font(size).getlength(text) for text in texts), default=1)
    letters = font(size * min(1, room / longest))
    for i, (curve, text) in enumerate(zip(curves, texts, strict=True)):
        y = place[1] + (i + 0.5) * 1.5 * size
        curve.line(pen, [(place[0], y), (place[0] + dash, y)], max(2, size // 7))
        pen.text((place[0] + dash + 0.5 * size, y), text, fill=curve.colour, font=letters, anchor="lm")


def _draw_curves(
    pen: ImageDraw.ImageDraw, frame: tuple[int, int, int, int], curves: Sequence[Curve], size: int
) -> None:
    """Angles over time, left upwards; the range is a multiple of 20 degrees to either side: pictures compare."""
    left, top, right, bottom = frame
    letters, middle = font(round(0.8 * size)), (top + bottom) / 2
    largest = max((abs(angle) for curve in curves for angle in curve.angles if not math.isnan(angle)), default=0)
    limit = 20 * max(1, math.ceil(1.05 * largest / 20))
    pen.rectangle(frame, outline=GREY)
    pen.line((left, middle, right, middle), GREY)
    for y, anchor, angle in ((top, "rt", limit), (middle, "rm", 0), (bottom, "rb", -limit)):
        pen.text((left - size / 2, y), f"{angle:+.0f}°" if angle else "0°", fill=BLACK, font=letters, anchor=anchor)
    for curve in curves:
        points = [
            (left + (right - left) * i / (ANGLES - 1), middle - (bottom - top) / 2 * angle / limit)
            for i, angle in enumerate(curve.angles)
            if not math.isnan(angle)
        ]
        curve.line(pen, points, max(2, size // 6))
