"""Depth labels: each lidar sweep -> uint16 H x W .npy, metres x 256 (KITTI's convention), 0 = no measurement.

Each point is placed at its own pixel of the target size (a depth image is never resized); where several points meet
the nearest one wins, since it is what the camera sees. Frames without points get no file.

python preprocessing/depth_preprocess.py --size 512 320 --splat 3

Writes PROCESSED_ROOT/depth/SCENE/FRAME.npy, and settings.json and report.json beside the scenes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from typing import Any

import numpy as np

from datasets.a2d2.geometry import Calibration
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.a2d2.stage import A2D2Stage, image_settings, run_stage
from datasets.conversion import Label
from datasets.depth_maps import MAX_METRES, UNITS_PER_METRE, nearest_points
from datasets.files import npz_arrays
from errors import run_as_script

LARGEST_SPLAT = 31  # the time that a frame takes grows with its square
FARTHEST = {"row": 1e6, "col": 1e6, "depth": 1e4, "distance": 1e4}  # px, m: a number beyond is no measurement


class Depth(A2D2Stage):
    kind = "depth"
    raw_kind = "lidar"
    describing = frozenset({"range"})

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--measure",
            choices=["depth", "distance"],
            default="depth",
            help="along the camera's axis, or from the sensor to the point (default depth)",
        )
        parser.add_argument(
            "--splat", type=odd, default=1, metavar="K", help="K x K pixels a point, K odd, such as 3 (default 1)"
        )

    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        return {
            **image_settings(args, raw),
            "measure": args.measure,
            "splat": args.splat,
            **LABELS[self.kind].to_json(),
        }

    def prepare(self, settings: dict[str, Any]) -> None:
        self.calibration = Calibration(**settings["calibration"])
        self.size = tuple(settings["size"])
        self.measure, self.splat = settings["measure"], settings["splat"]

    def convert(self, path: Path) -> Label:
        points = read_sweep(path, self.measure)
        if points is None:
            return Label(None)
        row, col, metres = points
        inside = self.calibration.inside(col, row)
        near, far = metres * UNITS_PER_METRE >= 0.5, metres > MAX_METRES
        counts = {
            "points_outside_image": int(np.count_nonzero(~inside)),
            "points_too_far": int(np.count_nonzero(inside & far)),
            "points_not_in_front": int(np.count_nonzero(inside & ~near)),
        }
        keep = inside & near & ~far
        if not keep.any():
            return Label(None, counts)
        x, y = self.calibration.scale_points(col[keep], row[keep], self.size)
        return Label(nearest_points(x, y, metres[keep], self.size, self.splat), counts)


def odd(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LARGEST_SPLAT or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"{text} is not odd and from 1 to {LARGEST_SPLAT}")
    return number


def read_sweep(path: Path, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Row, column (undistorted px) and depth or distance (m), float64 N each; None for an empty or key-less sweep.

    Some subsets of A2D2 prefix the keys (`pcloud_attr.row`) and mark the measured points in `pcloud_attr.valid`.
    Raises ValueError where arrays are missing, of different length, or hold what can't be true.
    """
    read = {name.removeprefix("pcloud_attr."): call for name, call in npz_arrays(path).items()}
    wanted = ["row", "col", measure]
    if not any(name in read for name in wanted):
        return None
    if missing := [name for name in wanted if name not in read]:
        raise ValueError(f"no array {', '.join(missing)}")
    arrays = [read[name]() for name in wanted]
    for name, array in zip(wanted, arrays, strict=True):
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{name} is {array.dtype}, not numbers")
    valid = read["valid"]() if "valid" in read else None
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"arrays of shapes {', '.join(str(array.shape) for array in arrays)}, not of one length")
    if valid is not None:
        if valid.shape != arrays[0].shape or valid.dtype.kind not in "biu":
            raise ValueError(f"valid is {valid.dtype} of shape {valid.shape}, not a flag for each of {arrays[0].shape}")
        arrays = [array[valid.astype(bool)] for array in arrays]
    if arrays[0].size == 0:
        return None
    row, col, metres = (array.astype(np.float64) for array in arrays)
    for name, array in zip(wanted, (row, col, metres), strict=True):
        if not (np.abs(array) <= FARTHEST[name]).all():  # false for NaN as well
            raise ValueError(f"{name} is not finite, or beyond {FARTHEST[name]:,.0f}")
    return row, col, metres


if __name__ == "__main__":
    run_as_script(lambda: run_stage(Depth()))
