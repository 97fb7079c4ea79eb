"""Pictures side by side: a table of them, or frames below each other with what belongs to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from visual.drawing import BLACK, GREY, WHITE, Colour, font, line_height, text_size


@dataclass(frozen=True)
class Cell:
    """A picture and the line above it."""

    picture: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Block:
    """The pictures of one frame: rows of cells of one width, and a line above them."""

    heading: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Text:
    """A line whose left end is at half its height at (x, y); `size`: of its letters. All in px."""

    x: float
    y: float
    text: str
    size: int
    colour: Colour


@dataclass(frozen=True)
class Layout:
    """What stands where on a sheet, in px."""

    width: int
    height: int
    pictures: list[tuple[int, int, np.ndarray]]  # left, top, uint8 H x W x 3
    texts: list[Text]

    def raster(self) -> np.ndarray:
        """uint8 H x W x 3."""
        canvas = Image.new("RGB", (self.width, self.height), WHITE)
        pen = ImageDraw.Draw(canvas)
        for left, top, picture in self.pictures:
            canvas.paste(Image.fromarray(picture), (left, top))
        for text in self.texts:
            pen.text((text.x, text.y), text.text, text.colour, font(text.size), anchor="lm")
        return np.array(canvas)


def cell_width(width: int, columns: int) -> int:
    """Of a picture where so many share the width of a sheet."""
    return (width - (columns - 1) * _gap(width)) // columns


def laid_out(blocks: Sequence[Block], width: int, size: int) -> Layout:
    """Blocks below each other on a sheet of this width, with letters of this size (smaller where a line is long).

    The height depends on the sizes of the pictures alone.
    """
    line, gap, top = line_height(size), _gap(width), 0
    pictures, texts = [], []
    for block in blocks:
        texts.append(_fitting(0, top + line / 2, block.heading, size, BLACK, width))
        top += line
        for row in block.rows:
            left = 0
            for cell in row:
                room = cell.picture.shape[1]
                texts.append(_fitting(left, top + line / 2, cell.caption, size, GREY, room))
                pictures.append((left, top + line, cell.picture))
                left += room + gap
            top += line + max(cell.picture.shape[0] for cell in row) + gap
        top += line // 2 if block is not blocks[-1] else 0
    return Layout(width, top, pictures, texts)


def _fitting(x: float, y: float, text: str, size: int, colour: Colour, room: float) -> Text:
    """In smaller letters where it is wider than its room."""
    needed = font(size).getlength(text)
    return Text(x, y, text, size if needed <= room else max(1, int(size * room / needed)), colour)


def _gap(width: int) -> int:
    return max(2, width // 150)


def sheet(columns: Sequence[str], rows: Mapping[str, Sequence[Cell]]) -> np.ndarray:
    """uint8 H x W x 3. rows: task -> a cell for every column. All pictures have the same width.

    The size depends on the number of columns and the sizes of the pictures alone.
    """
    width = next(iter(rows.values()))[0].picture.shape[1]
    size, gap = text_size(width), max(2, width // 60)
    line = line_height(size)
    gutter = max(round(font(size).getlength(task)) for task in rows) + 2 * gap
    heights = {task: max(cell.picture.shape[0] for cell in cells) for task, cells in rows.items()}
    total = line + gap + sum(line + height + gap for height in heights.values())
    canvas = Image.new("RGB", (gutter + len(columns) * (width + gap), total), WHITE)
    pen = ImageDraw.Draw(canvas)
    for i, column in enumerate(columns):
        pen.text((gutter + i * (width + gap) + width / 2, line / 2), column, BLACK, font(size), anchor="mm")
    top = line + gap
    for task, cells in rows.items():
        pen.text((gap, top + line + heights[task] / 2), task, BLACK, font(size), anchor="lm")
        for i, cell in enumerate(cells):
            left = gutter + i * (width + gap)
            pen.text((left, top + line / 2), cell.caption, GREY, font(size), anchor="lm")
            canvas.paste(Image.fromarray(cell.picture), (left, top + line))
        top += line + heights[task] + gap
    return np.array(canvas)
