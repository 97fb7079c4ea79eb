"""Labels that are not yet in a processed root, drawn over their images: what preprocessing/folders.py --check shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.folders.found import Job
from datasets.folders.stages import FolderStage, KindSource
from datasets.frames import Frame
from datasets.processed import CAMERA
from datasets.spec import LabelSpec
from errors import reason_of
from progress import warn
from tasks import TASKS
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions, Picture
from visual.sheet import Cell, sheet

WIDTH = 480  # px of each picture


def draw_found(
    stages: Mapping[str, FolderStage], sources: Mapping[str, KindSource], size: tuple[int, int], count: int
) -> tuple[np.ndarray, int]:
    """A row a frame, a column a kind; and how many files could not be read (each is named on stderr).

    The pictures have the shape of `size` (W, H).
    """
    shown = WIDTH, max(1, round(WIDTH * size[1] / size[0]))
    settings = {kind: stage.settings(shown, sources[kind]) for kind, stage in stages.items()}
    for kind, stage in stages.items():
        stage.prepare(settings[kind])
    pictures = {kind: _picture(kind, settings[kind]) for kind in stages}
    jobs = {kind: {job.frame: job for job in source.jobs} for kind, source in sources.items()}
    failures, rows = 0, {}
    for frame in chosen(jobs, count):
        contents = {kind: _content(stage, jobs[kind].get(frame)) for kind, stage in stages.items()}
        failures += sum(isinstance(content, ValueError) for content in contents.values())
        image = contents[CAMERA]
        ground = image if isinstance(image, np.ndarray) else np.full((shown[1], shown[0], 3), 255, np.uint8)
        rows[frame.in_dataset] = [_cell(content, ground, pictures[kind]) for kind, content in contents.items()]
    return sheet(list(stages), rows), failures


def chosen(jobs: Mapping[str, Mapping[Frame, Job]], count: int) -> list[Frame]:
    """So many frames, evenly among those with most kinds of label; and one of each kind that none of them has."""
    kinds = {frame: sum(frame in found for found in jobs.values()) for frame in jobs[CAMERA]}
    richest = sorted(frame for frame in kinds if kinds[frame] == max(kinds.values()))
    places = np.linspace(0, len(richest) - 1, min(count, len(richest)), dtype=int)
    frames = [richest[place] for place in places]
    for found in jobs.values():
        if not any(frame in found for frame in frames):
            frames.append(min(found))
    return frames


def _picture(kind: str, settings: Mapping[str, Any]) -> Picture | None:
    """Of a kind of label; None for the image itself."""
    return None if kind == CAMERA else picture_of(TASKS[kind](spec=LabelSpec.of(settings, kind)))


def _content(stage: FolderStage, job: Job | None) -> Any:
    """The label as it would be written, None where there is none, or the ValueError that says what is wrong."""
    if job is None:
        return None
    try:
        return stage.convert(job).content
    except Exception as error:  # whatever a broken file raises: it is named, and the others are shown
        warn(f"failed: {job.path}: {reason_of(error)}")
        return ValueError(reason_of(error))


def _cell(content: Any, ground: np.ndarray, picture: Picture | None) -> Cell:
    empty = np.full_like(ground, 255) if picture is None else picture.blank(ground, DrawOptions())
    if isinstance(content, ValueError):
        return Cell(empty, "can't be read")
    if content is None:
        return Cell(empty, "no label")
    if picture is None:
        return Cell(content)
    target = picture.task.collate([picture.task.parse(content)])
    return Cell(picture.draw(ground, None, target, DrawOptions()), picture.caption(target))
