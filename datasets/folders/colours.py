"""Colours of classes in pictures."""

import colorsys
from collections.abc import Mapping, Sequence

GOLDEN = 0.618033988749895  # steps of the golden ratio leave no two hues near each other


def rgb_number(colour: str) -> int:
    """'#ff8000' -> 0xff8000."""
    return int(colour[1:], 16)


def class_colours(
    classes: Sequence[str] | Mapping[str, str], colour_table: Mapping[str, str] | None = None
) -> list[str]:
    """'#rrggbb' of each class: the table's, else the first that masks show it in, else one that differs from others."""
    if isinstance(classes, Mapping):
        return list(classes.values())
    first: dict[str, str] = {}
    for colour, name in (colour_table or {}).items():
        first.setdefault(name, colour)
    return [first.get(name) or distinct_colour(place) for place, name in enumerate(classes)]


def distinct_colour(place: int) -> str:
    """The same at each call; neighbours differ in hue, and the three brightnesses take turns."""
    value, saturation = ((0.95, 0.75), (0.65, 0.9), (0.9, 0.45))[place % 3]
    channels = colorsys.hsv_to_rgb(place * GOLDEN % 1, saturation, value)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
