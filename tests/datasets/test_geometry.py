"""The image map against the camera model written out in tests/slow_camera.py; points and boxes in the same frame."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.a2d2.geometry import FRONT_CENTER, Calibration, ImageMap
from datasets.a2d2.raw import RawData
from datasets.files import read_json
from errors import UserError
from tests import slow_camera
from tests.raw_files import CAMERA, HEIGHT, WIDTH, random_label

SIZES = [(96, 60), (64, 40), (50, 50), (128, 100), (31, 23)]


def calibration_of(camera: dict[str, Any]) -> Calibration:
    return Calibration.from_json({"cameras": {"front_center": camera}}, "test")


REAL_CAMERA = {
    "CamMatrix": [[1687.3369140625, 0.0, 965.4341405582381], [0.0, 1783.428466796875, 684.4193604186803], [0, 0, 1]],
    "CamMatrixOriginal": [
        [1844.1774422790927, 0.0, 964.4299052386386],
        [0.0, 1841.5212239377258, 679.5331911948183],
        [0, 0, 1],
    ],
    "Distortion": [[-0.2611312587700434, 0.0, 0.0, 0.0, 0.0]],
    "Lens": "Telecam",
    "Resolution": [1920, 1208],
}
PLAIN_CAMERA = {**CAMERA, "CamMatrixOriginal": CAMERA["CamMatrix"], "Distortion": [[0, 0, 0, 0, 0]]}


def smooth_picture(width: int, height: int) -> np.ndarray:
    """Slow waves: where positions differ by 1/64 px, the fixed-point precision of cv2.remap, grey levels hardly do."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    waves = [np.sin(5 * x + 3 * y), np.cos(4 * x - 2 * y), np.sin(7 * x * y)]
    return np.rint(127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)


def labels_and_outside(image_map: ImageMap, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest source pixels, and a mask of the pixels that have none."""
    outside = np.zeros((image_map.size[1], image_map.size[0]), bool)
    outside[image_map.outside] = True
    return image_map.labels(raw), outside


# ---- labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_the_nearest_source_pixels(size: tuple[int, int]) -> None:
    raw = random_label(np.random.default_rng(0))
    found, found_outside = labels_and_outside(ImageMap(calibration_of(CAMERA), size), raw)
    x, y = slow_camera.source_positions(CAMERA, size)
    expected, outside = slow_camera.nearest(raw, x, y)
    sure = ~slow_camera.near_a_border(x, y)
    assert sure.mean() > 0.98
    assert outside.any()
    np.testing.assert_array_equal(found_outside[sure], outside[sure])
    np.testing.assert_array_equal(found[sure & ~outside], expected[sure & ~outside])


def test_labels_are_written_into_the_array_given() -> None:
    image_map, rng = ImageMap(calibration_of(CAMERA), (50, 40)), np.random.default_rng(0)
    raw, out = random_label(rng), np.full((40, 50, 3), 77, np.uint8)
    image_map.labels(random_label(rng), out=out)  # nothing of an earlier frame may stay
    image_map.labels(raw, out=out)
    np.testing.assert_array_equal(out, image_map.labels(raw))


@pytest.mark.parametrize("size", [(64, 40), (160, 100)])
def test_labels_with_the_real_calibration(size: tuple[int, int]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (1208, 1920, 3), np.uint8)
    found, found_outside = labels_and_outside(ImageMap(calibration_of(REAL_CAMERA), size), raw)
    x, y = slow_camera.source_positions(REAL_CAMERA, size)
    expected, outside = slow_camera.nearest(raw, x, y)
    sure = ~slow_camera.near_a_border(x, y)
    assert sure.mean() > 0.98
    np.testing.assert_array_equal(found_outside[sure], outside[sure])
    np.testing.assert_array_equal(found[sure & ~outside], expected[sure & ~outside])


def test_few_pixels_of_the_real_camera_have_no_source() -> None:
    x, y = slow_camera.source_positions(REAL_CAMERA, (1920, 1208))
    assert ((x < 0) | (x > 1919) | (y < 0) | (y > 1207)).mean() == pytest.approx(0.00017, abs=0.00001)  # A2D2_FORMAT.md
    expected = (x < -0.5) | (x > 1919.5) | (y < -0.5) | (y > 1207.5)  # nearest: half a pixel more is in the image
    assert len(ImageMap(FRONT_CENTER, (1920, 1208)).outside[0]) == pytest.approx(np.count_nonzero(expected), abs=3)


# ---- images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (40, 25), (24, 12), (13, 60)])
def test_images_are_bilinear_after_reduction_by_an_integer_factor(size: tuple[int, int]) -> None:
    raw = smooth_picture(WIDTH, HEIGHT)
    found = ImageMap(calibration_of(CAMERA), size).image(raw)
    fx, fy = (raw_length / length for raw_length, length in zip((WIDTH, HEIGHT), size, strict=True))
    fx, fy = int(fx) if fx > 2 else 1, int(fy) if fy > 2 else 1
    x, y = slow_camera.source_positions(CAMERA, size)
    x, y = (x - (fx - 1) / 2) / fx, (y - (fy - 1) / 2) / fy
    expected, interior = slow_camera.bilinear(slow_camera.block_means(raw, fx, fy), x, y)
    error = abs(found - expected).max(-1)
    assert (found.shape, found.dtype) == ((size[1], size[0], 3), np.uint8)
    assert interior.mean() > 0.6
    assert error[interior].max() <= 2
    assert error.max() <= 2 + 2 * 255 / 64  # where the picture fades into black: 1/64 px are many grey levels


def test_image_of_the_real_camera() -> None:
    raw = smooth_picture(1920, 1208)
    found = ImageMap(calibration_of(REAL_CAMERA), (256, 160)).image(raw)
    x, y = slow_camera.source_positions(REAL_CAMERA, (256, 160))
    expected, interior = slow_camera.bilinear(slow_camera.block_means(raw, 7, 7), (x - 3) / 7, (y - 3) / 7)
    assert abs(found - expected)[interior].max() <= 2


@pytest.mark.parametrize("vertical", [True, False])
def test_fine_stripes_come_out_flat_grey(vertical: bool) -> None:
    """Seven pixels become one; were only four of them read, the stripes would alias to a coarse pattern."""
    raw = np.zeros((60 * 7, 96 * 7, 3), np.uint8)
    raw[:, ::2] = 200
    raw = raw if vertical else np.ascontiguousarray(raw.transpose(1, 0, 2))
    height, width = raw.shape[:2]
    matrix = ((600.0, 0.0, width / 2), (0.0, 600.0, height / 2), (0.0, 0.0, 1.0))
    calibration = Calibration((width, height), matrix, matrix, (-0.2, 0.0, 0.0, 0.0, 0.0))
    found = ImageMap(calibration, (width // 7, height // 7)).image(raw)
    middle = found[5:-5, 5:-5].astype(int)
    # three or four of seven pixels are bright: 86 or 114, never 0 or 200
    assert middle.min() >= 200 * 3 // 7 - 1
    assert middle.max() <= 200 * 4 // 7 + 2


def test_twofold_is_not_reduced() -> None:
    """Shifted by half a pixel, every second raw pixel is read exactly; reduction would mix it with its neighbours."""
    (fx, _, cx), (_, fy, cy), last = PLAIN_CAMERA["CamMatrix"]
    shifted = {**PLAIN_CAMERA, "CamMatrix": [[fx, 0.0, cx + 0.5], [0.0, fy, cy + 0.5], last]}
    raw = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(ImageMap(calibration_of(shifted), (48, 30)).image(raw), raw[::2, ::2])


def test_more_than_twofold_is_reduced() -> None:
    """A single bright pixel reaches the result with its block; by bilinear reading alone it may not."""
    raw = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    raw[20, 40] = 255
    for size in [(32, 20), (24, 15)]:
        shrink = WIDTH // size[0]
        expected = np.zeros((size[1], size[0], 3))
        expected[20 // shrink, 40 // shrink] = 255 / shrink**2
        assert abs(ImageMap(calibration_of(PLAIN_CAMERA), size).image(raw) - expected).max() <= 1


@pytest.mark.parametrize("picture", ["image", "labels"])
def test_without_distortion_and_at_its_own_size_nothing_changes(picture: str) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    image_map = ImageMap(calibration_of(PLAIN_CAMERA), (WIDTH, HEIGHT))
    if picture == "image":
        np.testing.assert_array_equal(image_map.image(raw), raw)
    else:
        found, outside = labels_and_outside(image_map, raw)
        np.testing.assert_array_equal(found, raw)
        assert not outside.any()


def test_no_source_pixel_is_black() -> None:
    wide = {**CAMERA, "CamMatrix": [[60.0, 0.0, 48.3], [0.0, 60.0, 34.0], [0.0, 0.0, 1.0]]}
    image_map = ImageMap(calibration_of(wide), (WIDTH, HEIGHT))
    raw = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    x, y = slow_camera.source_positions(wide, (WIDTH, HEIGHT))
    outside = (x < -1.1) | (y < -1.1) | (x > WIDTH + 0.1) | (y > HEIGHT + 0.1)
    assert outside.any()
    assert not image_map.image(raw)[outside].any()


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH + 1, 3), (HEIGHT - 1, WIDTH, 3), (WIDTH, HEIGHT, 3)])
def test_an_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    image_map = ImageMap(calibration_of(CAMERA), (20, 20))
    for method in (image_map.image, image_map.labels, image_map.check):
        with pytest.raises(ValueError, match=f"{shape[1]}x{shape[0]}.*{WIDTH}x{HEIGHT}"):
            method(np.zeros(shape, np.uint8))


# ---- points ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_scale_points_gives_the_pixel_that_a_point_falls_in(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    col, row = rng.uniform(-20, WIDTH + 20, 2000), rng.uniform(-20, HEIGHT + 20, 2000)
    x, y = calibration_of(CAMERA).scale_points(col, row, size)
    assert x.dtype == y.dtype == np.int64
    for c, r, u, v in zip(col, row, x, y, strict=True):
        # pixel u of the target covers this stretch of the undistorted image
        assert u * WIDTH / size[0] - 0.5 <= c <= (u + 1) * WIDTH / size[0] - 0.5
        assert v * HEIGHT / size[1] - 0.5 <= r <= (v + 1) * HEIGHT / size[1] - 0.5


def test_points_at_the_edges() -> None:
    calibration = calibration_of(CAMERA)
    col = np.array([-0.6, -0.5, 0.0, WIDTH - 0.51, WIDTH - 0.49, 10.0, 10.0])
    row = np.array([10.0, 10.0, 10.0, 10.0, 10.0, -0.51, HEIGHT - 0.4])
    assert calibration.inside(col, row).tolist() == [False, True, True, True, False, False, False]
    x, _ = calibration.scale_points(col[:5], row[:5], (48, 30))
    assert x.tolist() == [-1, 0, 0, 47, 48]


def test_absurd_positions_are_outside() -> None:
    far = np.array([1e6, -1e6, -12521.0])
    assert not calibration_of(CAMERA).inside(far, np.full(3, 10.0)).any()


@pytest.mark.parametrize(("camera", "radius"), [(CAMERA, 2), (REAL_CAMERA, 16)])
@pytest.mark.parametrize("size", [(96, 60), (70, 61)])
def test_a_marker_lands_where_scale_points_says(camera: dict[str, Any], radius: int, size: tuple[int, int]) -> None:
    """Points and images agree: paint the raw pixel that shows an undistorted position, look where it comes out."""
    calibration = calibration_of(camera)
    width, height = calibration.resolution
    image_map = ImageMap(calibration, size)
    rng = np.random.default_rng(0)
    shifts = []
    for _ in range(40):
        col, row = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
        (source_x,), (source_y,) = slow_camera.distort(camera, np.array([col]), np.array([row]))
        raw = np.zeros((height, width, 3), np.uint8)
        x0, y0 = round(source_x), round(source_y)
        raw[y0 - radius : y0 + radius + 1, x0 - radius : x0 + radius + 1] = 255
        painted = image_map.labels(raw)[..., 0] == 255
        (u,), (v,) = calibration.scale_points(np.array([col]), np.array([row]), size)
        assert painted[v, u]
        rows, cols = np.nonzero(painted)
        exact = (col + 0.5) * size[0] / width - 0.5, (row + 0.5) * size[1] / height - 0.5
        shifts.append((cols.mean() - exact[0], rows.mean() - exact[1]))
    assert abs(np.array(shifts)).max() < 1.5  # rounded twice: to a raw pixel, and to a pixel of the target
    assert abs(np.mean(shifts, axis=0)).max() < 0.25  # half a pixel would show that two conventions are mixed


# ---- calibration files ----------------------------------------------------------------------------------------


def test_the_built_in_calibration_is_the_real_one(real_data: RawData) -> None:
    assert real_data.calibration_path.is_file()
    assert Calibration.read(real_data.calibration_path) == FRONT_CENTER
    assert read_json(real_data.calibration_path)["cameras"]["front_center"]["Resolution"] == [1920, 1208]


def test_without_a_file_the_built_in_calibration_holds(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path / "cams_lidars.json") is FRONT_CENTER


def test_the_data_roots_own_file_takes_precedence(raw: RawData) -> None:
    calibration = Calibration.read(raw.calibration_path)
    assert calibration.resolution == (WIDTH, HEIGHT)
    assert calibration.distortion == (-0.26, 0.02, 0.003, -0.002, 0.001)
    assert calibration.undistorted == tuple(map(tuple, CAMERA["CamMatrix"]))
    assert calibration.distorted == tuple(map(tuple, CAMERA["CamMatrixOriginal"]))


def test_calibration_survives_json() -> None:
    content = json.loads(json.dumps(FRONT_CENTER.to_json()))
    again, size = Calibration(**content), (40, 30)
    raw = np.random.default_rng(0).integers(0, 256, (1208, 1920, 3), np.uint8)
    np.testing.assert_array_equal(ImageMap(again, size).image(raw), ImageMap(FRONT_CENTER, size).image(raw))
    assert again.to_json() == FRONT_CENTER.to_json()


def test_scaled_to_its_own_size_is_itself() -> None:
    same = FRONT_CENTER.scaled(1920, 1208)
    for ours, theirs in [(same.distorted, FRONT_CENTER.distorted), (same.undistorted, FRONT_CENTER.undistorted)]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert replace(same, distorted=FRONT_CENTER.distorted, undistorted=FRONT_CENTER.undistorted) == FRONT_CENTER


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in CAMERA.items() if name != key}


def changed(**keys: Any) -> dict[str, Any]:
    return {"cameras": {"front_center": {**CAMERA, **keys}}}


BROKEN: dict[str, Any] = {
    "a list": [],
    "empty": {},
    "no camera": {"cameras": {}},
    "another camera": {"cameras": {"front_left": CAMERA}},
    **{f"no {key}": {"cameras": {"front_center": without(key)}} for key in CAMERA},
    **{f"text for {key}": changed(**{key: "nonsense"}) for key in CAMERA},
    "fisheye": changed(Lens="Fisheye"),
    "2 x 2 matrix": changed(CamMatrix=[[1, 2], [3, 4]]),
    "matrix of NaN": changed(CamMatrix=[[float("nan")] * 3] * 3),
    "matrix of zeros": changed(CamMatrix=[[0.0] * 3] * 3),
    "three coefficients": changed(Distortion=[1, 2, 3]),
    "resolution 0": changed(Resolution=[0, 0]),
    "resolution of text": changed(Resolution=["a", "b"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_calibration_is_named_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "cams_lidars.json"
    path.write_text(json.dumps(BROKEN[case]))
    with pytest.raises(UserError) as caught:
        Calibration.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
