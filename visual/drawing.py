"""What pictures share: text, legends, dashed lines. Pictures are uint8 H x W x 3, RGB."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom, px

BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (110, 110, 110)
MOST_COLUMNS = 4  # of a legend


def text_size(width: int) -> int:
    """Pixels of letters that are readable where the picture is as wide as a column of a paper: 6.5 points on 8.1 cm."""
    return max(11, round(width / 36))


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow brings it: no fonts of the machine are needed


def line_height(size: int) -> int:
    """Pixels of a line of text of this size, with the space to the next one."""
    return round(1.5 * size)


def line_width(size: int) -> int:
    """Of what is drawn beside letters of this size: 0.7 points beside 6.5."""
    return max(1, round(size / 9))


def with_strip(image: np.ndarray, lines: float, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """The picture with white space for so many lines of text of this size below it, and a pen for both."""
    height, width = image.shape[:2]
    strip = round((lines + 0.5) * line_height(size)) if lines else 0
    canvas = Image.new("RGB", (width, height + strip), WHITE)
    canvas.paste(Image.fromarray(image))
    return canvas, ImageDraw.Draw(canvas)


def blank(image: np.ndarray, lines: float, size: int) -> np.ndarray:
    """White, of the size of `with_strip`: where there is nothing to draw."""
    return np.array(with_strip(np.full_like(image, 255), lines, size)[0])


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
    pen: ImageDraw.ImageDraw,
    entries: Sequence[tuple[str, Colour]],
    corner: tuple[int, int],
    width: int,
    lines: int,
    size: int,
) -> None:
    """Coloured squares with names, in columns as wide as their names from `corner`; says how many did not fit.

    The letters are a fifth smaller where that makes room for more of them.
    """
    line = line_height(size)
    choices = {letters: _columns_within(entries, width, lines, letters) for letters in (size, round(0.8 * size))}
    size, parts = max(choices.items(), key=lambda choice: sum(map(len, choice[1])))  # of equals the first
    needed = [_column_width(part, size) for part in parts]
    x, spare = corner[0] + size // 4, max(0, (width - sum(needed)) / max(len(parts), 1))
    for part, column in zip(parts, needed, strict=True):
        for i, (name, colour) in enumerate(part):
            y = corner[1] + i * line + line // 4
            pen.rectangle((x, y, x + size, y + size), fill=colour, outline=BLACK if colour != WHITE else WHITE)
            pen.text((x + 1.4 * size, y + size / 2), name, fill=BLACK, font=font(size), anchor="lm")
        x += round(column + spare)


def _columns_within(
    entries: Sequence[tuple[str, Colour]], width: int, lines: int, size: int
) -> list[Sequence[tuple[str, Colour]]]:
    """As many columns as the width has room for, at least one."""
    for columns in range(MOST_COLUMNS, 0, -1):
        parts = _columns(entries, columns, lines)
        if sum(_column_width(part, size) for part in parts) <= width:
            break
    return parts


def _column_width(part: Sequence[tuple[str, Colour]], size: int) -> float:
    return 2.2 * size + max(font(size).getlength(name) for name, _ in part)


def _columns(entries: Sequence[tuple[str, Colour]], columns: int, lines: int) -> list[Sequence[tuple[str, Colour]]]:
    """A legend's entries, those that fit and how many do not."""
    room = columns * lines
    if len(entries) > room:
        entries = [*entries[: room - 1], (f"and {len(entries) - room + 1} more", WHITE)]
    return [entries[i : i + lines] for i in range(0, len(entries), lines)]


def note(pen: ImageDraw.ImageDraw, text: str, size: int) -> None:
    """Words in the picture's corner, on white."""
    left, top, right, bottom = pen.textbbox((size / 2, size / 2), text, font=font(size))
    pen.rectangle((left - size / 4, top - size / 4, right + size / 4, bottom + size / 4), fill=WHITE)
    pen.text((size / 2, size / 2), text, fill=BLACK, font=font(size))


class Tags:
    """Names of boxes on a picture, none over another: one without room is left out. They hide little of the boxes."""

    def __init__(self, pen: ImageDraw.ImageDraw, size: int, boxes: Sequence[Rectangle]):
        """boxes: all that are on the picture."""
        self.pen, self.size, self.boxes = pen, size, boxes
        self.taken: list[Rectangle] = []

    def add(self, text: str, box: Rectangle, colour: Colour) -> None:
        """At the box: above, below, at its sides or inside, where there is room."""
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font=font(self.size))
        width, height = right - left + 4, bottom - top + 4
        places = [self._within(x, y, width, height) for x, y in _places(box, width, height)]
        free = [place for place in places if not any(_common(place, other) for other in self.taken)]
        if free:
            place = min(free, key=self._hidden)  # of equals the first
            self.taken.append(place)
            self.pen.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=colour)
            self.pen.text((place[0] + 2 - left, place[1] + 2 - top), text, readable_on(colour), font(self.size))

    def _hidden(self, place: Rectangle) -> float:
        """How much a tag there hides: of each box its share, in tenths, so that a little counts as nothing."""
        return sum(int(10 * _common(place, box) / max(1, _area(box))) for box in self.boxes)

    def _within(self, x: float, y: float, width: float, height: float) -> Rectangle:
        """Moved to where the picture has room for it."""
        room = self.pen.im.size
        x, y = min(max(x, 0), max(room[0] - width, 0)), min(max(y, 0), max(room[1] - height, 0))
        return x, y, x + width, y + height


def _places(box: Rectangle, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Upper left corners of a tag of this size that touches the box, the best first."""
    left, top, right, bottom = box
    yield from [(left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom)]
    yield from [(right, top), (left - width, top), (left, top), (right - width, top)]
    for y in np.arange(top, bottom, height):
        yield from [(right, y), (left - width, y)]
    for y in np.arange(top, bottom, height):
        yield left, y


def _common(a: Rectangle, b: Rectangle) -> float:
    """The area that both cover, px."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def _area(box: Rectangle) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def readable_on(colour: Colour) -> Colour:
    """Black or white."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def dashed_line(
    pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: Colour, width: int, dash: float = 8
) -> None:
    """A line through the points, drawn and left out in turns of `dash` pixels of its length."""
    gone = 0.0  # of the line before this piece
    for (x0, y0), (x1, y1) in pairwise(points):
        length, start = math.hypot(x1 - x0, y1 - y0), 0.0
        while start < length:
            place = (gone + start) % (2 * dash)
            end = min(length, start + max(0.5, dash - place % dash))
            if place < dash:
                a, b = start / length, end / length
                piece = x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0)
                pen.line(piece, colour, width)
            start = end
        gone += length


def dashed_rectangle(pen: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, width: int) -> None:
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for side in pairwise(corners):  # each begins with a dash, so that corners are seen
        dashed_line(pen, side, colour, width, dash=3.0 * width + 2)
