"""Patterns of paths with placeholders, such as `{scene}/image/{id}.jpg`, and the files that they find.

{scene}, {id} and {split} each stand for part of a folder's or file's name; a second one stands for the same text.
`*` stands for any part of a name.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets.files import sorted_names
from errors import UserError

PLACEHOLDERS = ("scene", "id", "split")
SCENE = "all"  # of data sets whose patterns have no {scene}
NAME = re.compile(r"[\w+-][\w.+-]*")
_TOKEN = re.compile(r"(\{[^{}]*\}|\*)")


class Match(NamedTuple):
    """A file that a pattern finds."""

    scene: str
    id: str
    split: str
    path: Path


class Pattern:
    """A pattern of paths, parsed. ValueError: it is not one."""

    def __init__(self, text: str):
        self.text = text
        self.parts = text.split("/")
        if not all(self.parts) or ".." in self.parts:
            raise ValueError(f"{text!r} is not a path below the data root")
        names = re.findall(r"\{([^{}]*)\}", text)
        if unknown := sorted(set(names) - set(PLACEHOLDERS)):
            raise ValueError(f"{text!r}: unknown {{{unknown[0]}}}; there are {{scene}}, {{id}} and {{split}}")
        if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", text)):
            raise ValueError(f"{text!r} has a brace that belongs to no placeholder")
        self.placeholders = frozenset(names)
        self._whole = re.compile(_expression(text, {}))
        self._name = re.compile(_expression(self.parts[-1], {}))

    def find(self, root: Path) -> Iterator[Match]:
        """The files below `root` that fit, in order of their paths. UserError: a name that no frame may have."""
        for path, found in self._below(root, self.parts, {}):
            for what, name in found.items():
                if not NAME.fullmatch(name):
                    raise UserError(
                        f"{path}: {what} {name!r} is not letters, digits, '_', '.', '-' or '+'; rename it or change "
                        f"the pattern {self.text!r}"
                    )
            yield Match(found.get("scene", SCENE), found.get("id", ""), found.get("split", ""), path)

    def match(self, relative: str) -> dict[str, str] | None:
        """What the placeholders stand for in a path below the root; None: it does not fit."""
        match = self._whole.fullmatch(relative)
        return None if match is None else match.groupdict()

    def match_name(self, name: str) -> dict[str, str] | None:
        """The same from a file's name alone, as far as its part of the pattern tells."""
        match = self._name.fullmatch(name)
        return None if match is None else match.groupdict()

    def _below(self, folder: Path, parts: list[str], found: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
        part, rest = parts[0], parts[1:]
        names = sorted_names(folder) if _TOKEN.search(part) else [part]
        for name in names:
            match = None if name.startswith(".") else re.fullmatch(_expression(part, found), name)
            if match is None:
                continue
            groups = match.groupdict()
            path = folder / name
            if rest:
                yield from self._below(path, rest, found | groups)
            elif os.path.lexists(path):  # whatever it is: who reads it says what is wrong with it
                yield path, found | groups


def _expression(text: str, known: dict[str, str]) -> str:
    """The regular expression of (a part of) a pattern; `known`: what placeholders stand for already."""
    expression, here = "", set()
    for token in _TOKEN.split(text):
        what = token[1:-1]
        if token == "*":
            expression += "[^/]*"
        elif not token.startswith("{"):
            expression += re.escape(token)
        elif what in known:
            expression += re.escape(known[what])
        else:
            expression += f"(?P={what})" if what in here else f"(?P<{what}>[^/]+)"
            here.add(what)
    return expression
