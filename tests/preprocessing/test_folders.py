"""Data sets in folders, from a recipe to the processed root: exact labels, one-line errors, resume, --check."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.files import read_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from errors import UserError
from tests.folder_files import (
    SIZE,
    array_label,
    failures,
    json_label,
    names,
    picture,
    run,
    slow_nearest,
    slow_sparse,
    write_array,
    write_recipe,
    write_text,
)
from tests.processes import PATIENCE

IMAGE = {"files": "{scene}/image/{id}.png"}
MASKS = {"files": "{scene}/label/{id}.png", "classes": ["road", "sky", "tree"]}
DEPTH = {"files": "{scene}/depth/{id}.png", "units_per_metre": 256.0, "range": [1.0, 80.0]}
FRAMES = ["a/1", "a/2", "b/1"]


def recipe(**kinds: Any) -> dict[str, Any]:
    return {"name": "toy", "image": IMAGE, **kinds}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images in two scenes, 16 x 12, with masks of classes 0-2 and 255, and sparse depth."""
    rng = np.random.default_rng(1)
    for frame in FRAMES:
        scene, id = frame.split("/")
        root = tmp_path / "data" / scene
        write_array(root / "image" / f"{id}.png", picture())
        write_array(root / "label" / f"{id}.png", rng.choice([0, 1, 2, 255], (12, 16)).astype(np.uint8))
        metres = rng.uniform(0.5, 100, (12, 16)) * (rng.random((12, 16)) < 0.4)
        write_array(root / "depth" / f"{id}.png", np.rint(256 * metres).astype(np.uint16))
    return tmp_path / "data"


def raw(data: Path, frame: str, kind: str) -> np.ndarray:
    scene, id = frame.split("/")
    return np.asarray(Image.open(data / scene / kind / f"{id}.png"))


# ---- a run ----------------------------------------------------------------------------------------------------


def test_images_masks_and_depth(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, recipe(segmentation=MASKS, depth=DEPTH | {"sparse": True}))
    assert run(path, data, processed) == 0
    assert processed.folders() == ["camera", "depth", "segmentation"]
    for frame in FRAMES:
        image = array_label(processed, "camera", *frame.split("/"))
        blocks = raw(data, frame, "image").reshape(6, 2, 8, 2, 3).mean((1, 3))
        assert (image.dtype, image.shape) == (np.uint8, (6, 8, 3))
        assert abs(image - blocks).max() <= 0.5
        mask = array_label(processed, "segmentation", *frame.split("/"))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, slow_nearest(raw(data, frame, "label"), SIZE))
        depth = array_label(processed, "depth", *frame.split("/"))
        assert depth.dtype == np.uint16
        np.testing.assert_array_equal(depth, slow_sparse(raw(data, frame, "depth") / 256, SIZE))
    assert read_json(processed.dataset_path) == {"name": "toy"}
    assert processed.times() == {}
    camera, masks, depth = (processed.settings(kind) for kind in ("camera", "segmentation", "depth"))
    assert [camera[key] for key in ("size", "format", "resolution")] == [list(SIZE), "npy", [16, 12]]
    assert (masks["size"], masks["classes"], len(set(masks["colours"]))) == (list(SIZE), MASKS["classes"], 3)
    assert (depth["size"], depth["range"]) == (list(SIZE), [1.0, 80.0])


def test_dense_depth_takes_the_nearest_pixel(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    assert run(write_recipe(tmp_path, recipe(depth=DEPTH)), data, processed) == 0
    for frame in FRAMES:
        found = array_label(processed, "depth", *frame.split("/"))
        np.testing.assert_array_equal(found, slow_nearest(raw(data, frame, "depth"), SIZE))


def test_shards_and_workers_make_the_same_files(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    kinds = recipe(segmentation=MASKS, times={"id": r"(\d+)", "factors": [0.5]},
                   split={"by": "folders", "train": ["a"], "val": ["b"]})  # fmt: skip
    path = write_recipe(tmp_path, kinds)
    assert run(path, data, processed) == 0
    shards, many = ProcessedData(tmp_path / "shards"), ProcessedData(tmp_path / "many")
    for shard in ("2/2", "1/2"):
        assert run(path, data, shards, "--shard", shard) == 0
    assert run(path, data, many, "--threads", "2") == 0

    def files(root: ProcessedData) -> dict[str, bytes]:
        paths = (path for path in root.root.rglob("*") if path.is_file() and not path.name.startswith("report"))
        return {str(path.relative_to(root.root)): path.read_bytes() for path in paths}

    assert files(processed) == files(shards) == files(many)
    assert processed.times() == {Frame("toy", *frame.split("/")): int(frame[-1]) / 2 for frame in FRAMES}
    assert read_json(processed.dataset_path)["split"] == {"train": ["a/1", "a/2"], "val": ["b/1"], "test": []}


def test_a_rerun_makes_what_is_missing(
    data: Path, processed: ProcessedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path, recipe(segmentation=MASKS))
    run(path, data, processed)
    processed.path("segmentation", Frame("toy", "a", "2")).unlink()
    capsys.readouterr()
    assert run(path, data, processed) == 0
    shown = capsys.readouterr().out
    assert "camera: 0 written, 3 already there" in shown
    assert "segmentation: 1 written, 2 already there" in shown


def test_scenes(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, recipe(segmentation=MASKS | {"files": "{scene}/label/{id}.png"}))
    (data / "b" / "label" / "1.png").unlink()
    assert run(path, data, processed, "--scenes", "b") == 0
    assert names(processed, "camera") == ["b/1"]
    assert names(processed, "segmentation") == []
    with pytest.raises(UserError, match=r"--scenes: c not found .* there are a, b"):
        run(path, data, processed, "--scenes", "c")


def test_other_settings_need_overwrite_and_other_colours_do_not(
    data: Path, processed: ProcessedData, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, recipe(segmentation=MASKS))
    run(path, data, processed)
    coloured = {"road": "#000001", "sky": "#000002", "tree": "#000003"}
    assert run(write_recipe(tmp_path, recipe(segmentation=MASKS | {"classes": coloured})), data, processed) == 0
    assert processed.settings("segmentation")["colours"] == list(coloured.values())
    fewer = write_recipe(tmp_path, recipe(segmentation=MASKS | {"ids": {0: "sky", 1: "sky", 2: "tree"}}))
    with pytest.raises(UserError, match="use --overwrite"):
        run(fewer, data, processed)
    assert run(fewer, data, processed, "--overwrite") == 0
    assert set(np.unique(array_label(processed, "segmentation", "a", "1"))) <= {1, 2, 255}


def test_raw_data_is_never_written_to(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    run(write_recipe(tmp_path, recipe(segmentation=MASKS, depth=DEPTH)), data, processed)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_labels_without_an_image_are_named(
    data: Path, processed: ProcessedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "a" / "image" / "2.png").unlink()
    assert run(write_recipe(tmp_path, recipe(segmentation=MASKS)), data, processed) == 0
    assert names(processed, "segmentation") == ["a/1", "b/1"]
    assert "1 segmentation labels without an image left out: a/2" in capsys.readouterr().err


# ---- masks ----------------------------------------------------------------------------------------------------


def one_mask(tmp_path: Path, processed: ProcessedData, array: np.ndarray, **section: Any) -> np.ndarray | str:
    """The label that a mask becomes at its own size, or why it failed."""
    suffix = section.pop("suffix", ".png")
    height, width = array.shape[:2]
    write_array(tmp_path / "data" / "1.jpg", picture(width, height))
    write_array(tmp_path / "data" / f"mask{suffix}" / f"1{suffix}", array)
    section = {"files": f"mask{suffix}/{{id}}{suffix}", "classes": ["road", "sky", "tree"], **section}
    path = write_recipe(tmp_path, {"name": "toy", "image": {"files": "{id}.jpg"}, "segmentation": section})
    code = run(path, tmp_path / "data", processed, "--size", str(width), str(height))
    if code == 1:
        return failures(processed, "segmentation")["toy/all/1"]
    return array_label(processed, "segmentation", "all", "1")


NUMBERS = np.array([[7, 8, 33], [1, 0, 8]], np.uint8)
IDS = {7: "tree", 8: "road", 33: "road"}


def test_ids_are_remapped(tmp_path: Path, processed: ProcessedData) -> None:
    found = one_mask(tmp_path, processed, NUMBERS, ids=IDS, no_class=[0, 1])
    np.testing.assert_array_equal(found, [[2, 0, 0], [255, 255, 0]])


def test_all_other_ids_may_be_no_class(tmp_path: Path, processed: ProcessedData) -> None:
    found = one_mask(tmp_path, processed, NUMBERS.astype(np.uint16) * 100, ids={700: "sky"}, no_class="rest")
    np.testing.assert_array_equal(found, [[1, 255, 255], [255, 255, 255]])


def test_an_id_that_is_not_in_the_table_fails_the_frame(tmp_path: Path, processed: ProcessedData) -> None:
    reason = one_mask(tmp_path, processed, NUMBERS, ids=IDS, no_class=[0])
    assert reason == "number 1 (1 pixels) is no class of the recipe and not no_class"
    assert names(processed, "segmentation") == []
    assert names(processed, "camera") == ["all/1"]


def test_an_array_of_floats_with_minus_one_for_no_class(tmp_path: Path, processed: ProcessedData) -> None:
    array = np.array([[-1.0, 2.0], [0.0, 1.0]])
    found = one_mask(tmp_path, processed, array, suffix=".npy", no_class=[-1])
    np.testing.assert_array_equal(found, [[255, 2], [0, 1]])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[0.5, 1.0]]), "not whole"),
        (np.array([[np.nan, 1.0]]), "not whole"),
        (np.array([[-2, 1]]), "number -2 (1 pixels)"),
        (np.array([[10**9, 1]]), "number 1000000000 (1 pixels)"),
        (np.zeros((2, 2, 2)), "not H x W"),
    ],
)
def test_an_array_that_is_no_mask(tmp_path: Path, processed: ProcessedData, array: np.ndarray, words: str) -> None:
    reason = one_mask(tmp_path, processed, array, suffix=".npy", no_class=[-1])
    assert isinstance(reason, str)
    assert words in reason


COLOURS = {"#0000ff": "sky", "#00ff00": "tree", "#00aa00": "tree"}


def test_colours_become_classes(tmp_path: Path, processed: ProcessedData) -> None:
    rgb = np.array([[[0, 0, 255], [0, 255, 0]], [[0, 170, 0], [0, 0, 0]]], np.uint8)
    found = one_mask(tmp_path, processed, rgb, colour_table=COLOURS, no_class=["#000000"])
    np.testing.assert_array_equal(found, [[1, 2], [2, 255]])
    assert processed.settings("segmentation")["colours"][1:] == ["#0000ff", "#00ff00"]


def test_a_colour_that_is_not_in_the_table_fails_the_frame(tmp_path: Path, processed: ProcessedData) -> None:
    rgb = np.array([[[0, 0, 255], [1, 2, 3]]], np.uint8)
    reason = one_mask(tmp_path, processed, rgb, colour_table=COLOURS, no_class=["#000000"])
    assert reason == "colour #010203 (1 pixels) is no class of the recipe and not no_class"


# ---- depth ----------------------------------------------------------------------------------------------------


def one_depth(tmp_path: Path, processed: ProcessedData, array: np.ndarray, **section: Any) -> np.ndarray | None:
    """The label that a depth map becomes at its own size, metres; None where it has none."""
    suffix = section.pop("suffix", ".png")
    height, width = array.shape[:2]
    write_array(tmp_path / "data" / "1.png", picture(width, height))
    write_array(tmp_path / "data" / "depth" / f"1{suffix}", array)
    section = {"files": f"depth/{{id}}{suffix}", "range": [0.5, 10.0], **section}
    path = write_recipe(tmp_path, {"name": "toy", "image": {"files": "{id}.png"}, "depth": section})
    assert run(path, tmp_path / "data", processed, "--size", str(width), str(height)) == 0
    label = array_label(processed, "depth", "all", "1")
    return None if label is None else label / 256


def test_8_bit_depth(tmp_path: Path, processed: ProcessedData) -> None:
    found = one_depth(tmp_path, processed, np.array([[0, 51, 255]], np.uint8), units_per_metre=25.5)
    np.testing.assert_array_equal(found, [[0, 2, 10]])


def test_depth_in_millimetres(tmp_path: Path, processed: ProcessedData) -> None:
    found = one_depth(tmp_path, processed, np.array([[65535, 2500, 0]], np.uint16), units_per_metre=1000, invalid=65535)
    np.testing.assert_array_equal(found, [[0, 2.5, 0]])


def test_disparity_as_in_cityscapes(tmp_path: Path, processed: ProcessedData) -> None:
    pixels = np.array([[0, 1, 257, 2561, 20481]], np.uint16)  # invalid, 0, 1, 10 and 80 px
    disparity = {"baseline": 0.2, "focal": 1000.0, "scale": 256.0, "offset": 1.0}
    found = one_depth(tmp_path, processed, pixels, disparity=disparity)
    np.testing.assert_array_equal(found, [[0, 0, 200, 20, 2.5]])
    counts = read_json(processed.report_path("depth"))["counts"]
    assert counts == {"pixels_too_far": 1, "pixels_not_in_front": 0}


def test_depth_in_an_array_of_metres(tmp_path: Path, processed: ProcessedData) -> None:
    array = np.array([[2.5, np.nan, np.inf, -1.0, 300.0, 0.0]], np.float32)[..., None]
    found = one_depth(tmp_path, processed, array, suffix=".npy")
    np.testing.assert_array_equal(found, [[2.5, 0, 0, 0, 0, 0]])
    counts = read_json(processed.report_path("depth"))["counts"]
    assert counts == {"pixels_too_far": 1, "pixels_not_in_front": 1}


def test_a_map_without_a_measurement_is_no_label(tmp_path: Path, processed: ProcessedData) -> None:
    assert one_depth(tmp_path, processed, np.zeros((2, 2), np.uint8), units_per_metre=10) is None
    assert read_json(processed.report_path("depth"))["without_label_frames"] == ["toy/all/1"]


# ---- boxes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of 16 x 12, of ids 1 to 3."""
    for id in (1, 2, 3):
        write_array(tmp_path / "data" / "img" / f"{id}.png", picture())
    return tmp_path / "data"


def boxes(tmp_path: Path, root: Path, processed: ProcessedData, **section: Any) -> int:
    return run(write_recipe(tmp_path, {"name": "toy", "image": {"files": "img/{id}.png"}, "box": section}),
               root, processed)  # fmt: skip


def of(processed: ProcessedData, id: str) -> list[tuple[str, list[float]]]:
    label = json_label(processed, "box", "all", id)
    assert label["size"] == [16, 12]
    return [(box["class"], box["bbox"]) for box in label["boxes"]]


def test_kitti_boxes(tmp_path: Path, images: Path, processed: ProcessedData) -> None:
    rest = "1.5 1.6 3.7 0 0 0 0"
    write_text(images / "txt" / "1.txt", f"Van 0 0 0 -4 2.5 8 20 {rest}\nDontCare -1 -1 -10 1 1 2 2 {rest}\n"
                                         f"Van 0 0 0 -4 2.5 8 20 {rest}\nTram 0 0 0 5 5 5 9 {rest}\n")  # fmt: skip
    write_text(images / "txt" / "2.txt", "")
    kinds = {"files": "txt/{id}.txt", "format": "kitti", "classes": ["Car", "Tram"]}
    assert boxes(tmp_path, images, processed, **kinds, rename={"Van": "Car"}, ignore=["DontCare"]) == 0
    assert names(processed, "box") == ["all/1", "all/2"]  # the third frame has no file, so no label
    assert of(processed, "1") == [("Car", [0, 2.5, 8, 12])]
    assert of(processed, "2") == []
    counts = read_json(processed.report_path("box"))["counts"]
    assert counts == {"boxes": 1, "boxes_ignored": 1, "duplicates_removed": 1, "outside_or_degenerate_removed": 1}
    settings = processed.settings("box")
    assert (settings["classes"], len(settings["colours"])) == (["Car", "Tram"], 2)


def test_yolo_boxes(tmp_path: Path, images: Path, processed: ProcessedData) -> None:
    write_text(images / "txt" / "1.txt", "0 0.5 0.5 0.25 0.5\n2 0.125 0.25 0.25 0.5\n1 0.5 0.5 0.1 0.1\n")
    kinds = {"files": "txt/{id}.txt", "format": "yolo", "classes": ["cat", "dog"]}
    assert boxes(tmp_path, images, processed, **kinds, rename={2: "cat"}, ignore=[1]) == 0
    assert of(processed, "1") == [("cat", [6, 3, 10, 9]), ("cat", [0, 0, 4, 6])]


COCO = {
    "images": [{"id": 7, "file_name": "1.png"}, {"id": 8, "file_name": "img/2.png"}, {"id": 9, "file_name": "9.png"}],
    "categories": [{"id": 3, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    "annotations": [
        {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 99, 5.5]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def test_coco_boxes(tmp_path: Path, images: Path, processed: ProcessedData, capsys: pytest.CaptureFixture) -> None:
    write_text(images / "instances.json", json.dumps(COCO))
    kinds = {"files": "instances.json", "format": "coco", "classes": ["person", "toothbrush"]}
    assert boxes(tmp_path, images, processed, **kinds) == 0
    assert names(processed, "box") == ["all/1", "all/2"]  # the third image is not in the file, so it has no label
    assert of(processed, "1") == [("toothbrush", [1, 2, 4, 6]), ("person", [0, 0, 16, 5.5])]
    assert of(processed, "2") == []
    assert "1 box labels without an image left out: 9.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("format", "line", "words"),
    [
        ("kitti", "Spaceship 0 0 0 1 1 2 2 0 0 0 0 0 0 0", "class 'Spaceship' is not in the recipe"),
        ("kitti", "Car 0 0 0 1 1 2", "7 words"),
        ("kitti", "Car 0 0 0 1 1 2 nan 0 0 0 0 0 0 0", "not 4 finite numbers"),
        ("yolo", "5 0.5 0.5 0.1 0.1", "class '5'"),
        ("yolo", "0 0.5 0.5 0.1 0.1 0.9", "not 4 finite numbers"),
        ("yolo", "0 0.5 0.5 0.1 wide", "not 4 finite numbers"),
    ],
)
def test_a_bad_box_fails_its_frame(
    tmp_path: Path, images: Path, processed: ProcessedData, format: str, line: str, words: str
) -> None:
    write_text(images / "txt" / "1.txt", line)
    write_text(images / "txt" / "2.txt", "")
    assert boxes(tmp_path, images, processed, files="txt/{id}.txt", format=format, classes=["Car"]) == 1
    ((frame, reason),) = failures(processed, "box").items()
    assert frame == "toy/all/1"
    assert words in reason
    assert names(processed, "box") == ["all/2"]


# ---- steering -------------------------------------------------------------------------------------------------


def steering(tmp_path: Path, root: Path, processed: ProcessedData, text: str, **section: Any) -> int:
    write_text(root / "log.csv", text)
    section = {"csv": "log.csv", "frame": "center", "angle": "steering", "factor": -25.0, **section}
    return run(write_recipe(tmp_path, {"name": "toy", "image": {"files": "img/{id}.png"}, "steering": section}),
               root, processed)  # fmt: skip


def test_steering_angles(tmp_path: Path, images: Path, processed: ProcessedData) -> None:
    text = "center,left,steering\n/home/me/IMG/1.png, x.jpg, -0.5\nC:\\rec\\img\\2.png,x,0\n3,x,\nother.png,x,1\n"
    assert steering(tmp_path, images, processed, text) == 0
    assert names(processed, "steering") == ["all/1", "all/2"]  # an empty cell is no label
    assert json_label(processed, "steering", "all", "1") == {"unit": "deg", "angles": [12.5]}
    assert json_label(processed, "steering", "all", "2") == {"unit": "deg", "angles": [0.0]}
    assert processed.settings("steering")["unit"] == "deg"


@pytest.mark.parametrize("header", ["", "center,left,steering\n"])
def test_a_table_without_a_header(tmp_path: Path, images: Path, processed: ProcessedData, header: str) -> None:
    columns = ["center", "left", "steering"]
    assert steering(tmp_path, images, processed, f"{header}1.png,x,1\n", columns=columns) == 0
    assert json_label(processed, "steering", "all", "1")["angles"] == [-25.0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [("1,soon", "soon"), ("1,inf", "at most 1080"), ("1,5000", "at most 1080"), ("1,1\n1,1", "2 rows of frame all/1")],
)
def test_a_bad_angle_fails_its_frame(
    tmp_path: Path, images: Path, processed: ProcessedData, rows: str, words: str
) -> None:
    assert steering(tmp_path, images, processed, f"center,steering\n{rows}\n2,1\n") == 1
    assert words in failures(processed, "steering")["toy/all/1"]
    assert names(processed, "steering") == ["all/2"]


# ---- wrong recipes: exit code 2 and one line --------------------------------------------------------------------

ROOT_ERRORS: dict[str, tuple[Any, str]] = {
    "broken YAML": ("name: [", "YAML"),
    "a list": ("- 1", "holds no keys"),
    "unknown key": (recipe(masks=MASKS), "masks: there is no such key"),
    "unknown key inside": (
        recipe(segmentation=MASKS | {"clases": []}),
        "segmentation.clases: there is no such key (did you",
    ),
    "no image": ({"name": "toy"}, "image: Field required"),
    "no id": ({"name": "toy", "image": {"files": "{scene}/x.png"}}, "has no {id}"),
    "wrong type": ({"name": "toy", "image": {"files": "{id}.tif"}}, "does not end in"),
    "bad name": (recipe() | {"name": "my set"}, "name: 'my set'"),
    "class twice": (recipe(segmentation=MASKS | {"classes": ["a", "b", "a"]}), "a is listed twice"),
    "class twice in a mapping": (
        "name: toy\nimage: {files: '{scene}/image/{id}.png'}\nsegmentation:\n  files: '{scene}/label/{id}.png'\n"
        "  classes:\n    road: '#000000'\n    road: '#000001'\n",
        "line 7: road is there twice",
    ),
    "no classes": (recipe(segmentation=MASKS | {"classes": []}), "0 classes"),
    "256 classes": (recipe(segmentation=MASKS | {"classes": [str(i) for i in range(256)]}), "256 classes"),
    "bad colour": (recipe(segmentation=MASKS | {"classes": {"a": "red"}}), "'red' is not a colour"),
    "unknown class": (recipe(segmentation=MASKS | {"ids": {1: "moon"}}), "ids: moon is not among the classes"),
    "no class with a class": (recipe(segmentation=MASKS | {"no_class": [1]}), "1 has a class"),
    "no units": (recipe(depth={k: v for k, v in DEPTH.items() if k != "units_per_metre"}), "needs units_per_metre"),
    "range": (recipe(depth=DEPTH | {"range": [5.0, 1.0]}), "nearest < farthest"),
    "scenes here and not there": (recipe(segmentation=MASKS | {"files": "label/{id}.png"}), "both have {scene}"),
    "coco with id": (
        recipe(box={"files": "{id}.json", "format": "coco", "classes": ["a"]}),
        "format coco needs no {id}",
    ),
    "split by moon": (recipe(split={"by": "moon"}), "by must be folders, lists or time"),
    "folder in two parts": (recipe(split={"by": "folders", "train": ["a"], "val": ["a"]}), "a is listed twice"),
    "folder without images": (recipe(split={"by": "folders", "train": ["a"], "val": ["c"]}), "there are a, b"),
    "no such list": (recipe(split={"by": "lists", "train": "t.txt", "val": "v.txt"}), "t.txt can't be read"),
    "regex": (recipe(times={"id": "(", "factors": [1.0]}), "not a regular expression"),
    "regex without a match": (recipe(times={"id": "x(.)", "factors": [1.0]}), "no time in the id of a/1"),
    "no image found": (recipe() | {"image": {"files": "img/{id}.png"}}, "no file below"),
    "no label found": (recipe(segmentation=MASKS | {"files": "{scene}/masks/{id}.png"}), "segmentation: no file below"),
    "two files": (recipe() | {"image": {"files": ["{scene}/image/{id}.png", "{scene}/label/{id}.png"]}}, "two files"),
    "no table": (recipe(steering={"csv": "x.csv", "frame": "f", "angle": "a", "factor": 1.0}), "no file"),
    "no COCO file": (recipe(box={"files": "x.json", "format": "coco", "classes": ["a"]}), "box: no file below"),
}


@pytest.mark.parametrize("case", ROOT_ERRORS)
def test_a_wrong_recipe_is_one_line_and_writes_nothing(
    data: Path, processed: ProcessedData, tmp_path: Path, case: str
) -> None:
    content, words = ROOT_ERRORS[case]
    with pytest.raises(UserError) as caught:
        run(write_recipe(tmp_path, content), data, processed)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not processed.root.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [(json.dumps(COCO | {"images": [{"id": 7, "file_name": "1.png"}, {"id": 8, "file_name": "1.png"}]}), "two labels"),
     ("{", "JSON"), ("[]", "not COCO"), ('{"images": [], "annotations": []}', "categories"),
     (json.dumps(COCO | {"annotations": [{"image_id": 5, "category_id": 3, "bbox": []}]}), "not COCO")],
)  # fmt: skip
def test_a_broken_coco_file(tmp_path: Path, images: Path, processed: ProcessedData, text: str, words: str) -> None:
    write_text(images / "x.json", text)
    with pytest.raises(UserError, match=words):
        boxes(tmp_path, images, processed, files="x.json", format="coco", classes=["person"])


def test_a_column_that_is_not_there(tmp_path: Path, images: Path, processed: ProcessedData) -> None:
    with pytest.raises(UserError, match=r"no column 'steering'; there are center, angle"):
        steering(tmp_path, images, processed, "center,angle\n1,1\n")


def test_the_script_as_a_user_runs_it(data: Path, processed: ProcessedData, root: Path, tmp_path: Path) -> None:
    roots = ["--data-root", str(data), "--processed-root", str(processed.root), "--size", "8", "6"]
    script = [sys.executable, "preprocessing/folders.py", *roots, "--threads", "1", "--recipe"]

    def shell(recipe: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*script, recipe], cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    done = shell(str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'none.yaml'} can't be read: No such file or directory\n"
    done = shell(str(write_recipe(tmp_path, recipe(segmentation=MASKS))))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(";")[0] for line in done.stdout.splitlines()] == [
        "camera: 3 written, 0 already there, 0 without label, 0 failed",
        "segmentation: 3 written, 0 already there, 0 without label, 0 failed",
    ]


@pytest.mark.parametrize("kind", ["image", "label", "depth"])
def test_a_broken_file_is_named_and_the_rest_goes_on(
    data: Path, processed: ProcessedData, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / "a" / kind / "2.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert run(write_recipe(tmp_path, recipe(segmentation=MASKS, depth=DEPTH)), data, processed) == 1
    processed_kind = {"image": "camera", "label": "segmentation"}.get(kind, kind)
    assert list(failures(processed, processed_kind)) == ["toy/a/2"]
    assert f"failed: {path}: " in capsys.readouterr().err
    for each in ("camera", "segmentation", "depth"):
        assert names(processed, each) == (["a/1", "b/1"] if each == processed_kind else FRAMES)


# ---- splits and times -------------------------------------------------------------------------------------------


def split_of(tmp_path: Path, data: Path, processed: ProcessedData, **more: Any) -> dict[str, list[str]]:
    assert run(write_recipe(tmp_path, recipe(**more)), data, processed) == 0
    return read_json(processed.dataset_path)["split"]


def test_split_by_lists(data: Path, processed: ProcessedData, tmp_path: Path) -> None:
    write_text(data / "train.txt", "a/1\n/elsewhere/b/image/1.png /elsewhere/b/label/1.png\n\n")
    write_text(data / "val.txt", "a/image/2.png\n")
    split = split_of(tmp_path, data, processed, split={"by": "lists", "train": "train.txt", "val": "val.txt"})
    assert split == {"train": ["a/1", "b/1"], "val": ["a/2"], "test": []}


@pytest.mark.parametrize(
    ("lines", "words"),
    [("a/9\n", "line 1: a/9 is no image"), ("a/2\n1\n", "line 2: '1' may mean a/1, b/1"), ("a/1\n", "in train and in")],
)
def test_lists_that_name_no_one_frame(
    data: Path, processed: ProcessedData, tmp_path: Path, lines: str, words: str
) -> None:
    write_text(data / "train.txt", "a/1\n")
    write_text(data / "val.txt", lines)
    with pytest.raises(UserError, match=words):
        split_of(tmp_path, data, processed, split={"by": "lists", "train": "train.txt", "val": "val.txt"})


def test_split_by_time(processed: ProcessedData, tmp_path: Path) -> None:
    """Ids in the order of their numbers; times turn it round."""
    for id in range(1, 21):
        write_array(tmp_path / "data" / f"{id}.png", picture(2, 2))
    by_time = {"name": "toy", "image": {"files": "{id}.png"}, "split": {"by": "time", "gap_frames": 2}}
    run(write_recipe(tmp_path, by_time), tmp_path / "data", processed)
    split = read_json(processed.dataset_path)["split"]
    assert {part: len(frames) for part, frames in split.items()} == {"train": 12, "val": 2, "test": 2}
    assert split["test"] == ["all/19", "all/20"]
    assert split["val"] == ["all/15", "all/16"]
    write_text(tmp_path / "data" / "times.csv", "id,t\n" + "".join(f"{id},{20 - id}\n" for id in range(1, 21)))
    by_time["times"] = {"csv": "times.csv", "frame": "id", "seconds": "t", "factor": 0.1}
    with pytest.raises(UserError, match="another split"):
        run(write_recipe(tmp_path, by_time), tmp_path / "data", processed)
    assert run(write_recipe(tmp_path, by_time), tmp_path / "data", processed, "--overwrite") == 0
    assert read_json(processed.dataset_path)["split"]["test"] == ["all/1", "all/2"]
    assert processed.times()[Frame("toy", "all", "5")] == pytest.approx(1.5)


# ---- --check ----------------------------------------------------------------------------------------------------


def test_check_tells_and_draws_and_writes_no_label(
    data: Path, processed: ProcessedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "b" / "label" / "1.png").unlink()
    write_array(data / "c" / "label" / "9.png", np.zeros((2, 2), np.uint8))
    write_text(data / "log.csv", "f,a\na/1,3\n")
    write_text(data / "a" / "txt" / "1.txt", "0 0.5 0.5 0.5 0.5")
    path = write_recipe(tmp_path, recipe(
        segmentation=MASKS,
        depth=DEPTH | {"sparse": True},
        steering={"csv": "log.csv", "frame": "f", "angle": "a", "factor": 1.0},
        box={"files": "{scene}/txt/{id}.txt", "format": "yolo", "classes": ["cat"]},
        split={"by": "folders", "train": ["a"], "val": ["b"]},
    ))  # fmt: skip
    assert run(path, data, processed, "--check", "--out", str(tmp_path / "out")) == 0
    assert not processed.root.exists()
    shown = capsys.readouterr().out.splitlines()
    for line in [
        "toy: 3 images in 2 scenes",
        "segmentation: 2 frames, such as a/label/1.png",
        "  1 images without a segmentation label, such as b/1",
        "  1 segmentation labels without an image left out: c/9",
        "depth: 3 frames, such as a/depth/1.png",
        "  every image has one",
        "split val: 1 frames, such as b/1",
        str(tmp_path / "out" / "check" / "toy.png"),
    ]:
        assert line in shown
    drawn = np.asarray(Image.open(tmp_path / "out" / "check" / "toy.png"))
    assert drawn.shape[1] > 5 * 480  # a column a kind
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


def test_check_names_what_it_can_not_read(data: Path, processed: ProcessedData, tmp_path: Path, capsys: Any) -> None:
    for frame in ("a/1", "a/2", "b/1"):
        scene, id = frame.split("/")
        (data / scene / "label" / f"{id}.png").write_bytes(b"no picture")
    path = write_recipe(tmp_path, recipe(segmentation=MASKS))
    assert run(path, data, processed, "--check", "--out", str(tmp_path / "out")) == 1
    assert f"failed: {data / 'a/label/1.png'}" in capsys.readouterr().err
