"""Writing what visualize.py shows: pictures of a frame, and a scene as video, GIF and plot over time."""

import errno
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from datasets.files import whole_file
from datasets.frames import Frame
from datasets.layout import ResultsDir
from errors import UserError
from progress import progress
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions, Picture
from visual.viewer import PICTURE_WIDTH, View, Viewer

CODECS = ("vp09", "avc1", "mp4v")  # the first that this build of OpenCV has; browsers play the first two
GIF_WIDTH = 960  # px, at most


def write_picture(path: Path, picture: np.ndarray) -> None:
    with whole_file(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def write_frame(view: View, viewer: Viewer, options: DrawOptions, out: Path, task_name: str, name: str) -> Path:
    """A picture a column and the sheet, in one folder a task -> the sheet."""
    for task in view.tasks.values():
        results = ResultsDir(out, task.name, name)
        for column, cell in zip(view.columns(), view.cells(task, options, PICTURE_WIDTH), strict=True):
            write_picture(results.picture(column), cell.picture)
    results = ResultsDir(out, task_name, name)
    write_picture(results.sheet, view.sheet(options))
    return results.sheet


def write_scene(
    frames: list[Frame], viewer: Viewer, options: DrawOptions, results: ResultsDir, *, fps: float, gif: bool
) -> list[Path]:
    """The sheet over time as MP4 (and GIF), and plots of the pictures that have a number to plot -> the files."""
    pictures = {name: picture_of(task) for name, task in viewer.tasks_of(frames[0].dataset).items()}
    series = {name: Series(picture, list(viewer.networks)) for name, picture in pictures.items() if picture.scene_axis}
    seconds = viewer.seconds(frames)

    def sheets() -> Iterator[np.ndarray]:
        for frame in progress(frames, len(frames), frames[0].scene):
            view = viewer.view(frame)
            for one in series.values():
                one.add(seconds[frame], view)
            yield view.sheet(options)

    write_video(results.video, sheets(), fps)
    if gif:
        write_gif(results.gif, results.video, fps)
    for name, one in series.items():
        with whole_file(results.plot(name)) as file:
            one.figure().savefig(file, format="png", dpi=120)
    return [results.video, *([results.gif] if gif else []), *map(results.plot, series)]


class Series:
    """A task's number over a scene: true, and as each network predicts it."""

    def __init__(self, picture: Picture, networks: Iterable[str]):
        self.picture, self.task_name = picture, picture.task.name
        self.seconds: list[float] = []
        self.known: list[float] = []  # seconds of the frames with a label: a line between these is seen
        self.truth: list[float] = []
        self.predictions: dict[str, list[float]] = {name: [] for name in networks}

    def add(self, seconds: float, view: View) -> None:
        target = view.targets[self.task_name]
        self.seconds.append(seconds)
        truth = math.nan if target is None else self.picture.scene_value(target=target)
        if not math.isnan(truth):
            self.known.append(seconds)
            self.truth.append(truth)
        for name, values in self.predictions.items():
            prediction = view.predictions[name].get(self.task_name)
            values.append(math.nan if prediction is None else self.picture.scene_value(prediction))

    def figure(self) -> Figure:
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.add_subplot()
        for name, values in self.predictions.items():
            if not all(map(math.isnan, values)):
                axes.plot(self.seconds, values, label=name)
        axes.plot(self.known, self.truth, "k.--", label="true")
        axes.set(xlabel="time in the scene, s", ylabel=self.picture.scene_axis)
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """An MP4 of pictures of one size. UserError where OpenCV can't write any kind."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "video.mp4"
        writer: cv2.VideoWriter | None = None
        written = 0
        for picture in pictures:
            height, width = (side // 2 * 2 for side in picture.shape[:2])  # codecs want even numbers
            writer = writer or _open_video(temporary, fps, (width, height))
            writer.write(picture[:height, :width, ::-1])
            written += 1
        assert writer is not None  # a scene has frames
        writer.release()
        if (found := _frames_in(temporary)) != written:  # OpenCV's writer does not say that a disk is full
            raise OSError(
                errno.ENOSPC, f"only {found} of its {written} pictures were written, no space left?", str(path)
            )
        with whole_file(path) as file:
            file.write(temporary.read_bytes())


def _open_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of codecs that this build lacks
    try:
        for codec in CODECS:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
            if writer.isOpened():
                return writer
    finally:
        cv2.utils.logging.setLogLevel(level)
    raise UserError("this build of OpenCV can write no MP4; install opencv-python-headless from PyPI")


def _frames_in(path: Path) -> int:
    video, frames = cv2.VideoCapture(str(path)), 0
    while video.grab():
        frames += 1
    return frames


def video_pictures(path: Path) -> Iterator[np.ndarray]:
    """uint8 H x W x 3 RGB."""
    video = cv2.VideoCapture(str(path))
    while (picture := video.read()[1]) is not None:
        yield picture[..., ::-1]


def write_gif(path: Path, video: Path, fps: float) -> None:
    """The video as an endless GIF, smaller and with 128 colours."""

    def small(picture: np.ndarray) -> Image.Image:
        image = Image.fromarray(np.ascontiguousarray(picture))
        image.thumbnail((GIF_WIDTH, image.height))
        return image.quantize(128)

    first, *others = map(small, video_pictures(video))
    with whole_file(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
