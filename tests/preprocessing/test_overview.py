"""The first look at raw data: what is shown is what lies there, and statistics count exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.a2d2.classes import COLOURS, SEMANTIC_CLASSES, class_of, rgb_of
from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import RawData
from datasets.layout import OverviewDir
from preprocessing import overview
from preprocessing.bounding_box import Boxes
from tests.a2d2 import SEGMENTATION
from tests.raw_files import OTHER_SCENE, SCENE, frames, small_raw_data, write_every_kind, write_png
from tests.training.conftest import Printed, call
from visual.overview import WIDTH, contact_sheet, count_boxes, count_pixels

__all__ = ["call"]


@pytest.fixture
def raw(tmp_path: Path) -> RawData:
    raw = small_raw_data(tmp_path / "raw")
    write_every_kind(raw, frames(5, SCENE) + frames(3, OTHER_SCENE))
    return raw


@pytest.fixture
def look(raw: RawData, tmp_path: Path, call: Callable[..., Printed]) -> Callable[..., Printed]:
    return lambda *flags: call(overview.main, "--data-root", str(raw.root), "--out", str(tmp_path), *flags)


def test_a_sheet_a_scene_and_the_statistics(look: Callable[..., Printed], tmp_path: Path) -> None:
    printed = look("--frames", "2", "--every", "1")
    assert (printed.code, printed.err) == (0, "")
    names = {path.name for path in OverviewDir(tmp_path).dir.iterdir()}
    assert names == {f"{SCENE}.png", f"{OTHER_SCENE}.png", "statistics.png"}
    two = Image.open(OverviewDir(tmp_path).sheet(SCENE)).height
    look("--frames", "4", "--scenes", SCENE)
    assert Image.open(OverviewDir(tmp_path).sheet(SCENE)).height > 1.8 * two  # a row a frame


def test_frames_are_spread_over_the_scene() -> None:
    listed = frames(10)
    assert overview.spread(listed, 3) == [listed[0], listed[4], listed[9]]
    assert overview.spread(listed[:2], 6) == listed[:2]


def test_pixels_are_counted_exactly_at_the_images_own_size(raw: RawData) -> None:
    """Undistorting repeats some pixels: the map of the segmentation labels says which."""
    by_colour = {rgb_of(colour): class_of(name) for colour, name in COLOURS.items()}
    calibration = Calibration.read(raw.calibration_path)
    image_map = ImageMap(calibration, tuple(calibration.resolution))
    expected = dict.fromkeys([*SEMANTIC_CLASSES, None], 0)
    for frame in raw.frames("label")[::2]:
        label = image_map.labels(cv2.imread(str(raw.path("label", frame)))[..., ::-1])
        for colour in map(tuple, label.reshape(-1, 3).tolist()):
            expected[by_colour.get(colour)] += 1
    assert count_pixels(raw, every=2).tolist() == list(expected.values())


def test_boxes_are_those_of_the_labels(raw: RawData) -> None:
    stage = Boxes()
    stage.prepare({"resolution": (96, 60)})
    paths = [raw.path("label3D", frame) for frame in raw.frames("label3D")]
    expected = [box for path in paths for box in json.loads(stage.convert(path).content)["boxes"]]
    assert len(expected) > 0
    assert count_boxes(raw) == expected


def test_a_class_is_shown_in_its_colour_and_a_dot_where_it_was_measured(raw: RawData) -> None:
    frame = frames(1)[0]
    write_png(raw.path("camera", frame), np.full((60, 96, 3), 100, np.uint8))
    write_png(raw.path("label", frame), np.full((60, 96, 3), (255, 0, 0), np.uint8))
    sweep = {key: np.array([value]) for key, value in {"row": 30.0, "col": 48.0, "depth": 5.0}.items()}
    np.savez(raw.path("lidar", frame), **sweep)
    picture = contact_sheet(raw, [frame])
    expected = np.rint(0.6 * SEGMENTATION.classes.palette()[0] + 0.4 * 100).astype(np.uint8)
    assert (picture == expected).all(2).mean() > 0.15  # most of the third column
    left = picture.shape[1] - 3 * (WIDTH + 10)  # three columns, each with a gap
    lidar = picture[:440, left : left + WIDTH]  # without the scale bar
    rows, columns = np.nonzero(np.ptp(lidar.astype(int), axis=2) > 20)
    assert abs(columns.mean() - 48.5 / 96 * WIDTH) < 4
    assert np.ptp(columns) < 8
    assert np.ptp(rows) < 8


def test_missing_and_broken_files_are_told(raw: RawData, look: Callable[..., Printed]) -> None:
    first, second, *_ = frames(5, SCENE)
    raw.path("lidar", first).unlink()
    raw.path("label3D", second).write_bytes(b"{")
    raw.path("camera", frames(5, SCENE)[4]).write_bytes(b"no PNG")
    printed = look("--scenes", SCENE)
    assert printed.code == 0
    assert str(raw.path("label3D", second)) in printed.err
    assert str(raw.path("camera", frames(5, SCENE)[4])) in printed.err


@pytest.mark.parametrize(("flags", "told"), [(["--scenes", "20200101_000000"], f"there are {SCENE}, {OTHER_SCENE}")])
def test_an_unknown_scene(look: Callable[..., Printed], flags: list[str], told: str) -> None:
    printed = look(*flags)
    assert printed.code == 2
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_no_data(tmp_path: Path, call: Callable[..., Printed]) -> None:
    printed = call(overview.main, "--data-root", str(tmp_path / "none"), "--out", str(tmp_path))
    assert printed.code == 2
    assert "get_data.sh" in printed.err
