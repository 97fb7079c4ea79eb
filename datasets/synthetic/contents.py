"""What a synthetic data set's raw files hold, with A2D2's keys and types: sweep, boxes, bus signals, calibration."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np

from datasets.a2d2.geometry import FRONT_CENTER, Calibration
from datasets.a2d2.raw import seconds_of
from datasets.frames import Frame
from datasets.synthetic.planning import FramePlan
from datasets.synthetic.render import LIDAR_RANGE_M, Camera, Moment, View
from datasets.synthetic.solids import Placed
from datasets.synthetic.world import World

WHEELBASE_M = 2.9
STEERING_RATIO = 15.6  # turns of the steering wheel per turn of the front wheels
ANGLE_STEP_DEG = 0.15
BUS_SAMPLES, BUS_STEP_US = 21, 10_000
SENTINELS_DEG = 614.10, 614.25  # initialising, error
RINGS, AZIMUTHS = 16, 230  # of each lidar
LIDAR_ROLLS_DEG = 0, 18, -18, 7, -7


# ---- lidar ------------------------------------------------------------------------------------------------------


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


def odd_sweep(points: dict[str, np.ndarray], plan: FramePlan, rng: np.random.Generator) -> dict[str, np.ndarray]:
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


# ---- boxes ------------------------------------------------------------------------------------------------------


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


# ---- bus and calibration ----------------------------------------------------------------------------------------


def steering_deg(world: World, seconds: np.ndarray) -> np.ndarray:
    """Angle of the steering wheel, degrees, left positive, in the bus's steps."""
    wheels = np.arctan(WHEELBASE_M * world.path_curvature(seconds))
    return np.rint(np.degrees(STEERING_RATIO * wheels) / ANGLE_STEP_DEG) * ANGLE_STEP_DEG


def bus_entry(plan: FramePlan) -> dict[str, Any]:
    """The bus signals of a frame, 0.1 s to each side of it."""
    centre = timestamp_us(plan.frame)
    offsets_us = (np.arange(BUS_SAMPLES) - BUS_SAMPLES // 2) * BUS_STEP_US
    angles = steering_deg(plan.world, seconds_of(plan.frame) + offsets_us / 1e6)
    size, sign = np.round(np.abs(angles), 2), (angles < 0).astype(int)
    measured = size.copy()
    if "sentinel" in plan.quirks:
        measured[:4], measured[-2:] = SENTINELS_DEG
    rack = np.round(size / STEERING_RATIO, 2)
    speed = np.round(np.full(BUS_SAMPLES, 3.6 * plan.world.speed), 2)
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


def bus(scene: Iterable[FramePlan]) -> Iterator[dict[str, Any]]:
    """The entries of a scene's bus file."""
    for plan in scene:
        yield bus_entry(plan)
        if "other camera" in plan.quirks:
            entry = bus_entry(plan)
            yield entry | {"frame_name": entry["frame_name"].replace("frontcenter", "sideleft")}


def timestamp_us(frame: Frame) -> int:
    """Microseconds since 1970 at which a frame was taken."""
    start = (datetime.strptime(frame.scene, "%Y%m%d_%H%M%S") - datetime(1970, 1, 1)).total_seconds()
    return round((start + seconds_of(frame)) * 1_000_000)


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
