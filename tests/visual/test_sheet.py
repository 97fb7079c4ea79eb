"""Sheets: every picture at its place, untouched."""

import numpy as np

from visual.sheet import Block, Cell, cell_width, laid_out, sheet


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


def test_blocks_are_below_each_other_and_fit_the_width() -> None:
    width = 800
    cells = [
        [Cell(np.full((50, cell_width(width, columns), 3), 10 * columns, np.uint8))] * columns for columns in (2, 3)
    ]
    layout = laid_out([Block("first", [cells[0]]), Block("second, " + 40 * "long ", [cells[1]])], width, 20)
    picture = layout.raster()
    assert picture.shape == (layout.height, width, 3)
    for left, top, part in layout.pictures:
        assert left + part.shape[1] <= width
        assert (picture[top : top + 50, left : left + part.shape[1]] == part).all()
    headings = {text.text.split(",")[0]: text for text in layout.texts if text.text}
    assert headings["first"].size == 20 > headings["second"].size  # whose line would not have room
    assert headings["first"].y < layout.pictures[0][1] < headings["second"].y < layout.pictures[-1][1]


def test_a_picture_shares_the_width_with_gaps() -> None:
    for width in (400, 2055):
        for columns in range(1, 6):
            used = columns * cell_width(width, columns) + (columns - 1) * max(2, width // 150)
            assert width - columns < used <= width
