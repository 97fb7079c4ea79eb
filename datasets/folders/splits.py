"""The official split and the times of a data set in folders."""

import math
import re
from collections import defaultdict
from pathlib import Path

from datasets.files import read_bytes
from datasets.folders.found import Found, FrameNames, rows_of
from datasets.folders.recipe import CsvTimes, FolderSplit, IdTimes, ListSplit, Recipe, TimeSplit
from datasets.frames import Frame
from datasets.spec import SPLITS
from datasets.splits import split_by_time
from errors import UserError


def times_of(recipe: Recipe, found: Found, source: str) -> dict[Frame, float]:
    """Seconds of the frames whose time the recipe tells; {} where it tells of none. UserError: no number there."""
    if recipe.times is None:
        return {}
    if isinstance(recipe.times, IdTimes):
        return {frame: _seconds_in(frame, recipe.times, source) for frame in found.images}
    return _times_in_table(recipe.times, FrameNames(recipe, found), source)


def _seconds_in(frame: Frame, times: IdTimes, source: str) -> float:
    match = re.search(times.id, frame.id)
    try:
        if match is None:
            raise ValueError("no match")
        return sum(float(group) * factor for group, factor in zip(match.groups(), times.factors, strict=True))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: times.id {times.id!r}: no time in the id of {frame.in_dataset}: {error}") from None


def _times_in_table(table: CsvTimes, names: FrameNames, source: str) -> dict[Frame, float]:
    times = {}
    for frame, path, row in rows_of(table, names, source):
        if table.seconds not in row:
            raise UserError(f"{path} has no column {table.seconds!r}; there are {', '.join(row)}")
        if frame is not None and row[table.seconds]:
            try:
                times[frame] = float(row[table.seconds]) * table.factor
            except ValueError:
                times[frame] = math.nan
            if not math.isfinite(times[frame]):
                raise UserError(f"{path}: {row[table.seconds]!r} of {frame.in_dataset} is not a time")
    return times


def split_of(recipe: Recipe, found: Found, times: dict[Frame, float], source: str) -> dict[str, list[str]] | None:
    """train, val and test -> frames as SCENE/ID, sorted; None: the recipe gives none."""
    if recipe.split is None:
        return None
    if isinstance(recipe.split, FolderSplit):
        parts = _by_folders(recipe.split, found, source)
    elif isinstance(recipe.split, ListSplit):
        parts = _by_lists(recipe.split, FrameNames(recipe, found), source)
    else:
        parts = _by_time(recipe.split, found, times)
    return {part: [frame.in_dataset for frame in sorted(parts[part])] for part in SPLITS}


def _by_folders(split: FolderSplit, found: Found, source: str) -> dict[str, list[Frame]]:
    folders = defaultdict(list)
    for frame in found.images:
        folders[found.splits.get(frame, frame.scene)].append(frame)
    for part in SPLITS:
        for name in getattr(split, part):
            if name not in folders:
                there = ", ".join(sorted(folders))
                raise UserError(f"{source}: split.{part}: no images in a folder {name}; there are {there}")
    return {part: [frame for name in getattr(split, part) for frame in folders[name]] for part in SPLITS}


def _by_lists(split: ListSplit, names: FrameNames, source: str) -> dict[str, list[Frame]]:
    lists = {part: getattr(split, part) for part in SPLITS}
    parts = {part: _listed(names.root / name, names) if name else [] for part, name in lists.items()}
    part_of: dict[Frame, str] = {}
    for part, frames in parts.items():
        for frame in frames:
            if part_of.setdefault(frame, part) != part:
                raise UserError(f"{source}: split: {frame.in_dataset} is in {part_of[frame]} and in {part}")
    return {part: list(dict.fromkeys(frames)) for part, frames in parts.items()}


def _listed(path: Path, names: FrameNames) -> list[Frame]:
    """The frames of a list file. UserError: it can't be read, or a line names no image."""
    try:
        lines = read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from None
    frames = []
    for number, line in enumerate(lines, start=1):
        if not (words := line.split()):
            continue
        try:
            frame = names.frame(words[0])
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if frame is None:
            raise UserError(f"{path}, line {number}: {words[0]} is no image of the recipe")
        frames.append(frame)
    return frames


def _by_time(split: TimeSplit, found: Found, times: dict[Frame, float]) -> dict[str, list[Frame]]:
    cut = split_by_time(found.images, times, split.fractions, split.gap_frames, gap_seconds=0)
    return {name: list(cut.of(name)) for name in SPLITS}
