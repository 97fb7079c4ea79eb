"""A scene: its sheet over time as video, and the numbers that its pictures have as plots over time."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.frames import Frame
from datasets.layout import ResultsDir
from progress import progress
from visual.page import Page, plotting
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions, Picture
from visual.video import write_gif, write_video
from visual.viewer import NO_SPLIT, View, Viewer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIDEO_SHARE = 2  # by which a video has fewer px a line than a printed sheet: 1028 are enough on a screen
SHADES = {  # behind the splits
    "training frame": "#fff2cc",
    "validation frame": "#d0e0f0",
    "test frame": "#f4cccc",
    NO_SPLIT: "#e8e8e8",
}
OF_SEVERAL = "#d9ead3"  # behind frames that train and validate


def write_scene(
    frames: list[Frame], viewer: Viewer, options: DrawOptions, page: Page, results: ResultsDir, fps: float, gif: bool
) -> list[Path]:
    """The sheet over time as MP4 (and GIF), and plots of the pictures that have a number to plot -> the files."""
    pictures = {name: picture_of(task) for name, task in viewer.tasks_of(frames[0].dataset).items()}
    series = {name: Series(picture, list(viewer.networks)) for name, picture in pictures.items() if picture.scene_axis}
    seconds, video = viewer.seconds(frames), replace(page, dpi=page.dpi // VIDEO_SHARE)

    def sheets() -> Iterator[np.ndarray]:
        for frame in progress(frames, len(frames), frames[0].scene):
            view = viewer.view(frame)
            for one in series.values():
                one.add(seconds[frame], view)
            yield view.sheet(replace(options, letters=video.letters), video).raster()

    write_video(results.video, sheets(), fps)
    if gif:
        write_gif(results.gif, results.video, fps)
    plots = []
    with plotting():
        for name, one in series.items():
            figure = one.figure(page, f"{viewer.scene_of(frames[0])}: {name}")
            plots.append(page.save_figure(figure, results.plot(name)))
    return [results.video, *([results.gif] if gif else []), *plots]


class Series:
    """A task's number over a scene: true, as each network predicts it, and how far that is off."""

    def __init__(self, picture: Picture, networks: Iterable[str]):
        self.picture, self.task_name = picture, picture.task.name
        self.seconds: list[float] = []
        self.truth: list[float] = []  # NaN: no label
        self.splits: list[str] = []  # of the frames, in words
        self.predictions: dict[str, list[float]] = {name: [] for name in networks}

    def add(self, seconds: float, view: View) -> None:
        target = view.targets[self.task_name]
        self.seconds.append(seconds)
        self.splits.append(view.split)
        self.truth.append(math.nan if target is None else self.picture.scene_value(target=target))
        for name, values in self.predictions.items():
            prediction = view.predictions[name].get(self.task_name)
            values.append(math.nan if prediction is None else self.picture.scene_value(prediction))

    def figure(self, page: Page, title: str) -> "Figure":
        """Values above, and where there are networks their errors below; behind them the splits."""
        shown = {name: values for name, values in self.predictions.items() if not all(map(math.isnan, values))}
        figure = page.figure(height_cm=8.5 if shown else 5)
        above, *below = figure.subplots(2 if shown else 1, sharex=True, squeeze=False)[:, 0]
        for axes in (above, *below):
            self._shade(axes)
            axes.grid(alpha=0.3)
        # between labelled frames without others there is a line as well
        known = [(second, value) for second, value in zip(self.seconds, self.truth, strict=True) if value == value]
        for name, values in shown.items():
            above.plot(self.seconds, values, label=name)
            errors = [(second, values[self.seconds.index(second)] - value) for second, value in known]
            below[0].plot(*zip(*errors, strict=True) if errors else ([], []), ".-", label=name)
        above.plot(*zip(*known, strict=True) if known else ([], []), "k.--", label="true")
        above.set(ylabel=(self.picture.scene_axis or "").replace(", ", "\n"), title=title)
        if below:
            below[0].axhline(0, color="0.3", linewidth=0.5)
            below[0].set(ylabel="error\npredicted - true")
        (below or [above])[0].set(xlabel="time in the scene, s")
        figure.legend(
            *above.get_legend_handles_labels(), loc="outside lower center", ncols=max(2, int(page.width_cm / 3.4))
        )
        return figure

    def _shade(self, axes: "Axes") -> None:
        """A band behind each run of frames of one split."""
        borders = [self.seconds[0], *((a + b) / 2 for a, b in zip(self.seconds, self.seconds[1:], strict=False))]
        borders.append(self.seconds[-1])
        start, labelled = 0, set()
        for split, group in groupby(self.splits):
            end = start + len(list(group))
            if split:
                label = None if split in labelled else split.replace("frame", "frames", 1)
                labelled.add(split)
                shade = SHADES.get(split, OF_SEVERAL)
                axes.axvspan(borders[start], borders[end], color=shade, linewidth=0, zorder=0, label=label)
            start = end
