"""Pictures over time as MP4 and GIF.

H.264 is what plays everywhere. OpenCV's wheels have no encoder for it (its licence): the program ffmpeg writes it where
there is one that can.
"""

import errno
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from datasets.files import whole_file
from errors import UserError
from progress import warn

ENCODERS = ("libx264", "libopenh264", "h264_nvenc")  # of H.264, as ffmpeg names them; the first that works
OTHERS = ("vp09", "mp4v")  # of OpenCV; browsers play the first
NO_H264 = (
    "warning: {path} is {codec}, as there is no encoder of H.264: browsers play it, common programs for slides do not; "
    "install ffmpeg, such as conda install -c conda-forge ffmpeg"
)
GIF_WIDTH = 960  # px, at most


class Writer(Protocol):
    """Takes uint8 H x W x 3, BGR."""

    def write(self, picture: np.ndarray) -> object: ...

    def release(self) -> None: ...


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """An MP4 of pictures of one size, in H.264 where something here can encode it; else a line on stderr says so.

    UserError where OpenCV can't write any kind.
    """
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "video.mp4"
        writer: Writer | None = None
        written, codec = 0, ""
        try:
            for picture in pictures:
                height, width = (side // 2 * 2 for side in picture.shape[:2])  # codecs want even numbers
                if writer is None:
                    writer, codec = _open(temporary, fps, (width, height))
                writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
                written += 1
        finally:
            if writer is not None:
                writer.release()
        if (found := _frames_in(temporary)) != written:  # OpenCV's writer does not say that a disk is full
            raise OSError(
                errno.ENOSPC, f"only {found} of its {written} pictures were written, no space left?", str(path)
            )
        with whole_file(path) as file:
            file.write(temporary.read_bytes())
    if codec:
        warn(NO_H264.format(path=path, codec=codec))


def _open(path: Path, fps: float, size: tuple[int, int]) -> tuple[Writer, str]:
    """A writer, and what it writes where that is not H.264."""
    if command := h264_command():
        return Ffmpeg(command, path, fps, size), ""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of codecs that this build lacks
    try:
        for codec in OTHERS:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
            if writer.isOpened():
                return writer, {"vp09": "VP9", "mp4v": "MPEG-4"}[codec]
    finally:
        cv2.utils.logging.setLogLevel(level)
    raise UserError("this build of OpenCV can write no MP4; install opencv-python-headless from PyPI, or ffmpeg")


def h264_command() -> list[str] | None:
    """The ffmpeg that encodes H.264, with the encoder's name; None: there is none, or it can't."""
    if (program := shutil.which("ffmpeg")) is None:
        return None
    for encoder in ENCODERS:  # a build may list one that lacks its library or its device: it is tried
        trial = ["-f", "lavfi", "-i", "color=size=256x256:duration=0.1", "-c:v", encoder, "-f", "null", "-"]
        if subprocess.run([program, "-loglevel", "quiet", *trial], stdin=subprocess.DEVNULL).returncode == 0:
            return [program, encoder]
    return None


class Ffmpeg:
    """A writer like OpenCV's that passes pictures to the program."""

    def __init__(self, command: Sequence[str], path: Path, fps: float, size: tuple[int, int]):
        program, encoder = command
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps:g}", "-i", "-"]
        # yuv420p: what players take; faststart: a browser begins before it has everything
        own = ["-c:v", encoder, "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
        self.process = subprocess.Popen(
            [program, "-y", "-loglevel", "error", *raw, *own], stdin=subprocess.PIPE, start_new_session=True
        )

    def write(self, picture: np.ndarray) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended and said why; what is missing is found by counting
            self.process.stdin.write(picture.tobytes())

    def release(self) -> None:
        try:
            self.process.communicate()
        except BrokenPipeError:
            self.process.wait()


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
