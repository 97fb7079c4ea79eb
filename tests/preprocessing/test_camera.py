"""Camera frames: what the image map makes of the raw PNG, as .npy or JPEG."""

from typing import Any

import cv2
import numpy as np
import pytest

from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import RawData
from datasets.files import read_json
from datasets.processed import ProcessedData
from preprocessing.camera import Camera
from tests import slow_camera
from tests.raw_files import CAMERA, HEIGHT, WIDTH, frames, random_picture, write_png
from tests.stages import run, statuses


def slow_picture(
    raw: np.ndarray, camera: dict[str, Any], size: tuple[int, int], factors: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Expected picture (float), and where it is read between pixels of the image only."""
    (x, y), (fx, fy) = slow_camera.source_positions(camera, size), factors
    reduced = slow_camera.block_means(raw, fx, fy) if factors != (1, 1) else raw
    return slow_camera.bilinear(reduced, (x - (fx - 1) / 2) / fx, (y - (fy - 1) / 2) / fy)


def smooth(picture: np.ndarray) -> np.ndarray:
    """Neighbours alike, so that the 1/32 px of cv2.remap's fixed-point positions make little difference."""
    return cv2.GaussianBlur(picture, (0, 0), 6)


@pytest.mark.parametrize(("size", "factors"), [((96, 60), (1, 1)), ((120, 90), (1, 1)), ((32, 20), (3, 3))])
def test_pictures_are_undistorted_and_resized(
    raw: RawData, processed: ProcessedData, size: tuple[int, int], factors: tuple[int, int]
) -> None:
    (frame,) = frames(1)
    picture = smooth(random_picture(np.random.default_rng(0)))
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    write_png(raw.path("camera", frame), picture)
    assert run(Camera(), raw, processed, "--size", *map(str, size)) == 0
    found = np.load(processed.path("camera", frame), allow_pickle=False)
    assert (found.dtype, found.shape) == (np.uint8, (size[1], size[0], 3))
    expected, interior = slow_picture(picture, CAMERA, size, factors)
    assert interior.mean() > 0.7
    assert abs(found - expected)[interior].max() <= 2
    assert picture.std() > 20


def test_real_pictures(real_data: RawData, processed: ProcessedData) -> None:
    camera = read_json(real_data.calibration_path)["cameras"]["front_center"]
    assert run(Camera(), real_data, processed, "--size", "192", "120") == 0
    real = real_data.frames("camera")
    assert real
    assert statuses(processed, "camera") == (len(real), 0, 0, 0)
    frame = real[0]
    picture = cv2.imread(str(real_data.path("camera", frame)))[..., ::-1]
    found = np.load(processed.path("camera", frame), allow_pickle=False)
    expected, interior = slow_picture(picture, camera, (192, 120), (10, 10))
    error = abs(found - expected)[interior]
    assert error.mean() < 0.6
    assert np.quantile(error, 0.99) <= 3  # sharp edges: the look-up's positions are rounded to 1/32 px


def test_npy_is_what_the_dataset_would_make(raw: RawData, processed: ProcessedData) -> None:
    picture = random_picture(np.random.default_rng(0))
    (frame,) = frames(1)
    write_png(raw.path("camera", frame), picture)
    run(Camera(), raw, processed, "--size", "50", "40")
    expected = ImageMap(Calibration.read(raw.calibration_path), (50, 40)).image(picture)
    np.testing.assert_array_equal(np.load(processed.path("camera", frame), allow_pickle=False), expected)


def test_colours_keep_their_order(raw: RawData, processed: ProcessedData) -> None:
    first, second = frames(2)
    write_png(raw.path("camera", first), np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8))
    write_png(raw.path("camera", second), np.full((HEIGHT, WIDTH, 3), (0, 0, 250), np.uint8))
    run(Camera(), raw, processed, "--size", "48", "30")
    for frame, colour in ((first, [200, 100, 50]), (second, [0, 0, 250])):
        assert np.load(processed.path("camera", frame), allow_pickle=False)[15, 24].tolist() == colour


def test_jpeg(raw: RawData, processed: ProcessedData, tmp_path: Any) -> None:
    (frame,) = frames(1)
    picture = smooth(random_picture(np.random.default_rng(0)))
    write_png(raw.path("camera", frame), picture)
    assert run(Camera(), raw, processed, "--size", "80", "50", "--format", "jpeg") == 0
    path = processed.path("camera", frame, ".jpg")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    exact = ProcessedData(tmp_path / "exact")
    run(Camera(), raw, exact, "--size", "80", "50")
    expected = np.load(exact.path("camera", frame), allow_pickle=False)
    found = cv2.imread(str(path))[..., ::-1]
    assert found.shape == expected.shape
    assert abs(found.astype(int) - expected).mean() < 3


def test_alpha_changes_nothing(raw: RawData, processed: ProcessedData) -> None:
    rng = np.random.default_rng(0)
    plain, transparent = frames(2)
    picture = random_picture(rng)
    write_png(raw.path("camera", plain), picture)
    write_png(raw.path("camera", transparent), picture, alpha=rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8))
    assert run(Camera(), raw, processed, "--size", "50", "40") == 0
    assert len({processed.path("camera", frame).read_bytes() for frame in (plain, transparent)}) == 1


def test_times_and_resolution_are_written_for_all_frames_by_every_shard(raw: RawData, processed: ProcessedData) -> None:
    all_frames = frames(3)
    for frame in all_frames:
        write_png(raw.path("camera", frame), random_picture(np.random.default_rng(0)))
    expected = {frame: int(frame.id) / 30 for frame in all_frames}
    for shard in ("1/2", "2/2"):
        assert run(Camera(), raw, processed, "--size", "32", "20", "--shard", shard) == 0
        assert processed.times() == expected
    assert read_json(processed.settings_path("camera"))["resolution"] == [WIDTH, HEIGHT]
