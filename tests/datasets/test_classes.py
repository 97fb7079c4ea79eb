"""55 colours, 38 classes, 14 box classes."""

import numpy as np
import pytest

from datasets.a2d2.classes import (
    BOX_CLASSES,
    COLOURS,
    IGNORE,
    SEMANTIC_CLASSES,
    class_of,
    colour_table,
    rgb_of,
)
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.files import read_json

# written by hand from the official list: several colours each
SEVERAL = {
    "Car": ["#ff0000", "#c80000", "#960000", "#800000"],
    "Bicycle": ["#b65906", "#963204", "#5a1e01", "#5a1e1e"],
    "Pedestrian": ["#cc99ff", "#bd499b", "#ef59bf"],
    "Truck": ["#ff8000", "#c88000", "#968000"],
    "Small vehicles": ["#00ff00", "#00c800", "#009600"],
    "Traffic signal": ["#0080ff", "#1e1c9e", "#3c1c64"],
    "Traffic sign": ["#00ffff", "#1edcdc", "#3c9dc7"],
    "Utility vehicle": ["#ffff00", "#ffffc8"],
}


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return colour_table()


def class_at(table: np.ndarray, colour: str) -> int:
    """The table's entry for '#rrggbb'; red is the lowest byte of the index."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return int(table[red + 256 * green + 65536 * blue])


def test_counts() -> None:
    assert len(COLOURS) == 55
    assert len(SEMANTIC_CLASSES) == len(set(SEMANTIC_CLASSES)) == 38
    assert len(BOX_CLASSES) == len(set(BOX_CLASSES)) == 14
    assert len(SEMANTIC_CLASSES) <= IGNORE


def test_the_list_is_the_official_one_in_its_order(real_data: RawData) -> None:
    assert list(COLOURS.items()) == list(read_json(real_data.class_list_path).items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Car 3", "Car"), ("RD normal street", "RD normal street"), ("Traffic guide obj.", "Traffic guide obj."),
     ("Small vehicles 12", "Small vehicles"), ("Level 5 road", "Level 5 road"), ("A3", "A3")],
)  # fmt: skip
def test_class_of_strips_the_trailing_number(name: str, expected: str) -> None:
    assert class_of(name) == expected


def test_classes_come_in_order_of_first_appearance() -> None:
    firsts = []
    for name in COLOURS.values():
        stem = name.rsplit(" ", 1)[0] if name[-1].isdigit() else name
        if stem not in firsts:
            firsts.append(stem)
    assert tuple(firsts) == SEMANTIC_CLASSES


def test_every_colour_has_the_index_of_its_class(table: np.ndarray) -> None:
    for colour, name in COLOURS.items():
        assert SEMANTIC_CLASSES[class_at(table, colour)] == class_of(name)


def test_the_table_has_no_other_entries(table: np.ndarray) -> None:
    assert (table.shape, table.dtype) == ((1 << 24,), np.uint8)
    assert np.count_nonzero(table != IGNORE) == len(COLOURS)


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", "#fe0000", "#ff0001", "#0000ff", "#640000"])
def test_unlisted_colours_are_ignored(table: np.ndarray, colour: str) -> None:
    assert class_at(table, colour) == IGNORE


def test_no_two_classes_share_an_index(table: np.ndarray) -> None:
    colours = dict(SEVERAL)
    several = {colour for group in SEVERAL.values() for colour in group}
    colours |= {name: [colour] for colour, name in COLOURS.items() if colour not in several}
    indices = {name: {class_at(table, colour) for colour in group} for name, group in colours.items()}
    assert all(len(found) == 1 for found in indices.values())
    assert len(set.union(*indices.values())) == len(indices) == 38
    assert set.union(*indices.values()) == set(range(38))


def test_rgb_of() -> None:
    assert rgb_of("#ff8001") == (255, 128, 1)


def test_box_classes_are_those_of_the_real_boxes(real_data: RawData) -> None:
    found = [box["class"] for frame in real_data.frames("label3D") for box in
             read_json(real_data.path("label3D", frame)).values()]  # fmt: skip
    assert found
    assert set(found) <= set(BOX_CLASSES)


def test_colours_of_classes_are_those_of_the_palette() -> None:
    table = LABELS["segmentation"].classes
    colours = list(table.colours)
    assert colours[:3] == ["#ff0000", "#b65906", "#cc99ff"]
    assert [rgb_of(colour) for colour in colours] == [
        tuple(row) for row in table.palette()[: len(SEMANTIC_CLASSES)].tolist()
    ]
