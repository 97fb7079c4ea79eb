"""How the parts of the synthetic world are painted: a texture, and one function for each finish.

A finish paints in place: `points` are 3 x N (m, in the solid's frame), `faces` N, `colours` N x 3 (RGB, 0-255).
"""

from collections.abc import Callable

import cv2
import numpy as np

from datasets.synthetic.solids import FRONT, REAR, TOP, Part


def _texture() -> np.ndarray:
    """256 x 256 noise of two grain sizes, standard deviation 1, that tiles."""
    noise = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    soft = cv2.GaussianBlur(np.tile(noise, (3, 3)), (0, 0), 3)[256:512, 256:512]
    mixed = 0.6 * noise + soft / soft.std()
    return mixed / mixed.std()


TEXTURE = _texture()


def texture_at(a: np.ndarray, b: np.ndarray, per_metre: float) -> np.ndarray:
    """The texture at positions a, b (m)."""
    rows, cols = (a * per_metre).astype(np.int32) & 255, (b * per_metre).astype(np.int32) & 255
    return TEXTURE.ravel()[(rows << 8) | cols]


GLASS = np.array([48, 58, 70], np.float32)


def _bodywork(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """Wheels, sill, lights and number plate."""
    x, y, z = points
    length, width = part.half
    colours[z < 0.26] = 28
    ends = (faces == FRONT) | (faces == REAR)
    wheels = np.hypot(np.abs(x) - 0.62 * length, z - 0.33)
    colours[~ends & (wheels < 0.34)] = 22
    colours[~ends & (wheels < 0.19)] = 150
    lights = ends & (np.abs(y) > 0.6 * width) & (np.abs(z - 0.72 * part.height) < 0.1)
    colours[lights & (faces == REAR)] = (230, 30, 25)
    colours[lights & (faces == FRONT)] = (250, 248, 225)
    colours[ends & (np.abs(y) < 0.26) & (np.abs(z - 0.5 * part.height) < 0.06)] = (235, 235, 225)


def _cabin(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """Windows on all sides between pillars."""
    rise = (points[2] - part.bottom) / part.height
    along, across = points[0] - part.centre[0], points[1]
    band = (rise > 0.1) & (rise < 0.86) & (faces != TOP)
    ends = (faces == FRONT) | (faces == REAR)
    span = part.half[1] - part.lean[2] * (points[2] - part.bottom)
    pillars = np.where(ends, np.abs(across) > 0.86 * span, np.abs((along + 0.05) % 1.15) < 0.09)
    colours[band & ~pillars] = GLASS


def _cargo(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """A box body with doors and rear lights."""
    rear = faces == REAR
    colours[rear & (np.abs(points[1]) < 0.04)] *= 0.5
    low = points[2] < part.bottom + 0.22
    colours[low] = 60
    colours[low & rear & (np.abs(points[1]) > 0.75 * part.half[1])] = (230, 30, 25)


def _facade(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """Storeys of windows."""
    along = np.where((faces == FRONT) | (faces == REAR), points[1], points[0])
    windows = (np.abs(along % 2.6 - 1.3) < 0.6) & (np.abs(points[2] % 2.9 - 1.7) < 0.7) & (faces != TOP)
    colours *= 1 + 0.04 * texture_at(along, points[2], 8)[:, None]
    colours[windows] = GLASS * (1 + 0.4 * ((np.floor(along / 2.6) + np.floor(points[2] / 2.9))[windows] % 3))[:, None]


def _foliage(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """Clumps of light and dark leaves, darker below."""
    x, y, z = points
    leaves = 0.16 * texture_at(x + 0.7 * y, z + 0.4 * y, 14) + 0.1 * texture_at(y - 0.5 * x, z, 3)
    colours *= (0.8 + 0.3 * (z - part.bottom) / part.height + leaves)[:, None]


def _sign(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """A white field inside a coloured rim."""
    middle = np.abs(points[2] - part.bottom - part.height / 2) / (part.height / 2)
    colours[(np.abs(points[1]) < 0.65 * part.half[1]) & (middle < 0.65)] = 240


def _plain(part: Part, points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """The part's own colour."""


FINISHES: dict[str, Callable[[Part, np.ndarray, np.ndarray, np.ndarray], None]] = {
    "plain": _plain,
    "bodywork": _bodywork,
    "cabin": _cabin,
    "cargo": _cargo,
    "facade": _facade,
    "foliage": _foliage,
    "sign": _sign,
}
