"""The recipe of a data set in folders: which files it has and what they mean. docs/data.md shows how to write one.

A kind that the recipe does not name is absent. Paths are patterns below the data root (datasets/folders/patterns.py).
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator
from pydantic import model_validator as after

from datasets.folders.patterns import Pattern
from datasets.spec import IGNORE
from strict import StrictModel

MAX_CLASSES = 255
COLOUR = re.compile(r"#[0-9a-f]{6}")
SUFFIXES = {"image": (".png", ".jpg", ".jpeg", ".npy"), "segmentation": (".png", ".npy"), "depth": (".png", ".npy")}


def _listed(value: Any) -> Any:
    """One pattern stands for a list of one."""
    return [value] if isinstance(value, str) else value


Patterns = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
"""A pattern, or a list of them: each finds some of the frames."""


class Section(StrictModel):
    """Base of a kind's section whose files are one a frame."""

    files: Patterns

    @field_validator("files")
    @classmethod
    def _are_patterns(cls, files: list[str]) -> list[str]:
        for text in files:
            Pattern(text)
        return files

    def check_files(self, kind: str) -> None:
        """ValueError: a pattern that does not name single frames, or a file of a type that is not read."""
        for text in self.files:
            if "id" not in Pattern(text).placeholders:
                raise ValueError(f"files: {text!r} has no {{id}}, which tells frames apart")
            if not text.lower().endswith(SUFFIXES[kind]):
                raise ValueError(f"files: {text!r} does not end in {', '.join(SUFFIXES[kind])}")


class Image(Section):
    """Camera images: .png, .jpg, or .npy, H x W x 3 or 3 x H x W."""

    white: PositiveFloat = 255.0
    """npy only: the value of full brightness, 1.0 for floats from 0 to 1. A larger one in a file is an error."""

    @after(mode="after")
    def _has_files(self) -> Self:
        self.check_files("image")
        return self


class ClassTable(StrictModel):
    """Base of what has classes."""

    classes: list[str] | dict[str, str]
    """Names, in the order of the indices that training uses; or name: '#rrggbb', the class's colour in pictures."""

    @field_validator("classes")
    @classmethod
    def _is_a_table(cls, classes: Any) -> Any:
        names = list(classes)
        if not 1 <= len(names) <= MAX_CLASSES:
            raise ValueError(f"{len(names)} classes; there must be 1 to {MAX_CLASSES}")
        if not all(names):
            raise ValueError("a class without a name")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice")
        if isinstance(classes, dict):
            check_colours(classes.values())
        return classes

    def names(self) -> list[str]:
        return list(self.classes)

    def check_known(self, key: str, names: Any) -> None:
        """ValueError: `key` gives a class that is not in the table."""
        if unknown := sorted(set(names) - set(self.classes)):
            raise ValueError(f"{key}: {', '.join(unknown)} is not among the classes")


def check_colours(colours: Any) -> None:
    if wrong := [colour for colour in colours if not COLOUR.fullmatch(colour)]:
        raise ValueError(f"{wrong[0]!r} is not a colour such as '#ff8000' (lower case)")


class Segmentation(Section, ClassTable):
    """Masks: index .png (palette or grey), colour .png with `colour_table`, or .npy H x W of whole numbers."""

    ids: dict[int, str] | None = None
    """A mask's number: its class. Several may mean one class. Default: a number is the class's place in `classes`."""
    colour_table: dict[str, str] | None = None
    """'#rrggbb' of a colour mask: its class. Several may mean one class."""
    no_class: list[int | str] | Literal["rest"] = [IGNORE]
    """Numbers (or colours) of pixels without a class; rest: all that are not listed. A pixel that is neither of a class
    nor listed here makes its frame fail."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        self.check_files("segmentation")
        if self.colour_table is not None:
            if self.ids is not None:
                raise ValueError("ids and colour_table exclude each other")
            check_colours(self.colour_table)
            if any(text.lower().endswith(".npy") for text in self.files):
                raise ValueError("colour_table: a .npy holds numbers, not colours")
        self.check_known("ids", (self.ids or {}).values())
        self.check_known("colour_table", (self.colour_table or {}).values())
        if "no_class" in self.model_fields_set and self.no_class != "rest":
            self._check_no_class()
        return self

    def _check_no_class(self) -> None:
        if self.colour_table is None:
            if wrong := [value for value in self.no_class if isinstance(value, str)]:
                raise ValueError(f"no_class: {wrong[0]!r} is a colour; there is no colour_table")
            clash = sorted({*self.no_class} & self.class_of_id().keys())
        else:
            check_colours(map(str, self.no_class))
            clash = sorted({*self.no_class} & self.colour_table.keys())
        if clash:
            raise ValueError(f"no_class: {clash[0]} has a class")

    def class_of_id(self) -> dict[int, int]:
        """A mask's number -> the class's index."""
        names = self.names()
        if self.ids is None:
            return {place: place for place in range(len(names))}
        return {number: names.index(name) for number, name in self.ids.items()}


class Disparity(StrictModel):
    """Files hold disparities: d = (value - offset) / scale, pixels of the raw image; depth = baseline x focal / d."""

    baseline: PositiveFloat
    """Metres between the two cameras."""
    focal: PositiveFloat
    """Focal length, pixels of the raw image."""
    scale: PositiveFloat = 1.0
    offset: float = 0.0


class Depth(Section):
    """Depth maps: grey .png of 8 or 16 bits, or .npy (H x W, H x W x 1 or 1 x H x W)."""

    units_per_metre: PositiveFloat | None = None
    """The files' value / this = metres; needed for .png without `disparity`; .npy: 1 by default."""
    disparity: Disparity | None = None
    invalid: float | None = 0.0
    """The value that means: not measured; null: none does. What is not finite or not in front is no measurement."""
    sparse: bool = False
    """Lidar points: each moves to the pixel that it falls in, the nearest wins. Otherwise the map is resized by nearest
    neighbour."""
    range: list[NonNegativeFloat] = Field(min_length=2, max_length=2)
    """Metres, nearest and farthest, that metrics and pictures take. Labels keep what lies outside."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        self.check_files("depth")
        if self.disparity is not None and self.units_per_metre is not None:
            raise ValueError("units_per_metre and disparity exclude each other")
        are_png = any(text.lower().endswith(".png") for text in self.files)
        if self.disparity is None and self.units_per_metre is None and are_png:
            raise ValueError("a .png needs units_per_metre or disparity")
        nearest, farthest = self.range
        if not 0 < nearest < farthest < 256:
            raise ValueError(f"range: {self.range} is not 0 < nearest < farthest < 256 metres")
        return self


class Box(Section, ClassTable):
    """Boxes: one COCO .json for many frames, or a text file a frame in YOLO's or KITTI's form.

    A frame whose file is empty has no box; a frame without a file has no label.
    """

    format: Literal["coco", "yolo", "kitti"]
    rename: dict[str | int, str] = {}
    """A file's name (or YOLO's number) of a class: its name here. Names that are in `classes` need no entry."""
    ignore: list[str | int] = []
    """Names (or numbers) of classes whose boxes are left out."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        ending = ".json" if self.format == "coco" else ".txt"
        for text in self.files:
            if not text.lower().endswith(ending):
                raise ValueError(f"files: {text!r} does not end in {ending}, as format {self.format} needs")
            if ("id" in Pattern(text).placeholders) == (self.format == "coco"):
                wanted = "no {id}: its files tell of many frames" if self.format == "coco" else "{id}: a file a frame"
                raise ValueError(f"files: {text!r}: format {self.format} needs {wanted}")
        self.check_known("rename", self.rename.values())
        if both := sorted({*map(str, self.rename)} & {*map(str, self.ignore)}):
            raise ValueError(f"{', '.join(both)} is in rename and in ignore")
        return self


class Table(StrictModel):
    """Base of what a CSV file tells of many frames."""

    csv: str
    """Path of the file; with {scene} one a scene."""
    columns: list[str] | None = None
    """Names of the columns of a file without a header. A first row that says just this is taken for one."""
    frame: str
    """Column of the frame's name: its id, SCENE/ID, or the path or name of its image."""

    @field_validator("csv")
    @classmethod
    def _is_a_table_path(cls, csv: str) -> str:
        if Pattern(csv).placeholders - {"scene"} or not csv.lower().endswith(".csv"):
            raise ValueError(f"{csv!r} is not the path of a .csv, with {{scene}} at most")
        return csv

    def check_columns(self, *names: str) -> None:
        if self.columns is not None and (missing := [name for name in names if name not in self.columns]):
            raise ValueError(f"{missing[0]} is not among the columns {', '.join(self.columns)}")


class Steering(Table):
    """Steering angles: one a frame."""

    angle: str
    """Column of the angle; an empty cell is no label."""
    factor: float
    """angle x factor = degrees, left positive. Negative where right is positive in the file; 57.29578 for radians."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        self.check_columns(self.frame, self.angle)
        if self.factor == 0:
            raise ValueError("factor: 0 makes every angle 0")
        return self


class CsvTimes(Table):
    """Times from a CSV file."""

    seconds: str
    """Column of the time."""
    factor: PositiveFloat = 1.0
    """The column's value x factor = seconds."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        self.check_columns(self.frame, self.seconds)
        return self


class IdTimes(StrictModel):
    """Times from the frames' ids."""

    id: str
    """A regular expression that is searched for in the id; its groups are numbers."""
    factors: list[float] = Field(min_length=1)
    """Seconds = the sum of group x factor: [0.1] at ten frames a second, [3600, 60, 1] for hours, minutes, seconds."""

    @after(mode="after")
    def _fits_together(self) -> Self:
        try:
            groups = re.compile(self.id).groups
        except re.error as error:
            raise ValueError(f"id: {self.id!r} is not a regular expression: {error}") from None
        if groups != len(self.factors):
            raise ValueError(f"id: {groups} groups in parentheses, but {len(self.factors)} factors")
        return self


class FolderSplit(StrictModel):
    """By folders: the values of {split} where a pattern has it, else the scenes."""

    by: Literal["folders"]
    train: list[str]
    val: list[str]
    test: list[str] = []

    @after(mode="after")
    def _once(self) -> Self:
        named = [*self.train, *self.val, *self.test]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice")
        return self


class ListSplit(StrictModel):
    """By list files below the data root: a frame a line, named as in a CSV file; what follows a space is not read."""

    by: Literal["lists"]
    train: str
    val: str
    test: str | None = None


class TimeSplit(StrictModel):
    """By time, or order of ids, in each scene: training first, test last."""

    by: Literal["time"]
    fractions: list[NonNegativeFloat] = Field([0.8, 0.1, 0.1], min_length=3, max_length=3)
    gap_frames: NonNegativeInt = 0
    """Frames that lie unused between two parts."""

    @after(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions {self.fractions} do not sum to 1")
        return self


def _known_way(value: Any) -> Any:
    """Pydantic's own message of a union names every member; this one what there is."""
    if isinstance(value, dict) and value.get("by") not in ("folders", "lists", "time"):
        raise ValueError("by must be folders, lists or time")
    return value


SplitRule = Annotated[FolderSplit | ListSplit | TimeSplit, Field(discriminator="by")]


class Recipe(StrictModel):
    """What a recipe file holds."""

    name: str
    """The data set's: letters, digits, '_', '.', '-' and '+'."""
    image: Image
    segmentation: Segmentation | None = None
    depth: Depth | None = None
    box: Box | None = None
    steering: Steering | None = None
    split: Annotated[SplitRule | None, BeforeValidator(_known_way)] = None
    times: CsvTimes | IdTimes | None = None

    @field_validator("times", mode="before")
    @classmethod
    def _one_of_two(cls, value: Any) -> Any:
        """Checked by the one that is meant, so that the message is about it."""
        if not isinstance(value, dict):
            return value
        return (CsvTimes if "csv" in value else IdTimes).model_validate(value)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(f"{name!r} is not letters, digits, '.', '_', '-' or '+'")
        return name

    @after(mode="after")
    def _tells_scenes_apart_alike(self) -> Self:
        """A label's scene must be one of the images'."""
        scenes = {"scene" in Pattern(text).placeholders for text in self.image.files}
        for kind in self.kinds()[1:]:
            section = getattr(self, kind)
            # a table and COCO's file tell of many frames
            for text in getattr(section, "files", ()) if getattr(section, "format", None) != "coco" else ():
                if ("scene" in Pattern(text).placeholders) not in scenes:
                    raise ValueError(f"{kind}: {text!r} and the images' files must both have {{scene}}, or neither")
        return self

    def kinds(self) -> list[str]:
        """The kinds that it names, images first."""
        labels = ("segmentation", "depth", "box", "steering")
        return ["camera", *(kind for kind in labels if getattr(self, kind) is not None)]
