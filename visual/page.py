"""How pictures and plots are printed: kind of file, resolution, width on paper, and letters that are read there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from datasets.files import whole_file
from visual.sheet import Layout

if TYPE_CHECKING:  # takes a second to import: only where it is needed
    from matplotlib.figure import Figure

CM = 2.54  # an inch
POINTS = 72  # an inch
LETTERS = 6.5  # points
COLUMN_CM = 8.128  # 3.2 inches, of a paper with two columns
# of lines: Okabe and Ito's, which the colour-blind tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
NARROWER = 0.9  # matplotlib's letters are wider than Pillow's, by which a sheet is laid out


@dataclass(frozen=True)
class Page:
    """What the flags --format, --dpi, --width and --columns say."""

    format: str = "png"  # or pdf or svg
    dpi: int = 300
    width_cm: float = 17.4
    """Of a sheet as it is printed, and of a plot of several panels."""
    columns: int | None = None
    """Pictures side by side; None: as many as there are of one task."""

    @property
    def width(self) -> int:
        """Of a sheet, px."""
        return round(self.width_cm / CM * self.dpi)

    @property
    def column_width(self) -> int:
        """Of a picture of its own, px."""
        return round(COLUMN_CM / CM * self.dpi)

    @property
    def letters(self) -> int:
        """Height of the letters, px."""
        return max(5, round(LETTERS / POINTS * self.dpi))

    def figure(self, height_cm: float, columns: bool = True) -> "Figure":
        """An empty plot as wide as a sheet, or as a column."""
        from matplotlib.figure import Figure

        width = self.width_cm if columns else min(COLUMN_CM, self.width_cm)
        return Figure(figsize=(width / CM, height_cm / CM), layout="constrained")

    def save_figure(self, figure: "Figure", path: Path) -> Path:
        """Within `plotting`."""
        with whole_file(path) as file:
            figure.savefig(file, format=self.format, dpi=self.dpi, metadata=undated(self.format))
        return path

    def save_picture(self, picture: np.ndarray, path: Path) -> Path:
        """uint8 H x W x 3, at full resolution: PDF and SVG hold it without loss."""
        if self.format == "png":
            with whole_file(path) as file:
                # a third of the time of Pillow's usual level for a file a fifth larger
                Image.fromarray(picture).save(file, format="PNG", dpi=(self.dpi, self.dpi), compress_level=2)
            return path
        with plotting():
            height, width = picture.shape[:2]
            figure = drawing_board(width, height, self.dpi)
            figure.axes[0].imshow(picture, extent=(0, width, height, 0), interpolation="none", aspect="auto")
            return self.save_figure(figure, path)

    def save_sheet(self, layout: Layout, path: Path) -> Path:
        """PDF and SVG hold the lines between the pictures as text."""
        if self.format == "png":
            return self.save_picture(layout.raster(), path)
        with plotting():
            figure = drawing_board(layout.width, layout.height, self.dpi)
            for left, top, picture in layout.pictures:
                height, width = picture.shape[:2]
                extent = (left, left + width, top + height, top)
                figure.axes[0].imshow(picture, extent=extent, interpolation="none")
            for text in layout.texts:
                points = NARROWER * text.size / self.dpi * POINTS
                colour = [level / 255 for level in text.colour]
                figure.axes[0].text(text.x, text.y, text.text, color=colour, fontsize=points, va="center")
            figure.axes[0].set(xlim=(0, layout.width), ylim=(layout.height, 0), aspect="auto")
            return self.save_figure(figure, path)


@contextmanager
def plotting() -> Iterator[None]:
    """Plots made and saved herein have the letters and lines of a paper, and fonts that a PDF's reader can search."""
    import matplotlib
    from cycler import cycler

    style: Any = {
        "font.size": LETTERS,
        "axes.titlesize": LETTERS + 1,
        "axes.linewidth": 0.5,
        "axes.prop_cycle": cycler(color=COLOURS),
        "lines.linewidth": 1,
        "lines.markersize": 3,
        "legend.fontsize": LETTERS,
        "legend.frameon": False,
        "pdf.fonttype": 42,  # TrueType: what publishers ask for
        "svg.hashsalt": "visualize.py",  # the same numbers give the same file
    }
    with matplotlib.rc_context(style):
        yield


def drawing_board(width: int, height: int, dpi: int) -> "Figure":
    """A figure whose only axes are px, the first row on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / dpi, height / dpi))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def undated(format: str) -> dict[str, None] | None:
    """Metadata that leave out when a file was made."""
    return {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(format)
