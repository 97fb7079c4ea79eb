"""What pictures share: text, legends, dashed lines. Pictures are uint8 H x W x 3, RGB."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (110, 110, 110)


def text_size(width: int) -> int:
    """Pixels of letters that are readable on a picture of this width."""
    return max(11, width // 45)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow brings it: no fonts of the machine are needed


def line_height(width: int) -> int:
    """Pixels of a line of text, with the space to the next one."""
    return round(1.5 * text_size(width))


def line_width(width: int) -> int:
    return max(1, round(width / 320))


def with_strip(image: np.ndarray, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """The picture with white space for so many lines of text below it, and a pen for both."""
    height, width = image.shape[:2]
    strip = round((lines + 0.5) * line_height(width)) if lines else 0
    canvas = Image.new("RGB", (width, height + strip), WHITE)
    canvas.paste(Image.fromarray(image))
    return canvas, ImageDraw.Draw(canvas)


def blank(image: np.ndarray, lines: int) -> np.ndarray:
    """White, of the size of `with_strip`: where there is nothing to draw."""
    return np.array(with_strip(np.full_like(image, 255), lines)[0])


def fitted(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A map of classes or depths (h x w) at the picture's size; nearest neighbour, since values must not mix."""
    height, width = image.shape[:2]
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)


def blended(image: np.ndarray, colours: np.ndarray, where: np.ndarray, share: float) -> np.ndarray:
    """`share` of the colours and the rest of the image, where the mask (H x W) says so."""
    mixed = np.rint(share * colours.astype(np.float32) + (1 - share) * image).astype(np.uint8)
    return np.where(where[..., None], mixed, image)


def greyed(image: np.ndarray, darkest: int, brightest: int) -> np.ndarray:
    """The image in grey, its levels moved into a range on which coloured things are seen."""
    grey = darkest + (brightest - darkest) * (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, 2)


def legend(
    pen: ImageDraw.ImageDraw, entries: Sequence[tuple[str, Colour]], corner: tuple[int, int], width: int, lines: int
) -> None:
    """Coloured squares with names, in columns as wide as their names from `corner`; says how many did not fit."""
    size, line, columns = text_size(width), line_height(width), 4
    room = columns * lines
    if len(entries) > room:
        entries = [*entries[: room - 1], (f"and {len(entries) - room + 1} more", WHITE)]
    parts = [entries[i * lines : (i + 1) * lines] for i in range(columns)]
    needed = [2.2 * size + max((font(size).getlength(name) for name, _ in part), default=0) for part in parts]
    x, spare = corner[0] + size // 4, (width - sum(needed)) / columns
    for part, column in zip(parts, needed, strict=True):
        for i, (name, colour) in enumerate(part):
            y = corner[1] + i * line + line // 4
            pen.rectangle((x, y, x + size, y + size), fill=colour, outline=BLACK if colour != WHITE else WHITE)
            pen.text((x + 1.4 * size, y + size / 2), name, fill=BLACK, font=font(size), anchor="lm")
        x += round(column + spare)


class Tags:
    """Names of boxes on a picture: each where it covers no other one, if there is such a place."""

    def __init__(self, pen: ImageDraw.ImageDraw, size: int):
        self.pen, self.size = pen, size
        self.taken: list[tuple[float, float, float, float]] = []

    def add(self, text: str, box: tuple[float, float, float, float], colour: Colour) -> None:
        """Above the box, else below it, else at one of its other sides."""
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font=font(self.size))
        width, height = right - left + 4, bottom - top + 4
        places = [(box[0], box[1] - height), (box[0], box[3]), (box[2] - width, box[1] - height)]
        places += [(box[2], box[1]), (box[0] - width, box[1]), (box[0], box[1])]
        rectangles = [self._within(x, y, width, height) for x, y in places]
        free = [rectangle for rectangle in rectangles if not any(_meet(rectangle, other) for other in self.taken)]
        x, y, x1, y1 = (free or rectangles)[0]
        self.taken.append((x, y, x1, y1))
        self.pen.rectangle((x, y, x1, y1), fill=colour)
        self.pen.text((x + 2 - left, y + 2 - top), text, fill=readable_on(colour), font=font(self.size))

    def _within(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Moved to where the picture has room for it."""
        room = self.pen.im.size
        x, y = min(max(x, 0), max(room[0] - width, 0)), min(max(y, 0), max(room[1] - height, 0))
        return x, y, x + width, y + height


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def readable_on(colour: Colour) -> Colour:
    """Black or white."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def dashed_line(
    pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: Colour, width: int, dash: float = 8
) -> None:
    """A line through the points, drawn and left out in turns of `dash` pixels."""
    for (x0, y0), (x1, y1) in pairwise(points):
        length = max(abs(x1 - x0), abs(y1 - y0))
        steps = max(1, int(length / dash))
        for i in range(0, steps, 2):
            a, b = i / steps, min((i + 1) / steps, 1)
            pen.line((x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0)), colour, width)


def dashed_rectangle(
    pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, width: int
) -> None:
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    dashed_line(pen, corners, colour, width, dash=3.0 * width + 2)
