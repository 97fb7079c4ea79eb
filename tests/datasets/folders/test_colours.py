"""Colours of classes."""

from datasets.folders.colours import class_colours
from datasets.spec import rgb_of

NAMES = [f"class {number}" for number in range(255)]


def test_given_colours_stay() -> None:
    assert class_colours({"road": "#804080", "sky": "#123456"}) == ["#804080", "#123456"]


def test_a_colour_mask_gives_each_class_its_first_colour() -> None:
    table = {"#0000ff": "sky", "#00ff00": "tree", "#00aa00": "tree"}
    assert class_colours(["tree", "sky"], table) == ["#00ff00", "#0000ff"]


def test_255_classes_have_colours_of_their_own_and_the_first_39_are_far_apart() -> None:
    colours = class_colours(NAMES)
    assert len(set(colours)) == 255
    assert colours[:39] == class_colours(NAMES[:39])
    first = [rgb_of(colour) for colour in colours[:39]]
    assert min(sum(abs(x - y) for x, y in zip(a, b, strict=True)) for a in first for b in first if a != b) > 70


def test_chosen_colours_keep_away_from_given_ones() -> None:
    (given, chosen) = class_colours(["a", "b"], {"#0000ff": "a"})
    assert given == "#0000ff"
    assert sum(abs(x - y) for x, y in zip(rgb_of(given), rgb_of(chosen), strict=True)) > 200
