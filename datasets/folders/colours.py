"""Colours of classes in pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from datasets.spec import rgb_of

LEVELS = (0, 36, 73, 109, 146, 182, 219, 255)
MARGIN = 120  # of the sum of a colour's channels to black and to white, which pictures have of their own
Colour = tuple[int, int, int]


def rgb_number(colour: str) -> int:
    """'#ff8000' -> 0xff8000."""
    return int(colour[1:], 16)


def class_colours(
    classes: Sequence[str] | Mapping[str, str], colour_table: Mapping[str, str] | None = None
) -> list[str]:
    """'#rrggbb' of each class: the table's, else the first that masks show it in, else one unlike the others."""
    if isinstance(classes, Mapping):
        return list(classes.values())
    given: dict[str, str] = {}
    for colour, name in (colour_table or {}).items():
        given.setdefault(name, colour)
    others = distinct_colours(map(rgb_of, given.values()))
    return [given.get(name) or "#{:02x}{:02x}{:02x}".format(*next(others)) for name in classes]


def distinct_colours(taken: Iterable[Colour]) -> Iterator[Colour]:
    """Colours of a grid, each the farthest from those taken and those before it; always the same ones."""
    grid = [colour for colour in product(LEVELS, LEVELS, LEVELS) if MARGIN <= sum(colour) <= 765 - MARGIN]
    distances = dict.fromkeys(grid, 3 * 9 * 255**2)
    for colour in taken:
        distances = {other: min(distance, _distance(colour, other)) for other, distance in distances.items()}
    while True:
        yield (colour := max(distances, key=distances.__getitem__))
        distances = {other: min(distance, _distance(colour, other)) for other, distance in distances.items()}


def _distance(a: Colour, b: Colour) -> int:
    """Squared, green weighs most: about as the eye sees it."""
    return sum(weight * (x - y) ** 2 for weight, x, y in zip((2, 4, 3), a, b, strict=True))
