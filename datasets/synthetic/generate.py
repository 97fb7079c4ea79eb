"""Writes a synthetic A2D2: raw files in the real data set's layout, names, keys and types, with its quirks.

    python -m datasets.synthetic --out DIR --scenes 3 --frames 40 --image-size 1920 1208 --seed 0

Camera picture, semantic label, lidar sweep, 3-D boxes and bus signals of a frame all describe one moment of a small
world (world.py) seen through the real camera's model (render.py), distortion included. At another
image size the calibration is scaled with it; the lidar sends the same rays (about 8,000 come back) at every size.
A scene depends on the seed, its index and `frames` alone, so more scenes leave the first ones as they are.

Steering: the angle of the steering wheel that keeps the car in its lane, from the lane's curvature at the car.

Boxes: `2d_bbox` bounds the outline of the solid itself (the real files bound the corners of the 3-D box), so that it
fits the label. A solid is labelled if at least a tenth of it, and a few pixels, can be seen; `occlusion` is the hidden
share of what lies in the picture and `truncation` the share of 2d_bbox outside the picture, both 0 to 1.

Masks: class_list.json has fewer names than the boxes have classes, so VanSUV is painted as Car and Bus as Utility
vehicle; the mask tells the other classes of the boxes apart. MASK_OF_BOX in solids.py says why.

Quirks of the real data set. Each scene of six frames or more has every one of these once, on a frame drawn by the seed:

- beside: a car next to the camera, whose box reaches far outside the picture (other boxes do so too);
- duplicates: one or two boxes stand there several times, exactly alike (among them that of such a car);
- no boxes: nothing on the road, an empty label3D;
- rgba: the label PNG has an alpha channel;
- prefixed: the sweep's keys are `pcloud_points`, `pcloud_attr.row`, ..., with some `pcloud_attr.valid` false;
- empty sweep: zero-length arrays in even scenes, no points at all among the keys in odd ones;
- no steering: the signal is absent from the bus in even scenes, empty in odd ones;
- sentinel: some angles are 614.10 (initialising) and 614.25 (error);
- other camera: the bus file has an entry for a frame of another camera.

Beside the scenes lie files, as in the real data set: cams_lidars.json, class_list.json, and synthetic.json (settings).
`--semantic N`: a second folder, as the real set's, with N further frames of each scene that have no boxes and no
angles, and with copies of those in the first. Times are those of a scene of all these frames, so it becomes longer.
N = 0, the default, leaves it out. They have none of the quirks.

A rerun with the same settings goes on where an earlier one stopped; with other settings it refuses.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from arguments import whole
from datasets.a2d2.classes import COLOURS, rgb_of
from datasets.a2d2.geometry import FRONT_CENTER, Calibration
from datasets.a2d2.raw import FRAMES_PER_SECOND, NAME, RawData, seconds_of
from datasets.files import read_json, whole_file, write_json
from datasets.frames import Frame
from datasets.synthetic.render import LIDAR_RANGE_M, Camera, Moment, View
from datasets.synthetic.solids import Placed
from datasets.synthetic.world import World
from errors import UserError

SMALLEST_SIZE = 64, 40  # W, H in px
WHEELBASE_M = 2.9
STEERING_RATIO = 15.6  # turns of the steering wheel per turn of the front wheels
ANGLE_STEP_DEG = 0.15
BUS_SAMPLES, BUS_STEP_US = 21, 10_000
SENTINELS_DEG = 614.10, 614.25  # initialising, error
RINGS, AZIMUTHS = 16, 230  # of each lidar
LIDAR_ROLLS_DEG = 0, 18, -18, 7, -7
LABEL_RGB = np.array([rgb_of(colour) for colour in COLOURS], np.uint8)
QUIRKS = (
    "no boxes",
    "duplicates",
    "empty sweep",
    "beside",
    "no steering",
    "rgba",
    "sentinel",
    "prefixed",
    "other camera",
)
PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
FEWEST_FRAMES_FOR_QUIRKS = 6


@dataclass(frozen=True)
class FramePlan:
    """What is known of a frame before anything is rendered."""

    frame: Frame
    scene_index: int
    seed: int
    quirks: frozenset[str]
    has_boxes: bool = True  # else it lies in the second folder only

    @property
    def rng_seed(self) -> list[int]:
        return [self.seed, self.scene_index, int(self.frame.id)]


@dataclass(frozen=True)
class Job:
    """One frame to be written."""

    out: Path
    image_size: tuple[int, int]
    plan: FramePlan


# ---- plans: which frames there are, and which quirk falls on which ------------------------------------------


def scene_name(index: int, seed: int) -> str:
    """A name like 20180807_145028, later for each further scene."""
    rng = np.random.default_rng([seed, index, 1])
    day = datetime(2018, 8, 7) + timedelta(days=3 * index)
    return (day + timedelta(seconds=int(rng.integers(8 * 3600, 17 * 3600)))).strftime("%Y%m%d_%H%M%S")


def frame_numbers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers (30 a second) of a scene's labelled frames: gaps of 2.9 s median, 23 % of them under 1 s."""
    short = rng.random(count) < 0.23
    gaps = np.where(short, rng.uniform(0.15, 0.95, count), rng.uniform(1.5, 5.5, count))
    return 90 + np.cumsum(np.rint(gaps * FRAMES_PER_SECOND).astype(int))


def plan_scene(index: int, frames: int, seed: int, semantic: int = 0) -> list[FramePlan]:
    """The frames of a scene, in order of time: `frames` with boxes and, all over its time, `semantic` without."""
    rng = np.random.default_rng([seed, index, 2])
    name, numbers = scene_name(index, seed), frame_numbers(frames + semantic, rng)
    quirks: list[set[str]] = [set() for _ in range(frames)]
    if frames >= FEWEST_FRAMES_FOR_QUIRKS:
        order = rng.permutation(frames)
        for place, quirk in enumerate(QUIRKS):
            quirks[order[place % frames]].add(quirk)
    with_boxes = np.arange(frames) * len(numbers) // frames  # evenly: a split by time has its share of them
    odd = dict(zip(with_boxes.tolist(), quirks, strict=True))
    return [
        FramePlan(
            Frame(NAME, name, f"{number:09d}"), index, seed, frozenset(odd.get(place, ())), has_boxes=place in odd
        )
        for place, number in enumerate(numbers)
    ]


@lru_cache(maxsize=4)
def _camera(image_size: tuple[int, int]) -> Camera:
    return Camera(FRONT_CENTER.scaled(*image_size))


@lru_cache(maxsize=16)
def _world(seed: int, scene_index: int) -> World:
    return World((seed, scene_index))


def moment_of(plan: FramePlan) -> Moment:
    """The world at the time of a frame."""
    world = _world(plan.seed, plan.scene_index)
    overtaken = bool(plan.quirks & {"beside", "duplicates"})
    return Moment(world, seconds_of(plan.frame), traffic="no boxes" not in plan.quirks, overtaken=overtaken)


# ---- what a frame's files hold ------------------------------------------------------------------------------


def sweep(moment: Moment, calibration: Calibration, rng: np.random.Generator, start_us: int) -> dict[str, np.ndarray]:
    """A lidar sweep with the keys and types of the real npz files; N points, `points` is N x 3 (m)."""
    left, up, lidar = _rays(calibration, rng)
    nearness, label = moment.cast(left.astype(np.float32), up.astype(np.float32))
    back = (nearness > 1 / LIDAR_RANGE_M) & (rng.random(len(left)) < 0.97)
    left, up, lidar, label = left[back], up[back], lidar[back], label[back]
    depth = 1 / nearness[back].astype(np.float64) + rng.normal(0, 0.01, len(left))
    points = np.column_stack([depth, left * depth, up * depth])
    (fx, _, cx), (_, fy, cy), _ = calibration.undistorted
    shine = 10 + 25 * (label % 3)  # some classes reflect more than others
    return {
        "azimuth": np.arctan2(left, 1.0) % (2 * np.pi),
        "row": cy - fy * up,
        "lidar_id": lidar.astype(np.float64),
        "depth": depth,
        "reflectance": np.clip(rng.gamma(1.5, shine), 1, 251).astype(np.int64),
        "col": cx - fx * left,
        "points": points,
        "timestamp": start_us + np.sort(rng.integers(0, 100_000, len(left))),
        "distance": np.linalg.norm(points, axis=1),
    }


def _rays(calibration: Calibration, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes to the left and up (float64, N) and lidar (N) of the rays into the undistorted image or just beside it.

    Each lidar spins about its own leaning axis, so its rings cross those of the others.
    """
    elevation = np.radians(np.linspace(-17, 17, RINGS))
    lefts, ups = [], []
    for roll in np.radians(LIDAR_ROLLS_DEG):
        azimuth = np.radians(np.linspace(-36, 36, AZIMUTHS) + rng.uniform(0, 72 / AZIMUTHS))
        e, a = (grid.ravel() for grid in np.meshgrid(elevation + rng.uniform(-0.01, 0.01), azimuth))
        left, up = np.tan(a), np.tan(e) / np.cos(a)
        lefts.append(np.cos(roll) * left - np.sin(roll) * up)
        ups.append(np.sin(roll) * left + np.cos(roll) * up)
    left, up = np.concatenate(lefts), np.concatenate(ups)
    lidar = np.repeat(np.arange(len(LIDAR_ROLLS_DEG)), RINGS * AZIMUTHS)
    (fx, _, cx), (_, fy, cy), _ = calibration.undistorted
    width, height = calibration.resolution
    col, row = cx - fx * left, cy - fy * up
    near = (np.abs(col - width / 2) < width / 2 + 0.7) & (np.abs(row - height / 2) < height / 2 + 0.7)
    return left[near], up[near], lidar[near]


def boxes(moment: Moment, camera: Camera, view: View) -> list[dict[str, Any]]:
    """The boxes of a frame with the keys of the real label3D files, nearest first."""
    width, height = camera.calibration.resolution
    found: list[dict[str, Any]] = []
    for placed, visible, uncovered in zip(moment.solids, view.visible, view.uncovered, strict=True):
        if not placed.solid.box_class or visible < max(4, width * height / 40_000) or visible < 0.1 * uncovered:
            continue
        points = placed.to_camera(np.concatenate([part.corners() for part in placed.solid.parts]))
        col, row = camera.project(points)
        bbox = col.min(), row.min(), col.max(), row.max()
        inside = max(min(bbox[2], width) - max(bbox[0], 0), 0) * max(min(bbox[3], height) - max(bbox[1], 0), 0)
        if inside > 0:
            truncation = 1 - inside / ((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))
            found.append(_box(placed, bbox, len(found), 1 - visible / uncovered, truncation))
    return found


def _box(placed: Placed, bbox: tuple[float, ...], number: int, occlusion: float, truncation: float) -> dict[str, Any]:
    length, width, height = placed.solid.size
    floor = [(-length, width), (length, width), (length, -width), (-length, -width)]
    corners = placed.to_camera(np.array([(x / 2, y / 2, z) for z in (0.0, height) for x, y in floor]))
    return {
        "2d_bbox": [round(float(edge), 4) for edge in bbox],
        "3d_points": corners.tolist(),
        "alpha": 0.0,
        "axis": [0.0, 0.0, -1.0],  # so the angle grows to the right
        "center": corners.mean(0).tolist(),
        "class": placed.solid.box_class,
        "id": number,
        "occlusion": round(float(occlusion), 2),
        "rot_angle": float(-placed.heading % (2 * np.pi)),
        "size": [length, width, height],
        "truncation": min(round(float(truncation), 2), 0.99),  # not 1: some of it is in the picture
    }


def steering_deg(world: World, seconds: np.ndarray) -> np.ndarray:
    """Angle of the steering wheel, degrees, left positive, in the bus's steps."""
    wheels = np.arctan(WHEELBASE_M * world.path_curvature(seconds))
    return np.rint(np.degrees(STEERING_RATIO * wheels) / ANGLE_STEP_DEG) * ANGLE_STEP_DEG


def bus_entry(plan: FramePlan) -> dict[str, Any]:
    """The bus signals of a frame, 0.1 s to each side of it."""
    world = _world(plan.seed, plan.scene_index)
    centre = timestamp_us(plan.frame)
    offsets_us = (np.arange(BUS_SAMPLES) - BUS_SAMPLES // 2) * BUS_STEP_US
    angles = steering_deg(world, seconds_of(plan.frame) + offsets_us / 1e6)
    size, sign = np.round(np.abs(angles), 2), (angles < 0).astype(int)
    measured = size.copy()
    if "sentinel" in plan.quirks:
        measured[:4], measured[-2:] = SENTINELS_DEG
    rack = np.round(size / STEERING_RATIO, 2)
    speed = np.round(np.full(BUS_SAMPLES, 3.6 * world.speed), 2)
    signals = {
        "steering_angle": ("Unit_DegreOfArc", rack),
        "steering_angle_calculated": ("Unit_DegreOfArc", measured),
        "steering_angle_calculated_sign": (None, sign),
        "steering_angle_sign": (None, sign),
        "vehicle_speed": ("Unit_KiloMeterPerHour", speed),
    }
    stamps = (centre + offsets_us).tolist()
    flexray = {
        name: {"timestamps": stamps, "unit": unit, "values": values.tolist()}
        for name, (unit, values) in signals.items()
    }
    if "no steering" in plan.quirks:
        if plan.scene_index % 2:
            flexray["steering_angle_calculated"].update(timestamps=[], values=[])
        else:
            del flexray["steering_angle_calculated"]
    name = f"{plan.frame.scene.replace('_', '')}_camera_frontcenter_{plan.frame.id}.json"
    return {"flexray": flexray, "frame_name": name, "timestamp": centre}


def timestamp_us(frame: Frame) -> int:
    """Microseconds since 1970 at which a frame was taken."""
    start = (datetime.strptime(frame.scene, "%Y%m%d_%H%M%S") - datetime(1970, 1, 1)).total_seconds()
    return round((start + seconds_of(frame)) * 1_000_000)


# ---- files --------------------------------------------------------------------------------------------------


def write_dataset(
    out: str | Path,
    scenes: int = 3,
    frames: int = 40,
    image_size: tuple[int, int] = (1920, 1208),
    seed: int = 0,
    threads: int = 1,
    semantic: int = 0,
) -> RawData:
    """Write `scenes` x `frames` frames of `image_size` (W, H) below `out`, or what is still missing of them.

    `semantic`: further frames of each scene, in the second folder.
    """
    raw = RawData(out)
    settings = {"scenes": scenes, "frames": frames, "image_size": list(image_size), "seed": seed}
    _claim(raw, settings | ({"semantic": semantic} if semantic else {}))
    write_json(raw.class_list_path, COLOURS, indent=4)
    write_json(raw.calibration_path, calibration_json(image_size), indent=2)
    plans = [plan for index in range(scenes) for plan in plan_scene(index, frames, seed, semantic)]
    jobs = [Job(raw.root, image_size, plan) for plan in plans]
    todo = [job for job in jobs if not raw.copies("camera", job.plan.frame)]
    for count, _ in enumerate(_run(todo, threads), 1):
        if sys.stderr.isatty():
            print(f"\r{count} of {len(todo)} frames", end="" if count < len(todo) else "\n", file=sys.stderr)
    with_boxes = [plan for plan in plans if plan.has_boxes]
    for scene, planned in groupby(with_boxes, lambda plan: plan.frame.scene):
        write_json(raw.bus_path(scene), list(_bus(planned)))
    if semantic:
        for plan in with_boxes:
            _copy_to_second_folder(raw, plan.frame)
        for path in (raw.class_list_path, raw.calibration_path):
            _copy(path, raw.semantic_dir / path.name)
    return raw


def _copy_to_second_folder(raw: RawData, frame: Frame) -> None:
    """The frames with boxes are among those with classes. The camera's picture comes last, as in `write_frame`."""
    for kind in ("label", "lidar", "camera"):
        _copy(raw.path_in(raw.images_dir, kind, frame), raw.path_in(raw.semantic_dir, kind, frame))


def _copy(source: Path, target: Path) -> None:
    if not target.is_file():
        with whole_file(target) as file:
            file.write(source.read_bytes())


def _run(jobs: list[Job], threads: int) -> Iterator[None]:
    with ExitStack() as stack:
        run = stack.enter_context(ProcessPoolExecutor(threads)).map if threads > 1 else map
        yield from run(write_frame, jobs)


def _claim(raw: RawData, settings: dict[str, Any]) -> None:
    """Make sure that `out` is new or holds the same data set; note the settings there."""
    path = raw.class_list_path.with_name("synthetic.json")
    if path.is_file():
        if (there := read_json(path)) != settings:
            raise UserError(f"{raw.root} holds a synthetic data set with {there}, not {settings}: choose another --out")
    elif any(folder.exists() for folder in (*raw.images_dirs, raw.gateway_dir)):
        raise UserError(
            f"{raw.root} already holds a data set that was not written by this script: choose another --out"
        )
    else:
        write_json(path, settings)


def calibration_json(image_size: tuple[int, int]) -> dict[str, Any]:
    """cams_lidars.json: the front-center camera scaled to the image size."""
    camera = FRONT_CENTER.scaled(*image_size)
    view = {"origin": [1.711, 0.0, 0.943], "x-axis": [1.0, 0.0, 0.0], "y-axis": [0.0, 1.0, 0.0]}
    front_center = {
        "tstamp_delay": 25000,
        "view": view,
        "CamMatrix": [list(row) for row in camera.undistorted],
        "CamMatrixOriginal": [list(row) for row in camera.distorted],
        "Distortion": [list(camera.distortion)],
        "Lens": "Telecam",
        "Resolution": list(camera.resolution),
    }
    return {"vehicle": {"view": view | {"origin": [0.0, 0.0, 0.0]}}, "cameras": {"front_center": front_center}}


def _bus(scene: Iterable[FramePlan]) -> Iterator[dict[str, Any]]:
    for plan in scene:
        yield bus_entry(plan)
        if "other camera" in plan.quirks:
            entry = bus_entry(plan)
            yield entry | {"frame_name": entry["frame_name"].replace("frontcenter", "sideleft")}


def write_frame(job: Job) -> None:
    """Write a frame's files; the camera's picture comes last and tells that the frame is complete."""
    raw, plan, camera = RawData(job.out), job.plan, _camera(job.image_size)
    path_of = partial(raw.path_in, raw.images_dir if plan.has_boxes else raw.semantic_dir)
    moment = moment_of(plan)
    view = moment.view(camera, plan.rng_seed)
    rng = np.random.default_rng([*plan.rng_seed, 3])
    label = LABEL_RGB[view.label]
    if "rgba" in plan.quirks:
        label = np.dstack([label, np.full(label.shape[:2], 255, np.uint8)])
    _write_png(path_of("label", plan.frame), label)
    points = sweep(moment, camera.calibration, rng, timestamp_us(plan.frame))
    with whole_file(path_of("lidar", plan.frame)) as file:
        np.savez(file, allow_pickle=False, **_odd_sweep(points, plan, rng))
    if plan.has_boxes:
        found = boxes(moment, camera, view)
        if "duplicates" in plan.quirks:
            found += found[:1] * 3 + found[1:2]
        write_json(path_of("label3D", plan.frame), {f"box_{n}": box for n, box in enumerate(found)}, indent=4)
    picture = path_of("camera", plan.frame)
    about = {"cam_name": "front_center", "cam_tstamp": timestamp_us(plan.frame), "image_png": picture.name}
    write_json(picture.with_suffix(".json"), about)
    _write_png(picture, view.colour)


def _odd_sweep(points: dict[str, np.ndarray], plan: FramePlan, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The sweep as it is filed: nearly always as it is."""
    if "empty sweep" in plan.quirks:
        kept = ("lidar_id", "timestamp") if plan.scene_index % 2 else points
        return {name: points[name][:0] for name in kept}
    if "prefixed" in plan.quirks:
        valid = rng.random(len(points["row"])) > 0.03
        points["depth"] = np.where(valid, points["depth"], 1.0)  # what is not valid must not be used
        points["points"] = np.where(valid[:, None], points["points"], 0.0)
        odd = {("pcloud_points" if name == "points" else f"pcloud_attr.{name}"): points[name] for name in points}
        return odd | {"pcloud_attr.valid": valid}
    return points


def _write_png(path: Path, image: np.ndarray) -> None:
    """RGB or RGBA. Little compression and one filter: the default takes twice the time."""
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    good, content = cv2.imencode(".png", cv2.cvtColor(image, code), PNG_SETTINGS)
    if not good:
        raise RuntimeError(f"{path} could not be encoded")
    with whole_file(path) as file:
        file.write(content.tobytes())


# ---- command line -------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.synthetic",
        description="Write a synthetic A2D2 into OUT: raw files of all kinds, as A2D2 has them.\n\n"
        "python -m datasets.synthetic --out Datasets --scenes 8 --frames 20 --semantic 40 --image-size 640 402",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="such as Datasets; must be given")
    parser.add_argument("--scenes", type=whole(1), default=3, metavar="N", help="such as 8 (default 3)")
    parser.add_argument(
        "--frames", type=whole(1), default=40, metavar="N", help="of each scene, such as 20 (default 40)"
    )
    parser.add_argument(
        "--image-size",
        type=whole(1),
        nargs=2,
        metavar=("W", "H"),
        default=(1920, 1208),
        help="in pixels, such as 640 402 (default 1920 1208, as A2D2 has it)",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the world, such as 1 (default 0)")
    parser.add_argument(
        "--semantic", type=whole(0), default=0, metavar="N", help="further frames a scene, without boxes (default 0)"
    )
    parser.add_argument(
        "--threads",
        type=whole(1),
        default=1,
        metavar="N",
        help="processes, such as 4 (default 1); the files do not depend on it",
    )
    options = parser.parse_args(arguments)
    if options.image_size[0] < SMALLEST_SIZE[0] or options.image_size[1] < SMALLEST_SIZE[1]:
        parser.error(f"--image-size must be at least {SMALLEST_SIZE[0]} {SMALLEST_SIZE[1]}")
    return options


def main() -> None:
    options = parse_arguments()
    width, height = options.image_size
    raw = write_dataset(
        options.out, options.scenes, options.frames, (width, height), options.seed, options.threads, options.semantic
    )
    print(f"{options.scenes} scenes of {options.frames} frames, {width}x{height}, are in {raw.root}")
