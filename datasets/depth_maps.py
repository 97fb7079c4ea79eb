"""Depth labels: uint16 H x W, metres x 256 (KITTI's convention), 0 = no measurement."""

import numpy as np

UNITS_PER_METRE = 256
MAX_METRES = 255.9
NOTHING = np.iinfo(np.uint16).max  # farther than MAX_METRES: any point is nearer


def nearest_points(
    x: np.ndarray, y: np.ndarray, metres: np.ndarray, size: tuple[int, int], splat: int = 1
) -> np.ndarray:
    """uint16 H x W: each pixel's nearest point, metres x 256. x, y: pixels inside the image, splat x splat a point."""
    width, height = size
    values = np.rint(metres * UNITS_PER_METRE).astype(np.uint16)
    image = np.full(width * height, NOTHING, np.uint16)
    reach = range(-(splat // 2), splat // 2 + 1)
    for dx, dy in ((dx, dy) for dx in reach for dy in reach):
        u, v = x + dx, y + dy
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        np.minimum.at(image, (v * width + u)[inside], values[inside])
    image[image == NOTHING] = 0
    return image.reshape(height, width)
