"""Labels that are not yet in a processed root, drawn over their images: what preprocessing/folders.py --check shows."""

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from datasets.depth_maps import UNITS_PER_METRE
from datasets.folders.colours import rgb_of
from datasets.folders.found import Job
from datasets.folders.recipe import NO_CLASS
from datasets.folders.stages import FolderStage, KindSource
from datasets.frames import Frame
from errors import reason_of
from progress import warn
from visual.drawing import Tags, blank, blended, greyed, legend, line_width, text_size, with_strip
from visual.sheet import Cell, sheet

WIDTH = 480  # px of each picture
LEGEND_LINES = 4
SPARSE = 0.3  # measurements on a smaller share of the pixels are drawn as dots


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
    jobs = {kind: {job.frame: job for job in source.jobs} for kind, source in sources.items()}
    failures, rows = 0, {}
    for frame in chosen(jobs, count):
        contents = {kind: _content(stage, jobs[kind].get(frame)) for kind, stage in stages.items()}
        failures += sum(isinstance(content, ValueError) for content in contents.values())
        image = contents["camera"]
        ground = image if isinstance(image, np.ndarray) else np.full((shown[1], shown[0], 3), 255, np.uint8)
        rows[frame.in_dataset] = [_cell(kind, content, ground, settings[kind]) for kind, content in contents.items()]
    return sheet(list(stages), rows), failures


def chosen(jobs: Mapping[str, Mapping[Frame, Job]], count: int) -> list[Frame]:
    """So many frames, evenly among those with most kinds of label; and one of each kind that none of them has."""
    kinds = {frame: sum(frame in found for found in jobs.values()) for frame in jobs["camera"]}
    richest = sorted(frame for frame in kinds if kinds[frame] == max(kinds.values()))
    places = np.linspace(0, len(richest) - 1, min(count, len(richest)), dtype=int)
    frames = [richest[place] for place in places]
    for found in jobs.values():
        if not any(frame in found for frame in frames):
            frames.append(min(found))
    return frames


def _content(stage: FolderStage, job: Job | None) -> Any:
    """The label as it would be written, None where there is none, or the ValueError that says what is wrong."""
    if job is None:
        return None
    try:
        return stage.convert(job).content
    except Exception as error:  # whatever a broken file raises: it is named, and the others are shown
        warn(f"failed: {job.path}: {reason_of(error)}")
        return ValueError(reason_of(error))


def _cell(kind: str, content: Any, ground: np.ndarray, settings: dict[str, Any]) -> Cell:
    if isinstance(content, ValueError):
        return Cell(blank(ground, 0), "can't be read")
    if content is None:
        return Cell(blank(ground, 0), "no label")
    if isinstance(content, bytes):
        content = json.loads(content)
    return {
        "camera": lambda: Cell(content),
        "segmentation": lambda: _classes(content, ground, settings),
        "depth": lambda: _depth(content, ground, settings["range"]),
        "box": lambda: _boxes(content, ground, settings),
        "steering": lambda: Cell(ground, ", ".join(f"{angle:+.1f}°" for angle in content["angles"])),
    }[kind]()


def _classes(label: np.ndarray, image: np.ndarray, settings: dict[str, Any]) -> Cell:
    """Classes in their colours, and a legend of those present, the commonest first."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(settings["colours"])] = [rgb_of(colour) for colour in settings["colours"]]
    picture, pen = with_strip(blended(image, palette[label], label != NO_CLASS, 0.6), LEGEND_LINES)
    counts = np.bincount(label[label != NO_CLASS], minlength=len(settings["classes"]))
    present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    entries = [(settings["classes"][index], rgb_of(settings["colours"][index])) for index in present]
    legend(pen, entries, (0, image.shape[0]), image.shape[1], LEGEND_LINES)
    return Cell(np.array(picture), f"{np.mean(label == NO_CLASS):.0%} without a class")


def _depth(label: np.ndarray, image: np.ndarray, bounds: list[float]) -> Cell:
    """Metres by colour, logarithmic over the range; near is bright."""
    metres, measured = label / UNITS_PER_METRE, label > 0
    place = np.log(np.clip(metres, *bounds) / bounds[0]) / np.log(bounds[1] / bounds[0])
    colours = cv2.applyColorMap(255 - np.rint(255 * place).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    caption = f"{metres[measured].min():.1f} to {metres[measured].max():.1f} m on {measured.mean():.0%} of the pixels"
    if measured.mean() >= SPARSE:
        return Cell(np.where(measured[..., None], colours, image), caption)
    picture = greyed(image, 120, 230)
    for row, column in zip(*np.nonzero(measured), strict=True):
        cv2.circle(picture, (int(column), int(row)), 1, colours[row, column].tolist(), cv2.FILLED)
    return Cell(picture, caption)


def _boxes(label: dict[str, Any], image: np.ndarray, settings: dict[str, Any]) -> Cell:
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    tags = Tags(pen, round(0.8 * text_size(canvas.width)))
    scale = np.array([(canvas.width - 1) / label["size"][0], (canvas.height - 1) / label["size"][1]] * 2)
    colours = dict(zip(settings["classes"], map(rgb_of, settings["colours"]), strict=True))
    for box in label["boxes"]:
        edges = tuple((np.array(box["bbox"]) * scale).tolist())
        pen.rectangle(edges, outline=colours[box["class"]], width=line_width(canvas.width))
        tags.add(box["class"], edges, colours[box["class"]])
    return Cell(np.array(canvas), f"{len(label['boxes'])} boxes")
