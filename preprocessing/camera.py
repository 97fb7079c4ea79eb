"""Camera frames: undistorted and resized RGB, uint8 H x W x 3 .npy (or JPEG, for a tenth of the disk).

Training reads these instead of decoding 3 MB PNGs again in every epoch; where they are missing it makes the same
array from the raw PNG.

python preprocessing/camera.py --size 512 320 --format jpeg

Writes PROCESSED_ROOT/camera/SCENE/FRAME.npy or .jpg, and times.csv, settings.json and report.json beside the scenes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from typing import Any

import cv2
import numpy as np

from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import RawData, seconds_of
from datasets.a2d2.stage import A2D2Stage, image_settings, run_stage
from datasets.conversion import Label
from datasets.frames import Frame
from datasets.processed import CAMERA_SUFFIXES
from errors import run_as_script

JPEG_QUALITY = 95


class Camera(A2D2Stage):
    kind = "camera"
    raw_kind = "camera"
    describing = frozenset({"resolution"})

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--format",
            choices=list(CAMERA_SUFFIXES),
            default="npy",
            help=f"of the files; jpeg has quality {JPEG_QUALITY} and takes a tenth of the disk (default npy)",
        )

    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        shared = image_settings(args, raw)
        return {**shared, "format": args.format, "resolution": shared["calibration"]["resolution"]}

    def times(self, raw: RawData) -> dict[Frame, float]:
        """Of all raw frames, so that shards and parts of the scenes write the same."""
        return {frame: seconds_of(frame) for frame in raw.frames(self.raw_kind)}

    def suffix(self, settings: dict[str, Any]) -> str:
        return CAMERA_SUFFIXES[settings["format"]]

    def prepare(self, settings: dict[str, Any]) -> None:
        self.map = ImageMap(Calibration(**settings["calibration"]), tuple(settings["size"]))
        self.jpeg = settings["format"] == "jpeg"

    def convert(self, path: Path) -> Label:
        image = self.map.image(self.map.read(path))
        return Label(encode_jpeg(image) if self.jpeg else image)


def encode_jpeg(rgb: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


if __name__ == "__main__":
    run_as_script(lambda: run_stage(Camera()))
