"""Steering angles: each scene's bus file -> {"signal", "unit", "angles", "timestamps"} .json per front-center frame.

Angles are degrees of the steering wheel, left positive (the bus keeps the sign apart: 0 = left, 1 = right). 614 and
above are no measurements ('initialising', 'error') and are dropped with their timestamps. Zero is an angle. A frame
where nothing is left gets no file. One job is a scene's bus file, which is read once: --shard I/N takes every N-th
scene.

python preprocessing/steering_angle.py --signal steering_angle_calculated

Writes PROCESSED_ROOT/steering/SCENE/FRAME.json, and settings.json and report.json beside the scenes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets.a2d2.raw import RawData, parse_bus_frame_name
from datasets.a2d2.stage import A2D2Stage, run_stage
from datasets.conversion import BadSource, Label
from datasets.files import parse_json, read_bytes
from datasets.frames import Frame
from datasets.spec import LARGEST_ANGLE
from errors import reason_of, run_as_script
from strict import DataModel, checked

FIRST_SENTINEL = 614.0  # degrees: 614.10 means 'initialising', 614.25 'error'
UNIT = "Unit_DegreOfArc"
SIGNS: dict[float, float] = {0: 1.0, 1: -1.0}  # left, right
SIGNALS = ["steering_angle_calculated", "steering_angle"]


@dataclass(frozen=True)
class BusFile:
    """A job: one scene's bus signals."""

    scene: str
    path: Path

    def __str__(self) -> str:
        return self.scene


class Steering(A2D2Stage):
    kind = "steering"
    raw_kind = "bus"
    describing = frozenset({"unit"})

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--signal",
            choices=SIGNALS,
            default=SIGNALS[0],
            help=f"of the bus; steering_angle is that of the rack, in spite of its name (default {SIGNALS[0]})",
        )

    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        return {"signal": args.signal, "unit": "deg"}  # --size has no part in angles

    def prepare(self, settings: dict[str, Any]) -> None:
        self.signal = settings["signal"]

    def searched(self, raw: RawData) -> Path:
        return raw.gateway_dir

    def jobs(self, raw: RawData) -> list[BusFile]:
        return [BusFile(scene, path) for scene, path in raw.bus_paths().items()]

    def labels(self, raw: RawData, job: BusFile) -> Iterator[tuple[Frame, Path, Callable[[], Label]]]:
        for frame, entry in read_entries(job).items():
            yield frame, job.path, partial(self.convert, entry)

    def convert(self, entry: dict[str, Any]) -> Label:
        measured = signed_angles(entry.get("flexray"), self.signal)
        if measured is None:
            return Label(None)
        angles, timestamps, dropped = measured
        counts = {"angles": len(angles), "sentinels_dropped": dropped}
        if not angles:
            return Label(None, counts)
        content = {"signal": self.signal, "unit": "deg", "angles": angles, "timestamps": timestamps}
        return Label(json.dumps(content).encode(), counts)


def read_entries(bus: BusFile) -> dict[Frame, dict[str, Any]]:
    """The front-center frames of a bus file, in its order. Raises BadSource where the file as a whole can't be used."""
    try:
        entries = parse_json(read_bytes(bus.path))
        if not isinstance(entries, list):
            raise ValueError(f"a {type(entries).__name__} instead of a list of frames")
        if not all(isinstance(entry, dict) and isinstance(entry.get("frame_name"), str) for entry in entries):
            raise ValueError("an entry without frame_name")
        named = [(parse_bus_frame_name(entry["frame_name"]), entry) for entry in entries]
        frames = {frame: entry for frame, entry in named if frame is not None}
        if strangers := [frame for frame in frames if frame.scene != bus.scene]:
            raise ValueError(f"names {strangers[0]}, a frame of another scene")
    except (OSError, ValueError) as error:
        raise BadSource(bus.path, reason_of(error)) from None
    return frames


class Signal(DataModel):
    """What is taken of a signal in a bus file: one frame's."""

    values: list[float] | None = None
    timestamps: list[int | float] | None = None
    unit: str | None = None


def signed_angles(signals: Any, name: str) -> tuple[list[float], list[float], int] | None:
    """Angles (deg, left positive), their timestamps, and how many sentinels were dropped; None: no such signal.

    Raises ValueError for lengths that differ, a sign other than 0 or 1, an angle that is negative or not possible.
    """
    if not isinstance(signals, dict):
        raise ValueError("no flexray with the signals by name")
    try:
        angle, sign = (checked(Signal, signals.get(key) or {}) for key in (name, f"{name}_sign"))
    except ValueError as error:
        raise ValueError(f"{name} or its sign: {error}") from None
    values, signs, timestamps = angle.values or [], sign.values or [], angle.timestamps or []
    if not values or not signs:
        return None
    if not len(values) == len(signs) == len(timestamps):
        raise ValueError(f"{name}: {len(values)} values, {len(signs)} signs, {len(timestamps)} timestamps")
    if angle.unit != UNIT:
        raise ValueError(f"{name}: unit {angle.unit!r} instead of {UNIT!r}")
    if not all(value >= 0 for value in values):
        raise ValueError(f"{name}: an angle is negative; the sign belongs into {name}_sign")
    if max(values) > LARGEST_ANGLE:
        raise ValueError(f"{name}: an angle of {max(values):g} degrees; at most {LARGEST_ANGLE:g} are possible")
    if not all(value in SIGNS for value in signs):
        raise ValueError(f"{name}_sign: a sign other than 0 (left) and 1 (right)")
    rows = [
        (SIGNS[sign] * value + 0.0, timestamp)  # + 0.0: no negative zero
        for value, sign, timestamp in zip(values, signs, timestamps, strict=True)
        if value < FIRST_SENTINEL
    ]
    return [value for value, _ in rows], [timestamp for _, timestamp in rows], len(values) - len(rows)


if __name__ == "__main__":
    run_as_script(lambda: run_stage(Steering()))
