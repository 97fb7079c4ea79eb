"""Videos: H.264 by the program ffmpeg where it can, else what OpenCV can, and a line that says so."""

import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from visual.video import video_pictures, write_video

PICTURES = [np.full((32, 48, 3), 60 * n, np.uint8) for n in range(4)]
# stands for the program: it takes one of the encoders, and writes what it was given as OpenCV can
FAKE = f"""#!{sys.executable}
import pathlib, sys
words = sys.argv[1:]
encoder = words[words.index("-c:v") + 1]
if "lavfi" in words:
    sys.exit(0 if encoder == "libopenh264" else 1)
import cv2, numpy as np
width, height = map(int, words[words.index("-s") + 1].split("x"))
fps = float(words[words.index("-r") + 1])
writer = cv2.VideoWriter(words[-1], cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
while picture := sys.stdin.buffer.read(3 * width * height):
    writer.write(np.frombuffer(picture, np.uint8).reshape(height, width, 3))
writer.release()
pathlib.Path(__file__).with_name("asked").write_text(" ".join(words))
"""


def test_without_an_encoder_it_says_what_does_not_play_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write_video(tmp_path / "scene.mp4", PICTURES, 4.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "scene.mp4 is VP9" in line
    assert "install ffmpeg" in line
    assert len(list(video_pictures(tmp_path / "scene.mp4"))) == 4


def test_the_program_is_given_the_pictures_and_an_encoder_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    write_video(tmp_path / "scene.mp4", PICTURES, 5.0)
    assert capfd.readouterr().err == ""
    asked = program.with_name("asked").read_text()
    assert "-c:v libopenh264 -pix_fmt yuv420p" in asked
    shown = list(video_pictures(tmp_path / "scene.mp4"))
    assert [round(picture.mean(), -1) for picture in shown] == [0, 60, 120, 180]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_it_is_h264(tmp_path: Path) -> None:
    write_video(tmp_path / "scene.mp4", PICTURES, 4.0)
    codec = int(cv2.VideoCapture(str(tmp_path / "scene.mp4")).get(cv2.CAP_PROP_FOURCC))
    assert codec.to_bytes(4, "little") in (b"avc1", b"h264")
