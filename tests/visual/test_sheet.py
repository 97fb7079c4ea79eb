"""Sheets: every picture at its place, untouched."""

import numpy as np

from visual.sheet import Cell, sheet


def coloured(height: int, value: int) -> np.ndarray:
    """Red of so many levels: no text has that colour."""
    picture = np.zeros((height, 120, 3), np.uint8)
    picture[..., 0] = value
    return picture


def test_a_row_a_task_a_column_a_network() -> None:
    rows = {
        "depth": [Cell(coloured(60, 10)), Cell(coloured(80, 20)), Cell(coloured(80, 30))],
        "steering": [Cell(coloured(60, 40)), Cell(coloured(90, 50)), Cell(coloured(90, 60), "MAE 3")],
    }
    picture = sheet(["camera", "truth", "ours"], rows)
    places = {value: np.argwhere((picture == (value, 0, 0)).all(2)) for value in (10, 20, 30, 40, 50, 60)}
    for value, height in {10: 60, 20: 80, 30: 80, 40: 60, 50: 90, 60: 90}.items():
        (top, left), (bottom, right) = places[value].min(0), places[value].max(0)
        assert (bottom - top + 1, right - left + 1) == (height, 120)
        block = picture[top : bottom + 1, left : right + 1]
        assert (block == (value, 0, 0)).all()  # nothing lies over it, no text either
    corners = {value: place.min(0) for value, place in places.items()}
    assert corners[10][0] == corners[20][0] == corners[30][0] < corners[40][0] == corners[60][0]
    assert corners[10][1] == corners[40][1] < corners[20][1] == corners[50][1] < corners[30][1] == corners[60][1]


def test_columns_and_captions_are_written_above() -> None:
    plain, named = (
        sheet([column, "x"], {"": [Cell(coloured(60, 9), text)] * 2}) for column, text in (("", ""), ("a", "b"))
    )
    assert plain.shape == named.shape
    assert not np.array_equal(plain, named)
