"""Pictures side by side: a row a task, a column the camera, the truth or a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from visual.drawing import BLACK, GREY, WHITE, font, line_height, text_size


@dataclass(frozen=True)
class Cell:
    """A picture and the line above it."""

    picture: np.ndarray
    caption: str = ""


def sheet(columns: Sequence[str], rows: Mapping[str, Sequence[Cell]]) -> np.ndarray:
    """uint8 H x W x 3. rows: task -> a cell for every column. All pictures have the same width.

    The size depends on the number of columns and the sizes of the pictures alone.
    """
    width = next(iter(rows.values()))[0].picture.shape[1]
    size, line, gap = text_size(width), line_height(width), max(2, width // 60)
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
