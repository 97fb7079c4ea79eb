"""Reading pictures and maps of any data set, and bringing them to a size.

Integer coordinates are pixel centres, as everywhere here: column c of an image W pixels wide lies at
(c + 0.5) * w / W - 0.5 of the same image w pixels wide.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.files import NPY_HEADER, npy_array, npy_header, open_regular, read_bytes, read_whole
from datasets.images import check_pixels, check_png, read_png
from errors import reason_of

GREY_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # of Pillow: one number a pixel; P: the palette's index


def read_rgb(path: Path, white: float) -> np.ndarray:
    """uint8 H x W x 3. white: value of full brightness in a .npy. ValueError or OSError: not such a picture."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _to_bytes(_channels_last(read_npy(path)), white)
    if suffix == ".png":
        return read_png(path)
    with opened(path) as image:  # Pillow refuses a JPEG that was cut; OpenCV would fill it with grey
        return np.asarray(image.convert("RGB"))


def read_numbers(path: Path) -> np.ndarray:
    """H x W, one number a pixel: a grey or palette .png, or a .npy with at most one channel."""
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
            array = array.squeeze(-1 if array.shape[-1] == 1 else 0)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"shape {array.shape}, not H x W")
        return array
    check_png(read_bytes(path))
    with opened(path) as image:
        if image.mode not in GREY_MODES:
            raise ValueError(f"a picture of mode {image.mode}, not of one number a pixel")
        return np.asarray(image)


def read_npy(path: Path) -> np.ndarray:
    """A .npy's array of numbers; pickles are never read."""
    array = npy_array(read_whole(path))
    if array.dtype.kind not in "biuf":
        raise ValueError("not an array of numbers")
    return array


def size_of(path: Path) -> tuple[int, int]:
    """W, H of an image, from its header alone. ValueError or OSError: not an image."""
    if path.suffix.lower() == ".npy":
        with open(open_regular(path), "rb") as file:
            shape = npy_header(file.read(NPY_HEADER)).shape
        height, width, _ = _channels_last(np.broadcast_to(0, shape)).shape
        return width, height
    with opened(path) as image:
        return image.size


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture of a size that is read. ValueError or OSError: it is none."""
    with open(open_regular(path), "rb") as file:
        try:
            with Image.open(file, formats=["PNG"] if path.suffix.lower() == ".png" else None) as image:
                check_pixels(*image.size)
                yield image
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever a broken picture makes Pillow raise
            raise ValueError(f"not a whole picture: {reason_of(error)}") from None


def _channels_last(array: np.ndarray) -> np.ndarray:
    """H x W x 3 from itself or from 3 x H x W. ValueError: another shape."""
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    if array.ndim == 3 and array.shape[0] == 3:
        return np.moveaxis(array, 0, 2)
    raise ValueError(f"shape {array.shape}, not H x W x 3 or 3 x H x W")


def _to_bytes(array: np.ndarray, white: float) -> np.ndarray:
    """Values from 0 to white -> uint8."""
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= white):  # false for NaN as well
        raise ValueError(f"values from {lowest:g} to {highest:g}, not from 0 to {white:g} (the recipe's image.white)")
    if array.dtype == np.uint8 and white == 255:
        return np.ascontiguousarray(array)
    return np.rint(array.astype(np.float64) * (255 / white)).astype(np.uint8)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at `size` (W, H): the mean over the area of each new pixel where it shrinks, bilinear where it grows."""
    height, width = image.shape[:2]
    image = cv2.resize(image, (min(width, size[0]), min(height, size[1])), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (H x W ...) at `size` (W, H): each new pixel takes the old one that its centre falls in."""
    rows = pixels_of(np.arange(size[1]), size[1], values.shape[0])
    columns = pixels_of(np.arange(size[0]), size[0], values.shape[1])
    return values[rows[:, None], columns[None]]


def pixels_of(places: np.ndarray, length: int, new_length: int) -> np.ndarray:
    """The pixels, of `new_length` along an axis, that the centres of pixels of `length` fall in (whole numbers)."""
    return (2 * places + 1) * new_length // (2 * length)
