"""Pictures and maps at a size, against slow versions; what is no picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.folders.pictures import nearest, read_numbers, read_rgb, resized, size_of
from tests.folder_files import picture, slow_nearest, write_array

SIZES = [(16, 12), (8, 6), (5, 7), (31, 3), (40, 30), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_nearest_takes_the_pixel_that_holds_the_centre(size: tuple[int, int]) -> None:
    values = np.arange(16 * 12, dtype=np.uint16).reshape(12, 16)
    np.testing.assert_array_equal(nearest(values, size), slow_nearest(values, size))


def test_an_image_that_shrinks_is_averaged_over_each_pixels_area() -> None:
    image = picture(16, 12)
    expected = np.array(
        [[image[3 * y : 3 * y + 3, 2 * x : 2 * x + 2].mean((0, 1)) for x in range(8)] for y in range(4)]
    )
    assert abs(resized(image, (8, 4)) - expected).max() <= 0.5 + 1e-9


def test_an_image_keeps_its_size_exactly() -> None:
    image = picture()
    np.testing.assert_array_equal(resized(image, (16, 12)), image)


def test_an_image_that_shrinks_one_way_and_grows_the_other() -> None:
    image = np.repeat(np.repeat(np.array([[10, 30], [50, 70]], np.uint8), 4, 1)[..., None], 3, 2)  # 2 x 8
    found = resized(image, (2, 8))
    assert found.shape == (8, 2, 3)
    np.testing.assert_array_equal(found[[0, -1], :, 0], [[10, 30], [50, 70]])


def test_images_of_every_type(tmp_path: Path) -> None:
    image = picture()
    for name, array, white in [
        ("a.png", image, 255.0),
        ("a.npy", image, 255.0),
        ("b.npy", np.moveaxis(image, 2, 0), 255.0),
        ("c.npy", image.astype(np.float32) / 255, 1.0),
        ("d.npy", image.astype(np.float64), 255.0),
    ]:
        path = write_array(tmp_path / name, array)
        np.testing.assert_array_equal(read_rgb(path, white), image, err_msg=name)
        assert size_of(path) == (16, 12)
    flat = np.full((12, 16, 3), 90, np.uint8)
    assert abs(read_rgb(write_array(tmp_path / "a.jpg", flat), 255.0).astype(int) - 90).max() <= 2
    grey = write_array(tmp_path / "grey.jpg", flat[..., 0])
    assert read_rgb(grey, 255.0).shape == (12, 16, 3)


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.npy"])
def test_a_cut_image_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = write_array(tmp_path / name, picture(64, 64))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises((ValueError, OSError)):
        read_rgb(path, 255.0)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4, 3), 2.0), "from 2 to 2, not from 0 to 1"),
        (np.full((4, 4, 3), -0.1), "not from 0 to 1"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.zeros((4, 4)), "shape"),
        (np.zeros((4, 4, 4)), "shape"),
        (np.array(["text"]), "not an array of numbers"),
    ],
)
def test_an_array_that_is_no_image(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_rgb(write_array(tmp_path / "a.npy", array), 1.0)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays are not read"):
        read_numbers(tmp_path / "a.npy")


def test_numbers_of_every_type(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(numbers, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    paths = [
        tmp_path / "palette.png",
        write_array(tmp_path / "8.png", numbers),
        write_array(tmp_path / "16.png", numbers.astype(np.uint16)),
        write_array(tmp_path / "a.npy", numbers.astype(np.int64)),
        write_array(tmp_path / "b.npy", numbers[..., None].astype(np.float32)),
        write_array(tmp_path / "c.npy", numbers[None]),
    ]
    for path in paths:
        np.testing.assert_array_equal(read_numbers(path), numbers, err_msg=path.name)


def test_a_16_bit_picture_keeps_its_values(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 256, 65535]], np.uint16)
    np.testing.assert_array_equal(read_numbers(write_array(tmp_path / "a.png", numbers)), numbers)


@pytest.mark.parametrize("array", [np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 4), np.uint8)])
def test_a_colour_picture_has_no_numbers(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not of one number a pixel"):
        read_numbers(write_array(tmp_path / "a.png", array))
