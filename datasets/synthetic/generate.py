"""Writes a synthetic A2D2: raw files in the real data set's layout, names, keys and types, with its quirks.

    python -m datasets.synthetic --out DIR --scenes 3 --frames 40 --image-size 1920 1208 --seed 0

Camera picture, semantic label, lidar sweep, 3-D boxes and bus signals of a frame all describe one moment of a small
world (world.py) seen through the real camera's model (render.py), distortion included. At another image size the
calibration is scaled with it; the lidar sends the same rays (about 8,000 come back) at every size.
A scene depends on the seed, its index, `frames` and `semantic` alone, so more scenes leave the first ones as they are.

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

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.a2d2.classes import COLOURS, rgb_of
from datasets.a2d2.geometry import FRONT_CENTER
from datasets.a2d2.raw import RawData
from datasets.files import read_json, whole_file, write_json
from datasets.frames import Frame
from datasets.synthetic.contents import boxes, bus, calibration_json, odd_sweep, sweep, timestamp_us
from datasets.synthetic.planning import FramePlan, moment_of, plan_scene
from datasets.synthetic.render import Camera
from errors import UserError

LABEL_RGB = np.array([rgb_of(colour) for colour in COLOURS], np.uint8)
PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]


@dataclass(frozen=True)
class Job:
    """One frame to be written."""

    out: Path
    image_size: tuple[int, int]
    plan: FramePlan


@lru_cache(maxsize=4)
def _camera(image_size: tuple[int, int]) -> Camera:
    return Camera(FRONT_CENTER.scaled(*image_size))


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
        write_json(raw.bus_path(scene), list(bus(planned)))
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
        np.savez(file, allow_pickle=False, **odd_sweep(points, plan, rng))
    if plan.has_boxes:
        found = boxes(moment, camera, view)
        if "duplicates" in plan.quirks:
            found += found[:1] * 3 + found[1:2]
        write_json(path_of("label3D", plan.frame), {f"box_{n}": box for n, box in enumerate(found)}, indent=4)
    picture = path_of("camera", plan.frame)
    about = {"cam_name": "front_center", "cam_tstamp": timestamp_us(plan.frame), "image_png": picture.name}
    write_json(picture.with_suffix(".json"), about)
    _write_png(picture, view.colour)


def _write_png(path: Path, image: np.ndarray) -> None:
    """RGB or RGBA. Little compression and one filter: the default takes twice the time."""
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    good, content = cv2.imencode(".png", cv2.cvtColor(image, code), PNG_SETTINGS)
    if not good:
        raise RuntimeError(f"{path} could not be encoded")
    with whole_file(path) as file:
        file.write(content.tobytes())
