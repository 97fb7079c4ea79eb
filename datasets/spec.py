"""What a processed root says about itself: its name and split, and of each kind of label the classes and units.

Read from `dataset.json` and `KIND/settings.json` (datasets/processed.py), handed to tasks, heads, checkpoints and
pictures; nobody else knows the classes of a data set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any, Self

import numpy as np

from errors import UserError

SPLITS = ("train", "val", "test")
IGNORE = 255  # in maps of classes: no class
LARGEST_ANGLE = 1080.0  # degrees: three turns of a steering wheel to one side, more than any car's


@dataclass(frozen=True)
class ClassTable:
    """The classes of a kind of label; a class's index is its place here."""

    names: tuple[str, ...]
    colours: tuple[str, ...]  # '#rrggbb' of each, for pictures
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a coarser table: its class -> members

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Name -> index."""
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def rgb(self) -> list[tuple[int, int, int]]:
        """The colour of each class."""
        return [rgb_of(colour) for colour in self.colours]

    def palette(self) -> np.ndarray:
        """uint8 256 x 3: the colour of each index; black where no class is."""
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self)] = self.rgb
        return colours

    def coarser(self) -> "ClassTable":
        """The merged classes as a table of their own; each has the colour of its first member."""
        firsts = (self.index[members[0]] for members in self.merged.values())
        return ClassTable(tuple(self.merged), tuple(self.colours[first] for first in firsts))

    def members(self) -> list[list[int]]:
        """Of each merged class the indices that it is made of."""
        return [[self.index[name] for name in names] for names in self.merged.values()]

    def merged_of_class(self) -> np.ndarray:
        """uint8 256: the merged class of each class, by their places in the tables; IGNORE elsewhere."""
        table = np.full(256, IGNORE, np.uint8)
        for merged, members in enumerate(self.members()):
            table[members] = merged
        return table


@dataclass(frozen=True)
class LabelSpec:
    """What the labels of one kind say: of one data set, or of several that agree."""

    classes: ClassTable | None = None
    range: tuple[float, float] | None = None  # of depth, m: measurements within it are evaluated and drawn

    @classmethod
    def of(cls, settings: Mapping[str, Any], source: str) -> Self:
        """From the settings of a kind. UserError, begun with `source`: they make no sense."""
        try:
            return cls._read(settings)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{source}: no usable classes, colours or range ({error!r}); preprocess again with --overwrite"
            ) from None

    @classmethod
    def _read(cls, settings: Mapping[str, Any]) -> Self:
        classes = None
        if "classes" in settings:
            names, colours = tuple(settings["classes"]), tuple(settings["colours"])
            if len(set(names)) < len(names) or len(colours) != len(names) or len(names) > IGNORE:
                raise ValueError(f"{len(set(names))} different names, {len(names)} classes, {len(colours)} colours")
            merged = {name: tuple(members) for name, members in settings.get("merged", {}).items()}
            classes = ClassTable(names, colours, merged)
            classes.palette(), classes.members()  # which look at every colour and name
        reach = settings.get("range")
        if reach is not None:
            low, high = map(float, reach)
            if not 0 < low < high:
                raise ValueError(f"range {reach}")
            reach = (low, high)
        return cls(classes, reach)

    def to_json(self) -> dict[str, Any]:
        """As in a kind's settings."""
        content: dict[str, Any] = {}
        if self.classes is not None:
            content = {"classes": list(self.classes.names), "colours": list(self.classes.colours)}
            if self.classes.merged:
                content["merged"] = {name: list(members) for name, members in self.classes.merged.items()}
        if self.range is not None:
            content["range"] = list(self.range)
        return content

    def difference(self, other: Self) -> str | None:
        """The first thing in which labels of the two mean something else, as 'this, that'; None: nothing."""
        ours, theirs = ([] if spec.classes is None else spec.classes.names for spec in (self, other))
        for index, (mine, yours) in enumerate(zip_longest(ours, theirs)):
            if mine != yours:
                return f"class {index} is {mine or 'none'}, and {yours or 'none'}"
        if self.range != other.range:
            return f"range is {self.range}, and {other.range}"
        return None


@dataclass(frozen=True)
class DatasetSpec:
    """A read-only view of what a processed root says about itself."""

    name: str
    labels: Mapping[str, LabelSpec]  # kind -> what its labels say
    split: Mapping[str, Sequence[str]] | None = None  # the data set's own: part -> 'SCENE/ID'

    def to_json(self) -> dict[str, Any]:
        """For checkpoints: the classes and units that a network was trained with."""
        return {kind: label.to_json() for kind, label in self.labels.items()}


def rgb_of(colour: str) -> tuple[int, int, int]:
    """'#ff8000' -> (255, 128, 0). ValueError: not of this form."""
    if len(colour) != 7 or colour[0] != "#":
        raise ValueError(f"colour {colour!r} is not #rrggbb")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
