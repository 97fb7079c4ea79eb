"""Writing pictures: of frames each column in a file of its own, and one sheet of all."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.layout import ResultsDir
from visual.page import Page
from visual.pictures.base import DrawOptions
from visual.sheet import laid_out
from visual.viewer import View

LONGEST = 200  # characters of a folder's name


def write_picture(path: Path, picture: np.ndarray) -> None:
    """As PNG."""
    Page().save_picture(picture, path)


def write_frames(
    views: Sequence[View], names: Sequence[str], options: DrawOptions, page: Page, out: Path, task_name: str
) -> Path:
    """The pictures of each frame in one folder a task, and the sheet of all -> the sheet."""
    for view, name in zip(views, names, strict=True):
        for task in view.tasks.values():
            results = ResultsDir(out, task.name, name, page.format)
            for column, cell in zip(view.columns(), view.cells(task, options, page.column_width), strict=True):
                page.save_picture(cell.picture, results.picture(column))
    layout = laid_out([view.block(options, page) for view in views], page.width, page.letters)
    return page.save_sheet(layout, ResultsDir(out, task_name, joined(names), page.format).sheet)


def joined(names: Sequence[str]) -> str:
    """One folder's name for several frames."""
    whole = "+".join(names)
    if len(whole) <= LONGEST:
        return whole
    return f"{names[0]}+{len(names) - 1}-more-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
