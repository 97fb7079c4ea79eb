"""A full disk: an error that names the file, exit code 2, and nothing half-written left behind.

Files may not grow beyond some bytes here, which to a program is what a full disk is.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import run_as_script
from preprocessing.camera import Camera
from preprocessing.steering_angle import Steering
from tests.raw_files import SCENE, frames, label_files, write_bus, write_every_kind
from tests.stages import run
from visual.output import write_picture
from visual.video import write_video


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_picture_and_a_video(tmp_path: Path) -> None:
    noise = [np.random.default_rng(n).integers(0, 256, (128, 128, 3), np.uint8) for n in range(20)]
    with largest_file(20_000):
        with pytest.raises(OSError, match="pictures were written") as video:
            write_video(tmp_path / "scene.mp4", noise, fps=4)
        with pytest.raises(OSError, match="sheet") as picture:
            write_picture(tmp_path / "sheet.png", noise[0])
    assert video.value.filename == str(tmp_path / "scene.mp4")
    assert picture.value.filename == str(tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []
    write_video(tmp_path / "scene.mp4", noise, fps=4)


@pytest.mark.parametrize(("stage", "size", "name"), [(Camera, 3000, "000000091.npy"), (Steering, 1000, "report.json")])
def test_labels_and_reports(
    raw: RawData,
    processed: ProcessedData,
    stage: type[Camera] | type[Steering],
    size: int,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_every_kind(raw, frames(2))
    if name == "report.json":  # which is longer than a label where many frames have none
        empty = [{"frame_name": f"20180807145028_camera_frontcenter_{n:09d}", "flexray": {}} for n in range(90)]
        write_bus(raw, SCENE, empty)
    with largest_file(size), pytest.raises(SystemExit) as ended:
        run_as_script(lambda: run(stage(), raw, processed, "--size", "64", "40"))
    (line,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, line.count(name)) == (2, 1)
    assert line.startswith("error: ")
    assert "None" not in line
    assert not [file for file in label_files(processed, stage.kind) if ".tmp-" in file]
    assert run(stage(), raw, processed, "--size", "64", "40") == 0
