"""A2D2's camera geometry: everything is brought into ONE geometry, the undistorted image.

Camera and label PNGs are stored distorted; lidar row/col and 2d_bbox are pixels of the undistorted image already
(they differ by 22.6 px median, 72.5 px at most). `ImageMap` undistorts and resizes in a single look-up;
`Calibration.scale_*` bring points and boxes to the same target size.

Convention: integer coordinates are pixel centres, so undistorted column c lies at (c + 0.5) * W / 1920 - 0.5 of an
image W pixels wide. Box edges are continuous: 0 is the left edge of the image, 1920 its right edge.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from datasets.files import read_json
from datasets.images import LARGEST_SIDE, read_png
from errors import UserError
from strict import DataModel, checked

Matrix = tuple[tuple[float, float, float], ...]


class RawCamera(DataModel):
    """What is taken of `cameras.front_center` in a cams_lidars.json."""

    lens: str = Field(alias="Lens")
    resolution: list[int] = Field(alias="Resolution", min_length=2, max_length=2)
    distorted: list[list[float]] = Field(alias="CamMatrixOriginal")
    undistorted: list[list[float]] = Field(alias="CamMatrix")
    distortion: list[list[float]] | list[float] = Field(alias="Distortion")


@dataclass(frozen=True)
class Calibration:
    """Intrinsics of the front-center camera; lengths in pixels of the raw image."""

    resolution: tuple[int, int]  # W, H of every raw image
    distorted: Matrix  # CamMatrixOriginal: the raw image
    undistorted: Matrix  # CamMatrix: the image after undistortion; lidar and boxes refer to it
    distortion: tuple[float, ...]  # k1 k2 p1 p2 k3 of OpenCV's pinhole model

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """From a `cams_lidars.json`; where nothing is there at all, the calibration of the real data set."""
        return cls.from_json(read_json(path), str(path)) if os.path.lexists(path) else FRONT_CENTER

    @classmethod
    def from_json(cls, content: Any, source: str) -> "Calibration":
        try:
            camera = checked(RawCamera, content["cameras"]["front_center"])
            matrices = (np.reshape(rows, (3, 3)).tolist() for rows in (camera.distorted, camera.undistorted))
            distorted, undistorted = (tuple(map(tuple, rows)) for rows in matrices)
            width, height = camera.resolution
            found = cls((width, height), distorted, undistorted, tuple(np.ravel(camera.distortion).tolist()))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: no usable cameras.front_center ({error!r}); fetch the file again") from None
        if camera.lens != "Telecam":
            raise UserError(f"{source}: front_center has lens {camera.lens!r}; only 'Telecam' (pinhole) is supported")
        return found

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any], source: str) -> "Calibration":
        """What `to_json` has put into a settings.json. UserError, begun with `source`: it is not there."""
        try:
            return cls(**settings["calibration"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}: no usable calibration ({error!r}); preprocess again with --overwrite") from None

    def __post_init__(self) -> None:
        """ValueError for numbers that no camera has."""
        width, height = self.resolution
        if not (0 < width < LARGEST_SIDE and 0 < height < LARGEST_SIDE):
            raise ValueError(f"resolution {width} x {height}")
        if len(self.distortion) != 5 or not (np.abs(self.distortion) < 100).all():  # false for NaN as well
            raise ValueError("Distortion is not 5 small numbers")
        for (fx, skew, cx), (zero, fy, cy), last in (self.distorted, self.undistorted):
            if not (width / 100 < fx < 100 * width and height / 100 < fy < 100 * height):
                raise ValueError(f"a camera matrix with focal lengths {fx:g}, {fy:g} of {width} x {height} pixels")
            if not (abs(skew) < width and abs(cx) < 10 * width and abs(cy) < 10 * height):
                raise ValueError("a camera matrix whose centre is far from the image")
            if zero != 0 or tuple(last) != (0, 0, 1):
                raise ValueError("a camera matrix that does not end in 0, 0, 1")

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for settings.json."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}

    def scaled(self, width: int, height: int) -> "Calibration":
        """The same camera with its image resized to width x height."""
        factors = width / self.resolution[0], height / self.resolution[1]
        distorted, undistorted = _scaled(self.distorted, *factors), _scaled(self.undistorted, *factors)
        return Calibration((width, height), distorted, undistorted, self.distortion)

    def scale_points(self, col: np.ndarray, row: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Undistorted pixel positions (float, N) -> integer column and row in the target size: the pixel they fall in.

        What lies outside the image comes out negative or beyond the size.
        """
        width, height = self.resolution
        x = np.floor((col + 0.5) * (size[0] / width)).astype(np.int64)
        y = np.floor((row + 0.5) * (size[1] / height)).astype(np.int64)
        return x, y

    def inside(self, col: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Mask (N) of the undistorted pixel positions whose nearest pixel is in the image."""
        x, y = self.scale_points(col, row, self.resolution)
        return (x >= 0) & (x < self.resolution[0]) & (y >= 0) & (y < self.resolution[1])


def _scaled(matrix: Matrix, x: float, y: float) -> Matrix:
    """A camera matrix after resizing by the factors x and y, integer coordinates being pixel centres."""
    (fx, skew, cx), (_, fy, cy), last = matrix
    return (fx * x, skew * x, (cx + 0.5) * x - 0.5), (0.0, fy * y, (cy + 0.5) * y - 0.5), last


FRONT_CENTER = Calibration(
    resolution=(1920, 1208),
    distorted=(
        (1844.1774422790927, 0.0, 964.4299052386386),
        (0.0, 1841.5212239377258, 679.5331911948183),
        (0.0, 0.0, 1.0),
    ),
    undistorted=(
        (1687.3369140625, 0.0, 965.4341405582381),
        (0.0, 1783.428466796875, 684.4193604186803),
        (0.0, 0.0, 1.0),
    ),
    distortion=(-0.2611312587700434, 0.0, 0.0, 0.0, 0.0),
)


class ImageMap:
    """Undistorts a raw image and resizes it to `size` (W, H) in one look-up per pixel. Build it once per process."""

    def __init__(self, calibration: Calibration, size: tuple[int, int]):
        self.calibration = calibration
        self.size = size
        self._x, self._y = source_positions(calibration, size)

    def check(self, image: np.ndarray) -> None:
        """Raise ValueError unless the raw image has the size that the calibration was made for."""
        width, height = self.calibration.resolution
        if image.shape[:2] != (height, width):
            raise ValueError(f"image is {image.shape[1]}x{image.shape[0]}, the calibration is for {width}x{height}")

    def read(self, path: Path) -> np.ndarray:
        """A raw PNG, uint8 H0 x W0 x 3. ValueError or OSError: not a whole one of the calibration's resolution."""
        width, height = self.calibration.resolution
        return read_png(path, (width, height))

    def image(self, raw: np.ndarray) -> np.ndarray:
        """Raw uint8 H0 x W0 x 3 -> undistorted uint8 H x W x 3, bilinear; black where there is no source pixel.

        Where the image shrinks more than twofold it is first reduced by an integer factor (mean of each block of
        pixels), since bilinear interpolation reads only four pixels and would alias.
        """
        self.check(raw)
        fx, fy = self._reduction
        if fx > 1 or fy > 1:
            raw = _block_means(raw, fx, fy)
        return cv2.remap(raw, *self._bilinear, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def labels(self, raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Raw uint8 H0 x W0 x 3 -> its nearest source pixels, H x W x 3 (into `out` if given); see `outside`."""
        self.check(raw)
        return cv2.remap(  # type: ignore[call-overload]  # OpenCV's annotations forget that the second map may be None
            raw, self._nearest, None, cv2.INTER_NEAREST, dst=out, borderMode=cv2.BORDER_CONSTANT
        )

    @cached_property
    def _reduction(self) -> tuple[int, int]:
        """Integer factors (x, y) by which the raw image is reduced before the look-up."""
        (width, height), (raw_width, raw_height) = self.size, self.calibration.resolution
        x, y = raw_width / width, raw_height / height
        return int(x) if x > 2 else 1, int(y) if y > 2 else 1

    @cached_property
    def _bilinear(self) -> tuple[np.ndarray, np.ndarray]:
        """Source positions in the reduced image, as the fixed-point pair that cv2.remap reads fastest."""
        fx, fy = self._reduction
        x, y = (self._x - (fx - 1) / 2) / fx, (self._y - (fy - 1) / 2) / fy
        return cv2.convertMaps(x.astype(np.float32), y.astype(np.float32), cv2.CV_16SC2)

    @cached_property
    def _nearest(self) -> np.ndarray:
        """Nearest source pixel, int16 H x W x 2 (x, y); -1 or the size where it lies outside the raw image."""
        width, height = self.calibration.resolution
        x, y = np.clip(np.rint(self._x), -1, width), np.clip(np.rint(self._y), -1, height)
        return np.stack([x, y], -1).astype(np.int16)

    @cached_property
    def outside(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the target pixels without a source pixel (about one in 10,000)."""
        (x, y), (width, height) = np.moveaxis(self._nearest, -1, 0), self.calibration.resolution
        rows, columns = np.nonzero((x < 0) | (x >= width) | (y < 0) | (y >= height))
        return rows, columns


def source_positions(calibration: Calibration, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the undistorted image at `size` (W, H) comes from: raw x and y, float32 H x W each."""
    return cv2.initUndistortRectifyMap(
        np.array(calibration.distorted),
        np.array(calibration.distortion),
        None,
        np.array(calibration.scaled(*size).undistorted),
        size,
        cv2.CV_32FC1,
    )


def _block_means(image: np.ndarray, fx: int, fy: int) -> np.ndarray:
    """Mean of each block of fx x fy pixels; the last row and column are repeated to fill the last blocks."""
    height, width = image.shape[:2]
    right, bottom = -width % fx, -height % fy
    if right or bottom:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    blocks = image.shape[1] // fx, image.shape[0] // fy
    return cv2.resize(image, blocks, interpolation=cv2.INTER_AREA)
