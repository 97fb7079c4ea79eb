"""Reading pictures."""

import zlib
from pathlib import Path

import numpy as np
import pyspng

from datasets.files import read_bytes

PNG_START = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 32767  # px; OpenCV's look-ups take less
MAX_PIXELS = 100_000_000  # of a picture, 300 MB


def read_png(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 H x W x 3 RGB; an alpha channel is dropped, a palette resolved. ValueError: not a whole PNG (of `size`)."""
    content = read_bytes(path)
    check_png(content, size)
    try:
        return pyspng.load(content, "RGB")  # libspng: 1.6 times as fast as cv2.imread
    except RuntimeError as error:
        raise ValueError(f"not a whole PNG: {error}") from None


def check_png(content: bytes, size: tuple[int, int] | None = None) -> None:
    """ValueError unless the bytes are one PNG (of W x H pixels) from its first to its last, each chunk's CRC right.

    pyspng and Pillow look at none of this. Nothing is decoded, so a huge picture costs nothing.
    """
    if len(content) < 33 or content[:8] != PNG_START or content[12:16] != b"IHDR":
        raise ValueError("not a whole PNG: it does not begin as one")
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    check_pixels(width, height, size)
    view, place, name = memoryview(content), len(PNG_START), b""
    while name != b"IEND":
        name, end = content[place + 4 : place + 8], place + 8 + int.from_bytes(view[place : place + 4])
        if end + 4 > len(content):
            raise ValueError("not a whole PNG: it is cut off")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(f"not a whole PNG: the checksum of its chunk {name!r} is wrong")
        place = end + 4
    if place != len(content):
        raise ValueError(f"not a whole PNG: {len(content) - place} bytes behind its end")


def check_pixels(width: int, height: int, size: tuple[int, int] | None = None) -> None:
    """ValueError for a picture that is not of the size W, H, or too large for any."""
    if size is not None and (width, height) != size:
        raise ValueError(f"image is {width}x{height}, not {size[0]}x{size[1]}")
    if max(width, height) >= LARGEST_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"image of {width}x{height}; at most {MAX_PIXELS:,} pixels, fewer than {LARGEST_SIDE} a side")
