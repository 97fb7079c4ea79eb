"""Every kind of data file, damaged in every way: one message that names it, the right exit code, and nothing lost.

A case is a kind of file and a damage. A script meets the damaged file beside whole ones: exit code 2 and one line
where it can't go on, 1 and the name of what was left out where it can. Processed labels are met by the loader, which
names what it leaves out; training and evaluation warn of it and exit with 0. What was there before is as it was. To
add a kind (checkpoints, packs), add an entry to KINDS: the damages that any file can have come by themselves.
"""

import hashlib
import io
import json
import os
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.a2d2.raw import RAW_KINDS, RawData
from datasets.a2d2.stage import A2D2Stage
from datasets.processed import ProcessedData
from datasets.roots import Root
from datasets.samples import LabelledFrames, Sample
from errors import run_as_script
from preprocessing import report
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tasks import TASKS
from tests import folder_files
from tests.raw_files import frames, small_raw_data, write_every_kind
from tests.stages import run
from training.config import load_config
from training.runs import SingleTaskRun

SMALL = ("--size", "32", "20")
FRAME, OTHER = frames(2)
STAGES: dict[str, type[A2D2Stage]] = {
    "camera": Camera,
    "segmentation": Segmentation,
    "depth": Depth,
    "box": Boxes,
    "steering": Steering,
}
PROCESSED = (*STAGES, "camera as JPEG")
Damage = Callable[[bytes], bytes]


class World:
    """A raw data set of two frames, what was made of it, a data set in folders with its recipes, and a config."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.raw, self.processed = RawData(folder / "raw"), ProcessedData(folder / "processed")
        self.jpegs = ProcessedData(folder / "jpegs")
        self.data, self.from_data = folder / "data", ProcessedData(folder / "from_data")
        self.recipe, self.coco_recipe = folder / "recipe.yaml", folder / "coco" / "recipe.yaml"
        self.config = folder / "config.yaml"

    def fill(self) -> None:
        small_raw_data(self.raw.root)
        write_every_kind(self.raw, [FRAME, OTHER])
        for stage in STAGES.values():
            assert run(stage(), self.raw, self.processed, *SMALL) == 0
        assert run(Depth(), self.raw, self.processed, *SMALL, "--shard", "1/1") == 0
        assert run(Camera(), self.raw, self.jpegs, *SMALL, "--format", "jpeg") == 0
        write_folders(self)
        assert folder_files.run(self.recipe, self.data, self.from_data) == 0
        shutil.copy(Path(__file__).parents[1] / "configs" / "single_task_conf.yaml", self.config)

    def hashes(self) -> dict[Path, str]:
        """Of all that was made, except the reports of runs."""
        roots = (self.processed.root, self.jpegs.root, self.from_data.root)
        files = (path for root in roots for path in root.rglob("*") if path.is_file() and "report" not in path.name)
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_folders(world: World) -> None:
    rng, data = np.random.default_rng(1), world.data
    names = ["a/1", "a/2", "b/1"]
    for name in names:
        scene, id = name.split("/")
        suffix = "jpg" if name == "a/2" else "npy" if name == "b/1" else "png"
        folder_files.write_array(data / scene / "image" / f"{id}.{suffix}", folder_files.picture())
        folder_files.write_array(data / scene / "label" / f"{id}.png", rng.integers(0, 3, (12, 16), np.uint8))
        folder_files.write_array(data / scene / "depth" / f"{id}.npy", rng.uniform(1, 9, (12, 16)))
        folder_files.write_text(data / scene / "box" / f"{id}.txt", "0 0.5 0.5 0.25 0.25\n1 0.25 0.5 0.1 0.2\n")
    folder_files.write_text(data / "angles.csv", "frame,angle\n" + "".join(f"{name},0.25\n" for name in names))
    folder_files.write_text(data / "train.txt", "a/1\na/2\n")
    folder_files.write_text(data / "val.txt", "b/1\n")
    boxes = [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]
    images = [{"id": 1, "file_name": "a/image/1.png"}]
    coco = {"categories": [{"id": 7, "name": "car"}], "images": images, "annotations": boxes}
    folder_files.write_text(data / "coco.json", json.dumps(coco))
    patterns = [f"{{scene}}/image/{{id}}.{suffix}" for suffix in ("png", "jpg", "npy")]
    recipe = {
        "name": "toy",
        "image": {"files": patterns},
        "segmentation": {"files": "{scene}/label/{id}.png", "classes": ["road", "sky", "tree"]},
        "depth": {"files": "{scene}/depth/{id}.npy", "range": [1.0, 80.0]},
        "box": {"files": "{scene}/box/{id}.txt", "classes": ["car", "bus"], "format": "yolo"},
        "steering": {"csv": "angles.csv", "frame": "frame", "angle": "angle", "factor": 57.3},
        "split": {"by": "lists", "train": "train.txt", "val": "val.txt"},
    }
    folder_files.write_recipe(world.folder, recipe)
    world.coco_recipe.parent.mkdir()
    box = {"files": "coco.json", "classes": ["car", "bus"], "format": "coco"}
    folder_files.write_recipe(world.coco_recipe.parent, {"name": "toy", "image": {"files": patterns}, "box": box,
                                                         "split": recipe["split"]})  # fmt: skip


# ---- damages ------------------------------------------------------------------------------------------------------


def with_content(change: Damage) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def replaced_by(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


COMMON: dict[str, Callable[[Path], None]] = {
    "cut in the middle": with_content(lambda content: content[: len(content) // 2]),
    "cut after 10 bytes": with_content(lambda content: content[:10]),
    "empty": with_content(lambda content: b""),
    "bytes of no kind": with_content(lambda content: bytes(range(128, 256)) * 9),
    "a folder": replaced_by(Path.mkdir),
    "a pipe": replaced_by(os.mkfifo),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path.name)),
    "a link to nothing": replaced_by(lambda path: path.symlink_to("nothing")),
}


def flipped(place: float, bit: int = 0) -> Damage:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(place * len(content))] ^= 1 << bit
        return bytes(changed)

    return flip


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)


def huge_png(_: bytes) -> bytes:
    """50,000 x 50,000 pixels in a few bytes."""
    header = (50_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(_: bytes) -> bytes:
    return cv2.imencode(".jpg", np.zeros((60, 96, 3), np.uint8))[1].tobytes()


PNG: dict[str, Damage] = {
    **{f"a bit flipped at {place}": flipped(place) for place in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "its last byte gone": lambda content: content[:-1],
    "no IEND": lambda content: content[:-12],
    "junk behind its end": lambda content: content + b"junk",
    "50,000 x 50,000": huge_png,
    "a JPEG": jpeg,
}


def npy(array: np.ndarray) -> Damage:
    def write(_: bytes) -> bytes:
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.save(file, array, allow_pickle=True)
        return file.getvalue()

    return write


def claims(shape: str) -> Damage:
    """A header that promises another shape than there are bytes for."""

    def write(content: bytes) -> bytes:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content

    return write


NPY: dict[str, Damage] = {
    "pickled": npy(np.array([{}, print], object)),
    "complex": npy(np.zeros((20, 32), complex)),
    "text": npy(np.full((20, 32), "x")),
    "dates": npy(np.zeros((20, 32), "M8[s]")),
    "structured": npy(np.zeros((20, 32), [("a", int)])),
    "four dimensions": npy(np.zeros((1, 20, 32, 1), np.uint8)),
    "of shape ()": npy(np.uint8(3)),
    "claims petabytes": claims("(1000000, 1000000000)"),
    "claims a negative shape": claims("(-20, 32)"),
    "claims a shape of 30 digits": claims(f"({10**30}, 0)"),
    "claims more than it has": claims("(2000, 3200)"),
    "its last byte gone": lambda content: content[:-1],
}
MAPS: dict[str, Damage] = NPY | {
    "of another size": npy(np.zeros((21, 32), np.uint8)),
    "of floats": npy(np.zeros((20, 32), np.float32)),
}


def npz(**changed: Any) -> Damage:
    """The sweep with other arrays; None: without it."""

    def write(content: bytes) -> bytes:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        row = arrays["row"]
        arrays = {name: array for name, array in (arrays | changed).items() if array is not None}
        arrays = {name: array(row) if callable(array) else array for name, array in arrays.items()}
        file = io.BytesIO()
        np.savez(file, allow_pickle=True, **arrays)
        return file.getvalue()

    return write


def bomb(_: bytes) -> bytes:
    """Two gigabytes of zeros in two megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("row", "col", "depth", "distance"):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), claims("(2000000000,)")(b""))
    return file.getvalue()


NPZ: dict[str, Damage] = {
    **{f"a bit flipped at {place}": flipped(place) for place in (0.05, 0.1, 0.35)},
    "depth of text": npz(depth=lambda row: np.full(len(row), "1.5")),
    "depth complex": npz(depth=lambda row: row.astype(complex)),
    "depth of dates": npz(depth=lambda row: np.zeros(len(row), "M8[s]")),
    "depth of flags": npz(depth=lambda row: np.ones(len(row), bool)),
    "depth structured": npz(depth=lambda row: np.zeros(len(row), [("a", float)])),
    "depth pickled": npz(depth=lambda row: row.astype(object)),
    "depth NaN": npz(depth=lambda row: row * np.nan),
    "depth infinite": npz(depth=lambda row: row + np.inf),
    "depth missing": npz(depth=None),
    "depth beyond all": npz(depth=lambda row: np.full(len(row), 2**62)),
    "row 1e300": npz(row=lambda row: np.full(len(row), 1e300)),
    "col -1e300": npz(col=lambda row: np.full(len(row), -1e300)),
    "depth of two dimensions": npz(depth=lambda row: row.reshape(2, -1)),
    "valid of text": npz(valid=lambda row: np.full(len(row), "yes")),
    "a bomb": bomb,
}


def deep(_: bytes) -> bytes:
    return b"[" * 100_000


def changed_json(change: Callable[[Any], Any]) -> Damage:
    def write(content: bytes) -> bytes:
        found = json.loads(content)
        result = change(found)
        return json.dumps(found if result is None else result).encode()

    return write


def put(value: Any, *path: Any) -> Damage:
    """Another value at a place of the JSON."""

    def change(content: Any) -> Any:
        if not path:
            return value
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return None

    return changed_json(change)


def without(*path: Any) -> Damage:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return changed_json(change)


JSON: dict[str, Damage] = {
    "nested 100,000 deep": deep,
    "a number of 5,000 digits": lambda _: b"9" * 5000,
    "null": lambda _: b"null",
    "a text": lambda _: b'"text"',
    "a list of null": lambda _: b"[null]",
    "its last byte gone": lambda content: content.rstrip()[:-1],
    "a key twice": lambda content: content.replace(b"{", b'{"twice": 1, "twice": 2, ', 1),
}
YAML: dict[str, Damage] = {
    "nested 100,000 deep": deep,
    "a key twice": lambda content: content + b"\ntwice: 1\ntwice: 2\n",
    "an unknown key": lambda content: content + b"\nnobody_knows: 1\n",
    "billion laughs": lambda content: (
        b"a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)).encode()
    ),
    "an alias that holds itself": lambda content: content + b"\nloop: &a [*a]\n",
    "a tag": lambda content: content + b"\ncode: !!python/object/apply:os.system [true]\n",
    "a list": lambda content: b"- 1\n",
}

NOT_A_NUMBER: tuple[Any, ...] = (None, "1", [1], float("nan"), float("inf"), 1e300)


def numbers_at(*path: Any, but: tuple[Any, ...] = ()) -> dict[str, Damage]:
    return {f"{path[-1]} is {value!r}": put(value, *path) for value in NOT_A_NUMBER if value not in but}


# ---- kinds --------------------------------------------------------------------------------------------------------


@dataclass
class Kind:
    """A kind of file: where one lies, what reads it, and how that ends where the file is damaged."""

    path: Callable[[World], Path]
    read: Callable[[World], int]  # the exit code
    code: int  # 0: the loader leaves it out; 1: a script leaves it out; 2: nothing can go on
    damages: dict[str, Damage] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()  # damages that nothing can notice: a shorter text that is one as well


def stage(kind: str) -> Callable[[World], int]:
    """A run that finds no label of the frame and makes it."""

    def read(world: World) -> int:
        world.processed.path(kind, FRAME).unlink()
        return run(STAGES[kind](), world.raw, world.processed, *SMALL)

    return read


def folders(world: World) -> int:
    """A run that finds the labels that were made and makes the first frames' again."""
    for path in world.from_data.root.rglob("[12].*"):
        if path.parent.name == "a":
            path.unlink()
    return folder_files.run(world.recipe, world.data, world.from_data)


def coco(world: World) -> int:
    return folder_files.run(world.coco_recipe, world.data, ProcessedData(world.folder / "from_coco"))


def label(kind: str) -> Callable[[World], int]:
    """What training does before it begins, and the loader: a label that can't be read is named, and left out."""

    def read(world: World) -> int:
        root = Root.open(None, world.jpegs if kind == "camera as JPEG" else world.processed, (32, 20))
        root.frames(), root.seconds([FRAME]), root.processed.spec()
        tasks = {} if "camera" in kind else {kind: TASKS[kind](spec=root.processed.label_spec(kind))}
        root.check_labels(tasks)
        item = LabelledFrames({root.name: root}, tasks, [Sample(FRAME, tuple(tasks))])[0]
        print(item.get("unreadable", ""))
        return 0

    return read


def shard_report(world: World) -> int:
    return 0 if report.merge_kind(world.processed, "depth") else 1


def config(world: World) -> int:
    load_config(SingleTaskRun, world.config, [])
    return 0


def raw_file(kind: str) -> Callable[[World], Path]:
    return lambda world: world.raw.path(kind, FRAME)


def processed_file(kind: str) -> Callable[[World], Path]:
    if kind == "camera as JPEG":
        return lambda world: world.jpegs.path("camera", FRAME, ".jpg")
    return lambda world: world.processed.path(kind, FRAME)


def settings_file(kind: str) -> Callable[[World], Path]:
    return lambda world: world.processed.settings_path(kind)


def in_data(*names: str) -> Callable[[World], Path]:
    return lambda world: world.data.joinpath(*names)


CAMERA_KEYS = ("cameras", "front_center")
KINDS: dict[str, Kind] = {
    "raw camera": Kind(raw_file("camera"), stage("camera"), 1, PNG),
    "raw label": Kind(raw_file("label"), stage("segmentation"), 1, PNG),
    "raw lidar": Kind(raw_file("lidar"), stage("depth"), 1, NPZ),
    "raw label3D": Kind(
        raw_file("label3D"), stage("box"), 1,
        JSON | numbers_at("box_1", "occlusion", but=(1e300,)) | numbers_at("box_1", "2d_bbox", 2) | {
            "bbox is a text": put("1234", "box_1", "2d_bbox"),
            "bbox of texts": put(["1", "2", "3", "4"], "box_1", "2d_bbox"),
            "bbox of three": put([1, 2, 3], "box_1", "2d_bbox"),
            "bbox of flags": put([True, False, True, True], "box_1", "2d_bbox"),
            "unknown class": put("Spaceship", "box_1", "class"),
            "class is a list": put(["Car"], "box_1", "class"),
            "class missing": without("box_1", "class"),
        },
    ),
    "raw bus": Kind(
        lambda world: world.raw.bus_path(FRAME.scene), stage("steering"), 1,
        JSON | {
            "no flexray": without(0, "flexray"),
            "flexray is a list": put([], 0, "flexray"),
            "a signal is a text": put("0", 0, "flexray", "steering_angle_calculated"),
            "values nested": put([[1]], 0, "flexray", "steering_angle_calculated", "values"),
            "values infinite": put([1e999] * 21, 0, "flexray", "steering_angle_calculated", "values"),
            "5,000 degrees": put([5000.0] * 21, 0, "flexray", "steering_angle_calculated", "values"),
            "times nested": put([[[]]] * 21, 0, "flexray", "steering_angle_calculated", "timestamps"),
            "another scene": put("19990101000000_camera_frontcenter_000000091.json", 0, "frame_name"),
        },
    ),
    "raw calibration": Kind(
        lambda world: world.raw.calibration_path, stage("depth"), 2,
        JSON | numbers_at(*CAMERA_KEYS, "Resolution") | numbers_at(*CAMERA_KEYS, "CamMatrix", 0, 0)
        | numbers_at(*CAMERA_KEYS, "Distortion", 0, 1, but=("1",)) | {
            "resolution 1e30": put([1e30, 60], *CAMERA_KEYS, "Resolution"),
            "last row 5, 5, 5": put([5, 5, 5], *CAMERA_KEYS, "CamMatrix", 2),
            "a fish-eye": put("Fisheye", *CAMERA_KEYS, "Lens"),
            "no front_center": without(*CAMERA_KEYS),
        },
    ),
    "recipe": Kind(
        lambda world: world.recipe, folders, 2,
        YAML | {"an integer as name": lambda content: content.replace(b"name: toy", b"name: 12", 1)},
    ),
    "folder image.png": Kind(in_data("a", "image", "1.png"), folders, 1, PNG),
    "folder image.jpg": Kind(in_data("a", "image", "2.jpg"), folders, 1),
    "folder image.npy": Kind(
        in_data("b", "image", "1.npy"), lambda world: drop(world, "camera", "b/1") or folders(world), 1,
        NPY,
    ),
    "folder mask": Kind(in_data("a", "label", "1.png"), folders, 1, PNG | {"a bit flipped at 0.1": flipped(0.2)}),
    "folder depth": Kind(in_data("a", "depth", "1.npy"), folders, 1, NPY),
    "folder boxes": Kind(
        in_data("a", "box", "1.txt"), folders, 1,
        {
            "a word too few": lambda _: b"0 0.5 0.5 0.25\n",
            "NaN": lambda _: b"0 nan 0.5 0.25 0.25\n",
            "an infinity": lambda _: b"0 1e999 0.5 0.25 0.25\n",
            "far away": lambda _: b"0 0.5 0.5 1e300 0.25\n",
            "unknown class": lambda _: b"7 0.5 0.5 0.25 0.25\n",
        },
        harmless=("empty", "cut in the middle"),
    ),
    "folder COCO": Kind(
        in_data("coco.json"), coco, 2,
        JSON | {
            "no images": without("images"),
            "ids are lists": put([], "images", 0, "id"),
            "a box of no image": put(99, "annotations", 0, "image_id"),
            "a file name is a number": put(3, "images", 0, "file_name"),
        },
    ),
    "folder table": Kind(
        in_data("angles.csv"), folders, 2,
        {
            "no header": lambda content: content.partition(b"\n")[2],
            "another header": lambda content: content.replace(b"angle", b"angel", 1),
            "a NUL": lambda content: content.replace(b"angle\n", b"angle\n\x00\x00,\x00\n", 1),
        },
        harmless=("cut in the middle", "a NUL"),
    ),
    "folder list": Kind(
        in_data("train.txt"), folders, 2,
        {"an unknown frame": lambda _: b"c/9\n"},
        harmless=("empty", "cut after 10 bytes", "cut in the middle"),
    ),
    "config": Kind(
        lambda world: world.config, config, 2,
        YAML | {
            "an integer as task": lambda content: content.replace(b"\n  segmentation:", b"\n  7:", 1),
            "settings: false": lambda content: content.replace(b"settings:\n", b"settings: false\n", 1)
            if b"settings:\n" in content else b"tasks: {segmentation: {settings: false}}\n",
            "a network that is a list": lambda content: b"tasks: {segmentation: {network: {name: [unet]}}}\n",
        },
        harmless=("cut in the middle",),
    ),
    "dataset.json": Kind(
        lambda world: world.processed.dataset_path, label("box"), 2,
        JSON | {
            "no name": put({}),
            "name is a list": put(["a2d2"], "name"),
            "name is a path": put("../a2d2", "name"),
            "split is a text": put("train", "split"),
            "split of numbers": put({"train": [1], "val": [], "test": []}, "split"),
        },
    ),
    "camera settings": Kind(
        settings_file("camera"), label("camera"), 2,
        JSON | {
            "{}": put({}),
            "no size": without("size"),
            "size of texts": put(["32", "20"], "size"),
            "size of three": put([32, 20, 3], "size"),
            "size 1e300": put([1e300, 20], "size"),
            "another size": put([40, 30], "size"),
            "format png": put("png", "format"),
            "format is a list": put(["npy"], "format"),
        },
    ),
    "segmentation settings": Kind(
        settings_file("segmentation"), label("segmentation"), 2,
        JSON | {
            "{}": put({}),
            "no size": without("size"),
            "another size": put([40, 30], "size"),
            "a class twice": put(["a", "a"], "classes"),
            "classes are numbers": put([1, 2], "classes"),
            "calibration is a text": put("none", "calibration"),
        },
    ),
    "processed camera": Kind(processed_file("camera"), label("camera"), 0, MAPS),
    "processed camera as JPEG": Kind(
        processed_file("camera as JPEG"), label("camera as JPEG"), 0,
        {"of another size": jpeg, "its last byte gone": lambda content: content[:-1]},
    ),
    "processed segmentation": Kind(
        processed_file("segmentation"), label("segmentation"), 0,
        MAPS | {"a class that there is not": npy(np.full((20, 32), 200, np.uint8))},
    ),
    "processed depth": Kind(processed_file("depth"), label("depth"), 0, MAPS),
    "processed box": Kind(
        processed_file("box"), label("box"), 0,
        JSON | numbers_at("boxes", 0, "bbox", 0) | {
            "bbox of three": put([1, 2, 3], "boxes", 0, "bbox"),
            "class is a list": put([["Car"]], "boxes", 0, "class"),
            "unknown class": put("Spaceship", "boxes", 0, "class"),
            "boxes are nested": put([[[]]], "boxes"),
            "no size": without("size"),
            "a size of 643 megapixels": put([32000, 20100], "size"),
            "no area": put([4, 4, 4, 4], "boxes", 0, "bbox"),
        },
    ),
    "processed steering": Kind(
        processed_file("steering"), label("steering"), 0,
        JSON | numbers_at("angles", 0) | {
            "angles nested": put([[1.0]], "angles"),
            "no angles": put([], "angles"),
            "5,000 degrees": put([5000.0], "angles"),
            "radians": put("rad", "unit"),
        },
    ),
    "times": Kind(
        lambda world: world.processed.times_path, label("camera"), 2,
        {
            "another header": lambda content: content.replace(b"seconds", b"minutes"),
            "a text as time": lambda content: content + b"20180807_145028/000000999,noon\n",
            "an infinite time": lambda content: content + b"20180807_145028/000000999,1e999\n",
            "a row of one": lambda content: content + b"20180807_145028/000000999\n",
        },
        harmless=("cut in the middle",),
    ),
    "shard report": Kind(
        lambda world: world.processed.report_path("depth", (1, 1)), shard_report, 2,
        JSON | {"{}": put({}), "counts are texts": put({"a": "b"}, "counts"), "failed is null": put(None, "failed")},
    ),
}  # fmt: skip


def drop(world: World, kind: str, name: str) -> None:
    world.from_data.path(kind, next(f for f in world.from_data.frames(kind) if f.in_dataset == name)).unlink()


CASES = [
    pytest.param(name, damage, id=f"{name}: {what}")
    for name, kind in KINDS.items()
    for what, damage in (COMMON | {what: with_content(change) for what, change in kind.damages.items()}).items()
    if what not in kind.harmless
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("whole"))
    world.fill()
    return world


@pytest.fixture
def world(whole: World, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(whole.folder, tmp_path / "world")
    yield World(tmp_path / "world")
    shutil.rmtree(tmp_path / "world")  # hundreds of them


def ending_of(call: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and all that was printed, as of a script. Any other exception would have been a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_as_script(call)
    shown = capsys.readouterr()
    return ended.value.code, shown.out + shown.err


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_it_is_named_and_nothing_is_lost(
    world: World, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    kind = KINDS[name]
    path = kind.path(world)
    damage(path)
    before = world.hashes()
    code, text = ending_of(partial(kind.read, world), capsys)
    (line, *others) = [line for line in text.splitlines() if path.name in line or str(path) in line] or [text]
    assert path.name in line, text
    assert code == kind.code, text
    assert "Traceback" not in text
    assert len(line) < 1000
    if code == 2:
        assert line.startswith("error: ")
        assert not others
    after = world.hashes()
    lost = {path for path in before if after.get(path) != before[path]}
    assert not [path for path in lost if not is_made_again(path)]


def is_made_again(path: Path) -> bool:
    """A label that the case itself took away for the run to make."""
    return not path.exists()


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_read(world: World, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending_of(partial(KINDS[name].read, world), capsys)[0] == 0


def test_every_kind_of_data_file_has_cases() -> None:
    assert {name.removeprefix("raw ") for name in KINDS if name.startswith("raw ")} == {
        *RAW_KINDS,
        "bus",
        "calibration",
    }
    assert {name.removeprefix("processed ") for name in KINDS if name.startswith("processed ")} == set(PROCESSED)
    assert len(CASES) >= 80
    for name in KINDS:
        assert sum(case.values[0] == name for case in CASES) >= 6, name
