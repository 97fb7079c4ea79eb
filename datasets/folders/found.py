"""What a recipe finds below a data root: the images, and for each kind the labels that belong to them."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datasets.files import read_bytes, read_json
from datasets.folders.patterns import SCENE, Pattern
from datasets.folders.recipe import Box, Recipe, Table
from datasets.frames import Frame
from errors import UserError
from strict import DataModel, checked


class Job(NamedTuple):
    """A frame's label: the file that holds it, the frame's image, and what the file says where it tells of many."""

    frame: Frame
    path: Path
    image: Path
    entries: Any = None

    @property
    def scene(self) -> str:
        return self.frame.scene


@dataclass
class Found:
    """The frames of a data set and the labels of each kind, those that have an image."""

    root: Path
    images: dict[Frame, Path]
    jobs: dict[str, list[Job]]
    """Kind -> labels, sorted by frame; the images themselves are the kind camera."""
    without_image: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> names of the labels without an image, in the order in which they were found."""
    splits: dict[Frame, str] = field(default_factory=dict)
    """What {split} stands for, where a pattern has it."""


def find(recipe: Recipe, root: Path, source: str) -> Found:
    """Look at every pattern and table of the recipe. UserError, begun with `source`: no image, no label of a kind,
    two files for one frame, or a table that can't be read."""
    found = Found(root, {}, {})
    found.images = _files(recipe, "camera", recipe.image.files, found, source)
    found.jobs["camera"] = [Job(frame, path, path) for frame, path in sorted(found.images.items())]
    names = FrameNames(recipe, found)
    for kind in recipe.kinds()[1:]:
        section = getattr(recipe, kind)
        if isinstance(section, Table):
            labels = list(_of_table(section, names, source))
        elif isinstance(section, Box) and section.format == "coco":
            labels = list(_of_coco(section, names, source))
        else:
            files = _files(recipe, kind, section.files, found, source)
            labels = [(frame, frame.in_dataset, path, None) for frame, path in files.items()]
        _add(found, kind, labels, source)
    return found


def _files(recipe: Recipe, kind: str, patterns: list[str], found: Found, source: str) -> dict[Frame, Path]:
    """Each frame's file. UserError: two for one frame, or none at all."""
    files: dict[Frame, Path] = {}
    for text in patterns:
        for match in Pattern(text).find(found.root):
            frame = Frame(recipe.name, match.scene, match.id)
            if frame in files:
                raise UserError(
                    f"{source}: {kind}: two files for frame {frame.in_dataset}: {files[frame]} and {match.path}; "
                    "make the patterns tell them apart"
                )
            files[frame] = match.path
            if match.split and found.splits.setdefault(frame, match.split) != match.split:
                raise UserError(f"{source}: {frame.in_dataset} lies in the splits {found.splits[frame]}, {match.split}")
    if not files:
        raise UserError(
            f"{source}: {kind}: no file below {found.root} fits {' or '.join(patterns)} (--data-root, or the pattern)"
        )
    return files


Labels = Iterable[tuple[Frame | None, str, Path, Any]]  # frame, its name in the source, file, entries


def _add(found: Found, kind: str, labels: Labels, source: str) -> None:
    """Keep the labels that have an image, and name the others. UserError: none has one, or one has two."""
    entries: dict[Frame, Job] = {}
    found.without_image[kind] = []
    for frame, name, path, content in labels:
        if frame is None or frame not in found.images:
            found.without_image[kind].append(name)
        elif frame in entries:
            raise UserError(
                f"{source}: {kind}: two labels for frame {frame.in_dataset}, in {entries[frame].path}, {path}"
            )
        else:
            entries[frame] = Job(frame, path, found.images[frame], content)
    if not entries:
        first = ", ".join(found.without_image[kind][:3]) or "it names none at all"
        raise UserError(f"{source}: {kind}: no label belongs to an image ({first}); compare the patterns")
    found.jobs[kind] = [entries[frame] for frame in sorted(entries)]


# ---- frames by the names that tables and lists give them --------------------------------------------------------


class FrameNames:
    """Finds the frame that a table or list means: by its image's path or name, by SCENE/ID, or by its id alone."""

    def __init__(self, recipe: Recipe, found: Found):
        self.dataset, self.root, self.images = recipe.name, found.root, found.images
        self.patterns = [Pattern(text) for text in recipe.image.files]
        self.by_id: dict[str, list[Frame]] = defaultdict(list)
        for frame in found.images:
            self.by_id[frame.id].append(frame)

    def frame(self, text: str, scene: str | None = None) -> Frame | None:
        """The frame (of that scene); None: no image. ValueError: several scenes have such a frame."""
        parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            return None
        for start in range(len(parts)):  # what a path begins with may be of another machine
            for pattern in self.patterns:
                match = pattern.match("/".join(parts[start:]))
                if match and (frame := self._known(match.get("scene", SCENE), match["id"], scene)):
                    return frame
        if len(parts) == 2 and (frame := self._known(parts[0], parts[1], scene)):
            return frame
        for pattern in self.patterns:
            match = pattern.match_name(parts[-1])
            if match and "id" in match and (frame := self._only(match["id"], match.get("scene", scene))):
                return frame
        return self._only(parts[-1], scene) if len(parts) == 1 else None

    def _known(self, scene: str, id: str, wanted: str | None) -> Frame | None:
        frame = Frame(self.dataset, scene, id)
        return frame if frame in self.images and wanted in (None, scene) else None

    def _only(self, id: str, scene: str | None) -> Frame | None:
        frames = [frame for frame in self.by_id.get(id, ()) if scene in (None, frame.scene)]
        if len(frames) > 1:
            names = ", ".join(frame.in_dataset for frame in frames[:3])
            raise ValueError(f"{id!r} may mean {names}; name the scene")
        return frames[0] if frames else None


def rows_of(table: Table, names: FrameNames, source: str) -> Iterator[tuple[Frame | None, Path, dict[str, str]]]:
    """Each row of a CSV file (one a scene, if its path has {scene}) with the frame that it means.

    UserError: no such file, not a CSV file, a column that is not there.
    """
    matches = list(Pattern(table.csv).find(names.root))
    if not matches:
        raise UserError(f"{source}: no file {names.root / table.csv}")
    has_scene = "scene" in Pattern(table.csv).placeholders
    for match in matches:
        for number, row in _read_csv(match.path, table.columns):
            if table.frame not in row:
                raise UserError(f"{match.path} has no column {table.frame!r}; there are {', '.join(row)}")
            try:
                yield names.frame(row[table.frame], match.scene if has_scene else None), match.path, row
            except ValueError as error:
                raise UserError(f"{match.path}, line {number}: {error}") from None


def _read_csv(path: Path, columns: list[str] | None) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        rows = 0
        with io.StringIO(read_bytes(path).decode("utf-8-sig"), newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if columns is None:
                    columns = cells
                elif any(cells) and cells != columns:
                    rows += 1
                    yield reader.line_num, dict(zip(columns, cells + [""] * len(columns), strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} can't be read as CSV: {getattr(error, 'strerror', None) or error}") from None
    if not rows:
        raise UserError(f"{path} has no row below its header")


def _of_table(table: Any, names: FrameNames, source: str) -> Labels:
    """Each frame with the cells that its rows have in the table's column `angle`."""
    cells: dict[Frame, list[str]] = defaultdict(list)
    paths: dict[Frame, Path] = {}
    for frame, path, row in rows_of(table, names, source):
        if table.angle not in row:
            raise UserError(f"{path} has no column {table.angle!r}; there are {', '.join(row)}")
        if frame is None:
            yield None, row[table.frame], path, None
        else:
            cells[frame].append(row[table.angle])
            paths[frame] = path
    for frame, values in cells.items():
        yield frame, frame.in_dataset, paths[frame], values


class CocoCategory(DataModel):
    id: int | str
    name: str


class CocoImage(DataModel):
    id: int | str
    file_name: str


class CocoAnnotation(DataModel):
    image_id: int | str
    category_id: int | str
    bbox: Any = None  # a bad one makes its frame fail, not the file
    iscrowd: bool | int = False


class CocoFile(DataModel):
    """What is taken of COCO's JSON."""

    categories: list[CocoCategory]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]


def _of_coco(section: Box, names: FrameNames, source: str) -> Labels:
    """Each image of a COCO file with its boxes: [(class, [x, y, width, height])]; crowds are left out."""
    matches = [match for text in section.files for match in Pattern(text).find(names.root)]
    if not matches:
        raise UserError(f"{source}: box: no file below {names.root} fits {' or '.join(section.files)}")
    has_scene = any("scene" in Pattern(text).placeholders for text in section.files)
    for match in matches:
        try:
            content = checked(CocoFile, read_json(match.path))
            categories = {category.id: category.name for category in content.categories}
            boxes: dict[Any, list[tuple[str, Any]]] = {image.id: [] for image in content.images}
            for annotation in content.annotations:
                if annotation.image_id not in boxes:
                    raise ValueError(f"a box of image {annotation.image_id}, which is not among the images")
                if not annotation.iscrowd:
                    name = categories.get(annotation.category_id, f"category {annotation.category_id}")
                    boxes[annotation.image_id].append((name, annotation.bbox))
            for image in content.images:
                frame = names.frame(image.file_name, match.scene if has_scene else None)
                yield frame, image.file_name, match.path, boxes[image.id]
        except ValueError as error:
            raise UserError(f"{match.path} is not COCO's JSON: {error}") from None
