"""Depth labels against a loop over the points."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.processed import ProcessedData
from preprocessing.depth_preprocess import Depth, nearest_points
from tests.raw_files import HEIGHT, PREFIX, WIDTH, frames, random_sweep, write_sweep
from tests.stages import report_of, run, statuses

FRAME = frames(1)[0]
Arrays = dict[str, np.ndarray]


def slow_depth(
    arrays: Arrays, resolution: tuple[int, int], size: tuple[int, int], measure: str = "depth", splat: int = 1
) -> np.ndarray:
    """Point by point: drop, find the pixel, keep the nearest."""
    image = np.zeros((size[1], size[0]), np.uint16)
    for row, col, metres in zip(arrays["row"], arrays["col"], arrays[measure], strict=True):
        nearest_col, nearest_row = math.floor(col + 0.5), math.floor(row + 0.5)
        if not (0 <= nearest_col < resolution[0] and 0 <= nearest_row < resolution[1]) or metres > 255.9:
            continue
        value = round(metres * 256)
        if value <= 0:
            continue
        u = math.floor((col + 0.5) / resolution[0] * size[0])
        v = math.floor((row + 0.5) / resolution[1] * size[1])
        for y in range(max(0, v - splat // 2), min(size[1], v + splat // 2 + 1)):
            for x in range(max(0, u - splat // 2), min(size[0], u + splat // 2 + 1)):
                if image[y, x] == 0 or value < image[y, x]:
                    image[y, x] = value
    return image


def depth_of(raw: RawData, processed: ProcessedData, arrays: Arrays, *flags: str, prefix: str = "") -> np.ndarray:
    write_sweep(raw, FRAME, arrays, prefix)
    assert run(Depth(), raw, processed, *flags) == 0
    return np.load(processed.path("depth", FRAME), allow_pickle=False)


def sweep(*points: tuple[float, float, float]) -> Arrays:
    """(row, col, depth) of each point."""
    row, col, depth = np.array(points, float).reshape(-1, 3).T
    return {"row": row, "col": col, "depth": depth, "distance": depth * 1.1}


@pytest.mark.parametrize("size", [(96, 60), (64, 64), (200, 150), (13, 7)])
@pytest.mark.parametrize("splat", [1, 3, 5])
@pytest.mark.parametrize("measure", ["depth", "distance"])
def test_labels_are_exact(
    raw: RawData, processed: ProcessedData, size: tuple[int, int], splat: int, measure: str
) -> None:
    arrays = random_sweep(np.random.default_rng(0))
    flags = ["--size", *map(str, size), "--splat", str(splat), "--measure", measure]
    found = depth_of(raw, processed, arrays, *flags)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, slow_depth(arrays, (WIDTH, HEIGHT), size, measure, splat))


def test_the_real_sweep_is_exact(real_data: RawData, tmp_path: Path) -> None:
    real = real_data.frames("lidar")
    assert real
    for size, splat in [((1024, 1024), 1), ((256, 160), 3)]:
        processed = ProcessedData(tmp_path / str(splat))
        run(Depth(), real_data, processed, "--size", *map(str, size), "--splat", str(splat))
        for frame in real:
            with np.load(real_data.path("lidar", frame), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("row", "col", "depth")}
            found = np.load(processed.path("depth", frame), allow_pickle=False)
            np.testing.assert_array_equal(found, slow_depth(arrays, (1920, 1208), size, splat=splat))
        assert np.count_nonzero(found) > 0.98 * min(8000, size[0] * size[1] / 100)


def test_the_nearest_point_wins_in_any_order(raw: RawData, processed: ProcessedData) -> None:
    points = [(10, 20, 30.0), (10, 20, 5.0), (10.3, 19.8, 12.0), (40, 50, 7.0), (40, 50, 3.0)]
    for order in (points, points[::-1]):
        found = depth_of(raw, processed, sweep(*order), "--size", str(WIDTH), str(HEIGHT), "--overwrite")
        assert {(y, x): found[y, x] for y, x in np.argwhere(found)} == {(10, 20): 5 * 256, (40, 50): 3 * 256}


def test_a_larger_splat_is_nearest_first(raw: RawData, processed: ProcessedData) -> None:
    arrays = sweep((10, 10, 50.0), (10, 12, 5.0), (0, 0, 9.0))
    found = depth_of(raw, processed, arrays, "--size", str(WIDTH), str(HEIGHT), "--splat", "3")
    assert found[9:12, 9:14].tolist() == [[50 * 256] * 2 + [5 * 256] * 3] * 3
    assert found[:3, :3].tolist() == [[9 * 256, 9 * 256, 0]] * 2 + [[0, 0, 0]]  # cut off at the image's corner
    assert np.count_nonzero(found) == 15 + 4


def test_measure(raw: RawData, processed: ProcessedData) -> None:
    arrays = {**sweep((10, 20, 30.0)), "distance": np.array([40.0])}
    assert depth_of(raw, processed, arrays, "--size", "96", "60", "--measure", "distance")[10, 20] == 40 * 256
    assert depth_of(raw, processed, arrays, "--size", "96", "60", "--overwrite")[10, 20] == 30 * 256


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_only_valid_points_count(raw: RawData, processed: ProcessedData, prefix: str) -> None:
    arrays = sweep((10, 20, 5.0), (10, 20, 30.0), (11, 20, 9.0))
    arrays["valid"] = np.array([False, True, True])
    found = depth_of(raw, processed, arrays, "--size", "96", "60", prefix=prefix)
    assert {(y, x): found[y, x] for y, x in np.argwhere(found)} == {(10, 20): 30 * 256, (11, 20): 9 * 256}


def test_prefixed_keys_give_the_same(raw: RawData, processed: ProcessedData, tmp_path: Path) -> None:
    arrays = random_sweep(np.random.default_rng(0))
    plain = depth_of(raw, processed, arrays, "--size", "64", "40")
    prefixed = depth_of(raw, ProcessedData(tmp_path / "other"), arrays, "--size", "64", "40", prefix=PREFIX)
    np.testing.assert_array_equal(plain, prefixed)


def test_an_invalid_point_may_be_nan(raw: RawData, processed: ProcessedData) -> None:
    arrays = sweep((10, 20, 5.0), (math.nan, math.nan, math.nan))
    arrays["valid"] = np.array([True, False])
    assert np.count_nonzero(depth_of(raw, processed, arrays, "--size", "96", "60")) == 1


EMPTY = {"row": np.zeros(0), "col": np.zeros(0), "depth": np.zeros(0)}
WITHOUT_POINTS: dict[str, Arrays] = {
    "empty": EMPTY,
    "no arrays": {},
    "other arrays only": {"reflectance": np.zeros(3), "points": np.zeros((3, 3))},
    "none valid": {**sweep((1, 1, 1.0)), "valid": np.array([False])},
    "all outside": sweep((-5, 3, 4.0), (3, 1000, 4.0)),
    "all too far": sweep((5, 5, 300.0)),
}


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("case", WITHOUT_POINTS)
def test_frames_without_points_have_no_label(raw: RawData, processed: ProcessedData, case: str, prefix: str) -> None:
    first, second = frames(2)
    write_sweep(raw, first, WITHOUT_POINTS[case], prefix)
    write_sweep(raw, second, sweep((1, 1, 1.0)))
    assert run(Depth(), raw, processed, "--size", "96", "60") == 0
    assert statuses(processed, "depth") == (1, 0, 1, 0)
    assert processed.frames("depth") == [second]
    assert report_of(processed, "depth")["without_label_frames"] == [str(first)]


def test_dropped_points_are_counted(raw: RawData, processed: ProcessedData) -> None:
    arrays = sweep(
        (10, 10, 255.9), (10, 11, 255.91), (10, 12, 1000.0), (-0.6, 5, 3.0), (5, 95.6, 3.0), (5, -400.0, 3.0),
        (20, 20, 0.0), (20, 21, -3.0), (0, -0.5, 4.0),
    )  # fmt: skip
    found = depth_of(raw, processed, arrays, "--size", "96", "60")
    assert {(y, x): found[y, x] for y, x in np.argwhere(found)} == {(10, 10): round(255.9 * 256), (0, 0): 4 * 256}
    counts = report_of(processed, "depth")["counts"]
    assert counts == {"points_outside_image": 3, "points_too_far": 2, "points_not_in_front": 2}


def test_counts_are_summed_over_frames(raw: RawData, processed: ProcessedData) -> None:
    for frame in frames(3):
        write_sweep(raw, frame, sweep((1, 1, 1.0), (1, 1, 300.0)))
    run(Depth(), raw, processed, "--size", "96", "60")
    assert report_of(processed, "depth")["counts"]["points_too_far"] == 3


POINT = st.tuples(st.integers(0, 19), st.integers(0, 9), st.floats(0.01, 255.9))


@given(points=st.lists(POINT, min_size=1, max_size=40), splat=st.sampled_from([1, 3, 5, 7]))
def test_each_pixel_has_the_nearest_point_within_reach(points: list[tuple[int, int, float]], splat: int) -> None:
    x, y, metres = (np.array(values) for values in zip(*points, strict=True))
    found = nearest_points(x, y, metres, (20, 10), splat)
    for v in range(10):
        for u in range(20):
            reach = [round(m * 256) for a, b, m in points if max(abs(a - u), abs(b - v)) <= splat // 2]
            assert found[v, u] == (min(reach) if reach else 0)


def test_frames_are_those_with_a_lidar_file(raw: RawData, processed: ProcessedData) -> None:
    other = Frame("a2d2", "20181108_091945", "000000007")
    write_sweep(raw, other, sweep((1, 1, 1.0)))
    (raw.images_dir / FRAME.scene / "camera" / "cam_front_center").mkdir(parents=True)
    run(Depth(), raw, processed, "--size", "96", "60")
    assert processed.frames("depth") == [other]
