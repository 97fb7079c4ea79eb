"""The shipped recipes, each on a tiny made-up folder of the shape that it describes; NYUv2's on real files as well."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.files import read_json
from datasets.folders.recipe import Recipe
from datasets.frames import Frame
from datasets.processed import ProcessedData
from strict_yaml import read_yaml, validated
from tests.folder_files import array_label, json_label, names, picture, run, slow_nearest, write_array, write_text

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "recipes"
NYUV2 = RECIPES.parents[2] / "shared" / "nyuv2"
ONES = np.ones((12, 16))


def split(processed: ProcessedData) -> dict[str, list[str]]:
    return read_json(processed.dataset_path)["split"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_cites_its_source_and_says_whether_it_was_run(path: Path) -> None:
    recipe = validated(Recipe, read_yaml(path), str(path))
    assert recipe.split is not None
    text = path.read_text()
    assert "http" in text
    assert ("NOT RUN ON THE REAL FILES" in text) != ("Run on the real files" in text)


def test_nyuv2(tmp_path: Path, processed: ProcessedData) -> None:
    for part in ("train", "val", "test"):
        write_array(tmp_path / part / "image" / "0001.jpg", picture())
        write_array(tmp_path / part / "label" / "0001.png", np.where(np.eye(12, 16), 255, 38).astype(np.uint8))
        write_array(tmp_path / part / "depth" / "0001.png", (51 * ONES).astype(np.uint8))
    assert run(RECIPES / "nyuv2.yaml", tmp_path, processed) == 0
    assert split(processed) == {part: [f"{part}/0001"] for part in ("train", "val", "test")}
    assert set(np.unique(array_label(processed, "segmentation", "val", "0001"))) == {38, 255}
    assert (array_label(processed, "depth", "val", "0001") == 512).all()
    assert len(processed.settings("segmentation")["classes"]) == 39
    assert processed.settings("depth")["range"] == [0.5, 10.0]


def test_nyuv2_on_real_files(tmp_path: Path, processed: ProcessedData) -> None:
    """Two of each part, against slow versions."""
    if not NYUV2.is_dir():
        pytest.skip(f"no {NYUV2}")
    chosen = [(part, path.stem) for part in ("train", "val", "test")
              for path in sorted((NYUV2 / part / "image").iterdir())[:2]]  # fmt: skip
    for part, id in chosen:
        for kind, suffix in (("image", ".jpg"), ("label", ".png"), ("depth", ".png")):
            (tmp_path / part / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(NYUV2 / part / kind / (id + suffix), tmp_path / part / kind)
    assert run(RECIPES / "nyuv2.yaml", tmp_path, processed, "--size", "128", "96") == 0
    assert len(processed.frames("camera")) == 6
    for part, id in chosen:
        label = np.asarray(Image.open(NYUV2 / part / "label" / f"{id}.png"))
        depth = np.asarray(Image.open(NYUV2 / part / "depth" / f"{id}.png"))
        found = array_label(processed, "segmentation", part, id)
        np.testing.assert_array_equal(found, slow_nearest(label, (128, 96)))
        expected = np.rint(slow_nearest(depth, (128, 96)) / 25.5 * 256)
        np.testing.assert_array_equal(array_label(processed, "depth", part, id), expected)


def test_nyuv2_mtan(tmp_path: Path, processed: ProcessedData) -> None:
    image, label = picture(), np.where(np.eye(12, 16), -1, 12).astype(np.float64)
    for part in ("train", "val"):
        write_array(tmp_path / part / "image" / "0.npy", image.astype(np.float32) / 255)
        write_array(tmp_path / part / "label" / "0.npy", label)
        write_array(tmp_path / part / "depth" / "0.npy", 2.5 * ONES[..., None].astype(np.float32))
        write_array(tmp_path / part / "normal" / "0.npy", np.zeros((12, 16, 3)))
    assert run(RECIPES / "nyuv2_mtan.yaml", tmp_path, processed, "--size", "16", "12") == 0
    assert split(processed) == {"train": ["train/0"], "val": ["val/0"], "test": []}
    np.testing.assert_array_equal(array_label(processed, "camera", "train", "0"), image)
    np.testing.assert_array_equal(array_label(processed, "segmentation", "val", "0"), np.where(label < 0, 255, 12))
    assert (array_label(processed, "depth", "val", "0") == 640).all()


def test_camvid(tmp_path: Path, processed: ProcessedData) -> None:
    mask = np.zeros((12, 16, 3), np.uint8)
    mask[:6], mask[6:, :8] = (64, 192, 0), (128, 0, 192)  # Wall, LaneMkgsDriv, Void
    for part, id in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        write_array(tmp_path / part / f"{id}.png", picture())
        write_array(tmp_path / f"{part}_labels" / f"{id}_L.png", mask)
    assert run(RECIPES / "camvid.yaml", tmp_path, processed) == 0
    assert split(processed) == {"train": ["0001TP/006690"], "val": ["0016E5/07959"], "test": ["Seq05VD/f00000"]}
    found = array_label(processed, "segmentation", "Seq05VD", "f00000")
    classes = processed.settings("segmentation")["classes"]
    assert (len(classes), classes[found[0, 0]], classes[found[-1, 0]], found[-1, -1]) == (11, "building", "road", 255)


def test_cityscapes(tmp_path: Path, processed: ProcessedData) -> None:
    mask = np.full((12, 16), 4, np.uint8)  # static: no class
    mask[:6], mask[6:, :8] = 23, 33  # sky, bicycle
    for part, city in (("train", "ulm"), ("val", "bonn"), ("test", "berlin")):
        id = f"{city}_000000_000019"
        write_array(tmp_path / "leftImg8bit" / part / city / f"{id}_leftImg8bit.png", picture())
        write_array(tmp_path / "gtFine" / part / city / f"{id}_gtFine_labelIds.png", mask)
        write_array(tmp_path / "gtFine" / part / city / f"{id}_gtFine_instanceIds.png", mask.astype(np.uint16))
        write_array(tmp_path / "disparity" / part / city / f"{id}_disparity.png", (12801 * ONES).astype(np.uint16))
    assert run(RECIPES / "cityscapes.yaml", tmp_path, processed) == 0
    ulm, bonn = "ulm/ulm_000000_000019", "bonn/bonn_000000_000019"
    assert split(processed) == {"train": [ulm], "val": [bonn], "test": []}
    found = array_label(processed, "segmentation", *bonn.split("/"))
    assert (found[0, 0], found[-1, 0], found[-1, -1]) == (10, 18, 255)  # their trainIds
    depth = round(256 * 0.209313 * 2262.52 / 50)  # 50 px of disparity
    assert (array_label(processed, "depth", *bonn.split("/")) == depth).all()


def test_kitti(tmp_path: Path, processed: ProcessedData) -> None:
    drive = "2011_09_26_drive_0001_sync"
    depth = np.zeros((12, 16), np.uint16)
    depth[2, 3], depth[3, 3] = 2560, 1280  # two points that meet in one pixel
    for id in ("0000000005", "0000000006"):
        write_array(tmp_path / "2011_09_26" / drive / "image_02" / "data" / f"{id}.png", picture())
        write_array(tmp_path / "train" / drive / "proj_depth" / "groundtruth" / "image_02" / f"{id}.png", depth)
    write_array(tmp_path / "training" / "image_2" / "000000.png", picture(20, 10))
    line = "Cyclist 0.00 0 -1.57 1.5 2 30 4 1.7 0.6 1.8 1 1 8 -1.5"
    write_text(tmp_path / "training" / "label_2" / "000000.txt", f"{line}\n{line.replace('Cyclist', 'DontCare')}\n")
    assert run(RECIPES / "kitti.yaml", tmp_path, processed) == 0
    assert names(processed, "camera") == [f"{drive}/0000000005", f"{drive}/0000000006", "all/000000"]
    found = array_label(processed, "depth", drive, "0000000005")
    assert (np.argwhere(found).tolist(), found.max()) == ([[1, 1]], 1280)
    label = json_label(processed, "box", "all", "000000")
    assert label == {"size": [20, 10], "boxes": [{"class": "Cyclist", "bbox": [1.5, 2, 20, 4]}]}
    assert processed.settings("camera")["resolution"] == [16, 12]  # the commonest
    assert processed.times()[Frame("kitti", drive, "0000000005")] == 0.5


@pytest.mark.parametrize("header", ["", "center,left,right,steering,throttle,brake,speed\n"])
def test_steering_csv(tmp_path: Path, processed: ProcessedData, header: str) -> None:
    rows = []
    for second in range(10):
        name = f"2016_12_01_13_30_{40 + second}_287.jpg"
        write_array(tmp_path / "IMG" / f"center_{name}", picture())
        write_array(tmp_path / "IMG" / f"left_{name}", picture())
        rows.append(f"/Users/me/IMG/center_{name}, /Users/me/IMG/left_{name}, x, {second / 10}, 1, 0, 30\n")
    write_text(tmp_path / "driving_log.csv", header + "".join(rows))
    assert run(RECIPES / "steering_csv.yaml", tmp_path, processed) == 0
    assert len(names(processed, "camera")) == len(names(processed, "steering")) == 10
    third = Frame("udacity_simulator", "all", "2016_12_01_13_30_42_287")
    assert json_label(processed, "steering", "all", third.id) == {"unit": "deg", "angles": [-5.0]}
    assert processed.times()[third] == pytest.approx(86400 + 13 * 3600 + 30 * 60 + 42.287)


def test_every_recipe_is_named_in_the_docs() -> None:
    text = (RECIPES.parents[1] / "docs" / "data.md").read_text()
    assert [path.name for path in sorted(RECIPES.glob("*.yaml")) if path.name not in text] == []
