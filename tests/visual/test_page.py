"""Files for print: sizes on paper, text that stays text, the same file from the same picture."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visual.page import Page, plotting
from visual.sheet import Block, Cell, Layout, cell_width, laid_out


@pytest.fixture
def layout() -> Layout:
    width = Page(dpi=100).width
    cells = [Cell(np.full((40, cell_width(width, 2), 3), 90, np.uint8), "camera")] * 2
    return laid_out([Block("a frame, validation frame", [cells])], width, Page(dpi=100).letters)


def test_letters_have_six_and_a_half_points_whatever_the_resolution() -> None:
    for dpi in (150, 300, 600):
        page = Page(dpi=dpi)
        assert page.letters * 72 / dpi == pytest.approx(6.5, rel=0.05)
        assert page.width / dpi * 2.54 == pytest.approx(17.4, rel=0.01)
    assert Page().column_width == 960


def test_png_says_its_resolution(layout: Layout, tmp_path: Path) -> None:
    path = Page(dpi=100).save_sheet(layout, tmp_path / "sheet.png")
    with Image.open(path) as image:
        assert (np.asarray(image) == layout.raster()).all()
        assert image.info["dpi"] == pytest.approx((100, 100), abs=0.1)


def test_pdf_and_svg_have_the_size_in_print(layout: Layout, tmp_path: Path) -> None:
    points = 72 * 17.4 / 2.54
    pdf = Page("pdf", dpi=100).save_sheet(layout, tmp_path / "sheet.pdf").read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)
    assert float(width) == pytest.approx(points, rel=0.01)
    assert b"/FontFile2" in pdf  # TrueType: words that can be searched
    svg = Page("svg", dpi=100).save_sheet(layout, tmp_path / "sheet.svg").read_text()
    (width_text,) = re.findall(r'<svg [^>]*?width="([\d.]+)pt"', svg)
    assert float(width_text) == pytest.approx(points, rel=0.01)
    assert svg.count("<image ") == 2


@pytest.mark.parametrize("format", ["png", "pdf", "svg"])
def test_the_same_picture_is_the_same_file(format: str, tmp_path: Path) -> None:
    page, picture = Page(format, dpi=50), np.zeros((20, 30, 3), np.uint8)
    first, second = (page.save_picture(picture, tmp_path / f"{i}.{format}").read_bytes() for i in range(2))
    assert first == second


def test_a_plot_is_as_wide_as_a_sheet_or_a_column() -> None:
    with plotting():
        assert Page(width_cm=12).figure(5).get_figwidth() == pytest.approx(12 / 2.54)
        assert Page(width_cm=12).figure(5, columns=False).get_figwidth() == pytest.approx(3.2)
