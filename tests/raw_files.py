"""Raw A2D2 files written by hand, at a small size: what the tests of the preprocessing scripts feed on.

Nothing here comes from datasets/synthetic/ or from the code under test, except the paths of datasets.layout.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.processed import ProcessedData

SIZE = (96, 60)
WIDTH, HEIGHT = SIZE
SCENE, OTHER_SCENE = "20180807_145028", "20181108_091945"
PREFIX = "pcloud_attr."

# a camera of the size above: distorted like the real one but wider (some pixels have no source), with all coefficients
CAMERA = {
    "CamMatrix": [[78.4, 0.0, 48.3], [0.0, 79.6, 31.0], [0.0, 0.0, 1.0]],
    "CamMatrixOriginal": [[92.2, 0.0, 47.9], [0.0, 91.5, 33.3], [0.0, 0.0, 1.0]],
    "Distortion": [[-0.26, 0.02, 0.003, -0.002, 0.001]],
    "Lens": "Telecam",
    "Resolution": [WIDTH, HEIGHT],
}

# the first colours of the list, two instances of one class among them, and two colours that no class has
LISTED_COLOURS = [
    (255, 0, 0),
    (200, 0, 0),
    (182, 89, 6),
    (255, 128, 0),
    (135, 206, 255),
    (255, 0, 255),
    (241, 230, 255),
]
UNLISTED_COLOURS = [(1, 2, 3), (254, 0, 0)]


def frames(count: int, scene: str = SCENE) -> list[Frame]:
    return [Frame("a2d2", scene, f"{91 + 30 * number:09d}") for number in range(count)]


def write_calibration(raw: RawData, camera: dict[str, Any] = CAMERA) -> None:
    _write(raw.calibration_path, json.dumps({"cameras": {"front_center": camera}, "lidars": {}}).encode())


def small_raw_data(root: Path) -> RawData:
    """An empty raw data set whose calibration is CAMERA."""
    raw = RawData(root)
    write_calibration(raw)
    return raw


def write_png(path: Path, rgb: np.ndarray, alpha: np.ndarray | None = None) -> None:
    bgr = rgb[..., ::-1] if alpha is None else np.dstack([rgb[..., ::-1], alpha])
    _write(path, cv2.imencode(".png", np.ascontiguousarray(bgr))[1].tobytes())


def random_picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def random_label(rng: np.random.Generator) -> np.ndarray:
    """Every pixel an independent colour, some of them unlisted: a nearest neighbour that is off by one shows."""
    colours = np.array(LISTED_COLOURS + UNLISTED_COLOURS, np.uint8)
    return colours[rng.integers(0, len(colours), (HEIGHT, WIDTH))]


def random_sweep(rng: np.random.Generator, points: int = 400) -> dict[str, np.ndarray]:
    """Points all over the image and a little outside; some beyond the largest depth, many on one pixel."""
    depth = rng.uniform(2.0, 300.0, points)
    return {
        "row": rng.uniform(-4, HEIGHT + 4, points),
        "col": rng.uniform(-4, WIDTH + 4, points),
        "depth": depth,
        "distance": depth * rng.uniform(1.0, 1.2, points),
        "reflectance": rng.integers(0, 200, points),
    }


def write_sweep(raw: RawData, frame: Frame, arrays: dict[str, np.ndarray], prefix: str = "") -> Path:
    path = raw.path("lidar", frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=True, **{prefix + name: array for name, array in arrays.items()})
    return path


def box(kind: str, bbox: list[float], **more: Any) -> dict[str, Any]:
    """A box as label3D has it."""
    return {"2d_bbox": bbox, "class": kind, "occlusion": 0.0, "truncation": 0.0, "id": 0, "axis": [0, 0, -1], **more}


def random_boxes(rng: np.random.Generator, count: int = 8) -> list[dict[str, Any]]:
    """Boxes in and around the image, some of them twice, some outside."""
    boxes = []
    for _ in range(count):
        left, top = rng.uniform(-60, WIDTH + 20), rng.uniform(-60, HEIGHT + 20)
        right, bottom = left + rng.uniform(0, 60), top + rng.uniform(0, 60)
        kind = ["Car", "Pedestrian", "Truck"][rng.integers(3)]
        boxes.append(box(kind, [left, top, right, bottom], occlusion=float(rng.integers(3)), truncation=0.5))
    return boxes + [dict(boxes[index]) for index in rng.integers(0, count, 3)]


def write_boxes(raw: RawData, frame: Frame, boxes: list[dict[str, Any]]) -> Path:
    path = raw.path("label3D", frame)
    return _write(path, json.dumps({f"box_{number}": box for number, box in enumerate(boxes)}).encode())


def signal(values: list[Any], first_timestamp: int = 0, unit: str = "Unit_DegreOfArc") -> dict[str, Any]:
    timestamps = [first_timestamp + 10_000 * number for number in range(len(values))]
    return {"timestamps": timestamps, "values": values, "unit": unit}


def bus_entry(frame: Frame, angles: list[float], signs: list[float], camera: str = "frontcenter") -> dict[str, Any]:
    """One frame of a bus file. The rack's signal holds other angles than the steering wheel's."""
    start = 1_000_000 * int(frame.id)
    flexray = {
        "steering_angle_calculated": signal(angles, start),
        "steering_angle_calculated_sign": signal(signs, start + 7, unit="null"),
        "steering_angle": signal([angle / 2 for angle in angles], start + 3),
        "steering_angle_sign": signal(signs, start + 5, unit="null"),
        "vehicle_speed": signal([50.0], start, unit="Unit_KiloMeterPerHour"),
    }
    name = f"{frame.scene.replace('_', '')}_camera_{camera}_{frame.id}.json"
    return {"frame_name": name, "timestamp": start, "flexray": flexray}


def random_bus_entry(rng: np.random.Generator, frame: Frame, samples: int = 21) -> dict[str, Any]:
    angles = np.round(rng.uniform(0, 500, samples) / 0.15) * 0.15
    angles[rng.random(samples) < 0.1] = 614.1
    angles[rng.random(samples) < 0.1] = 0.0
    return bus_entry(frame, angles.tolist(), rng.integers(0, 2, samples).astype(float).tolist())


def write_bus(raw: RawData, scene: str, entries: list[dict[str, Any]]) -> Path:
    return _write(raw.bus_path(scene), json.dumps(entries).encode())


def write_every_kind(raw: RawData, of: list[Frame], seed: int = 0) -> None:
    """Random files of every kind for these frames, and the calibration."""
    rng = np.random.default_rng(seed)
    write_calibration(raw)
    for frame in of:
        write_png(raw.path("camera", frame), random_picture(rng))
        write_png(raw.path("label", frame), random_label(rng))
        write_sweep(raw, frame, random_sweep(rng))
        write_boxes(raw, frame, random_boxes(rng))
    for scene in sorted({frame.scene for frame in of}):
        write_bus(raw, scene, [random_bus_entry(rng, frame) for frame in of if frame.scene == scene])


def label_files(processed: ProcessedData, kind: str) -> dict[str, bytes]:
    """Everything below a kind's folder except the reports: relative path -> bytes. Temporary files would show."""
    folder = processed.kind_dir(kind)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("report"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
