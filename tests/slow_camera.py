"""The camera model written out once more, slowly and from the calibration file itself: what ImageMap must agree with.

A pixel centre has integer coordinates, so an image of W pixels reaches from -0.5 to W - 0.5.
"""

from typing import Any

import numpy as np


def distort(camera: dict[str, Any], col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions of the undistorted image -> where the raw image shows the same thing (x, y)."""
    new, raw = np.array(camera["CamMatrix"], float), np.array(camera["CamMatrixOriginal"], float)
    k1, k2, p1, p2, k3 = np.array(camera["Distortion"], float).reshape(-1)
    x, y = (col - new[0, 2]) / new[0, 0], (row - new[1, 2]) / new[1, 1]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return raw[0, 0] * bent_x + raw[0, 2], raw[1, 1] * bent_y + raw[1, 2]


def source_positions(camera: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Raw x and y, float64 H x W, that each pixel of the undistorted image at `size` (W, H) shows."""
    width, height = camera["Resolution"]
    col, row = np.meshgrid(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    return distort(camera, (col + 0.5) * width / size[0] - 0.5, (row + 0.5) * height / size[1] - 0.5)


def near_a_border(x: np.ndarray, y: np.ndarray, within: float = 1e-3) -> np.ndarray:
    """Positions so close to the middle between two pixels that float32 may round them to the other one."""
    return (abs(x - np.floor(x) - 0.5) < within) | (abs(y - np.floor(y) - 0.5) < within)


def nearest(raw: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The raw pixel nearest to each position (H x W x 3), and the mask of positions outside the image."""
    height, width = raw.shape[:2]
    picked, outside = np.zeros((*x.shape, 3), np.uint8), np.zeros(x.shape, bool)
    for v in range(x.shape[0]):
        for u in range(x.shape[1]):
            col, row = round(x[v, u]), round(y[v, u])
            if 0 <= col < width and 0 <= row < height:
                picked[v, u] = raw[row, col]
            else:
                outside[v, u] = True
    return picked, outside


def bilinear(raw: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the four raw pixels around each position, float H x W x 3; and where all four lie in the image."""
    padded = np.pad(raw.astype(float), ((2, 2), (2, 2), (0, 0)))
    left = np.clip(np.floor(x).astype(int), -2, raw.shape[1])
    top = np.clip(np.floor(y).astype(int), -2, raw.shape[0])
    a, b = np.clip(x - left, 0, 1)[..., None], np.clip(y - top, 0, 1)[..., None]
    pixel = {(dx, dy): padded[top + dy + 2, left + dx + 2] for dx in (0, 1) for dy in (0, 1)}
    upper, lower = (1 - a) * pixel[0, 0] + a * pixel[1, 0], (1 - a) * pixel[0, 1] + a * pixel[1, 1]
    interior = (x >= 0) & (y >= 0) & (x <= raw.shape[1] - 1) & (y <= raw.shape[0] - 1)
    return (1 - b) * upper + b * lower, interior


def block_means(raw: np.ndarray, fx: int, fy: int) -> np.ndarray:
    """Float mean of each fx x fy block; blocks at the right and lower edge repeat the last column and row."""
    height, width = raw.shape[:2]
    rows, cols = -(-height // fy), -(-width // fx)
    means = np.zeros((rows, cols, 3))
    for v in range(rows):
        for u in range(cols):
            ys = np.minimum(np.arange(v * fy, (v + 1) * fy), height - 1)
            xs = np.minimum(np.arange(u * fx, (u + 1) * fx), width - 1)
            means[v, u] = raw[np.ix_(ys, xs)].mean(axis=(0, 1))
    return means
