"""Segmentation labels against a slow lookup, pixel by pixel."""

from typing import Any

import cv2
import numpy as np
import pytest

from datasets.a2d2.classes import COLOURS, IGNORE, SEMANTIC_CLASSES, class_of, rgb_of
from datasets.a2d2.raw import RawData
from datasets.files import read_json
from datasets.processed import ProcessedData
from preprocessing.segmentation import Segmentation, packed
from tests import slow_camera
from tests.raw_files import CAMERA, HEIGHT, WIDTH, frames, random_label, write_png
from tests.stages import report_of, run, statuses

CLASS_OF_COLOUR = {rgb_of(colour): SEMANTIC_CLASSES.index(class_of(name)) for colour, name in COLOURS.items()}


def slow_classes(
    raw: np.ndarray, camera: dict[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected classes, where they are certain, and where there is no source pixel."""
    x, y = slow_camera.source_positions(camera, size)
    colours, outside = slow_camera.nearest(raw, x, y)
    classes = np.full(outside.shape, IGNORE, np.uint8)
    for v, u in np.argwhere(~outside):
        classes[v, u] = CLASS_OF_COLOUR.get(tuple(colours[v, u].tolist()), IGNORE)
    return classes, ~slow_camera.near_a_border(x, y), outside


@pytest.mark.parametrize("size", [(96, 60), (64, 64), (150, 80), (33, 21)])
def test_labels_are_exact(raw: RawData, processed: ProcessedData, size: tuple[int, int]) -> None:
    rng, labels = np.random.default_rng(0), {}
    for frame in frames(3):
        labels[frame] = random_label(rng)
        write_png(raw.path("label", frame), labels[frame])
    assert run(Segmentation(), raw, processed, "--size", *map(str, size)) == 0
    for frame, label in labels.items():
        found = np.load(processed.path("segmentation", frame), allow_pickle=False)
        assert (found.dtype, found.shape) == (np.uint8, (size[1], size[0]))
        expected, sure, outside = slow_classes(label, CAMERA, size)
        np.testing.assert_array_equal(found[sure], expected[sure])
        assert outside.any()
        assert (found == IGNORE).sum() > outside.sum()  # unlisted colours as well
        assert len(np.unique(found)) > 5


def test_real_labels_are_exact(real_data: RawData, processed: ProcessedData) -> None:
    size = (192, 120)
    camera = read_json(real_data.calibration_path)["cameras"]["front_center"]
    assert run(Segmentation(), real_data, processed, "--size", *map(str, size)) == 0
    real = real_data.frames("label")
    assert statuses(processed, "segmentation") == (len(real), 0, 0, 0)
    assert real
    for frame in real:
        label = cv2.imread(str(real_data.path("label", frame)), cv2.IMREAD_COLOR)[..., ::-1]
        expected, sure, _ = slow_classes(label, camera, size)
        found = np.load(processed.path("segmentation", frame), allow_pickle=False)
        np.testing.assert_array_equal(found[sure], expected[sure])
    assert report_of(processed, "segmentation")["counts"] == {"pixels_of_unlisted_colour": 0}  # measured: none


def test_every_listed_colour_becomes_its_class(raw: RawData, processed: ProcessedData) -> None:
    """Stripes of all 55 colours, coarse enough that the camera's distortion can't lose one."""
    colours = np.array([rgb_of(colour) for colour in COLOURS], np.uint8)
    label = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cells = label[: HEIGHT // 6 * 6, : WIDTH // 8 * 8].reshape(HEIGHT // 6, 6, WIDTH // 8, 8, 3)
    order = np.arange(cells.shape[0] * cells.shape[2]) % len(colours)
    cells[:] = colours[order].reshape(cells.shape[0], 1, cells.shape[2], 1, 3)
    (frame,) = frames(1)
    write_png(raw.path("label", frame), label)
    run(Segmentation(), raw, processed, "--size", str(WIDTH), str(HEIGHT))
    found = np.load(processed.path("segmentation", frame), allow_pickle=False)
    assert set(np.unique(found)) - {IGNORE} == set(range(len(SEMANTIC_CLASSES)))


def test_alpha_changes_nothing(raw: RawData, processed: ProcessedData) -> None:
    rng = np.random.default_rng(0)
    plain, transparent = frames(2)
    label = random_label(rng)
    write_png(raw.path("label", plain), label)
    write_png(raw.path("label", transparent), label, alpha=rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8))
    assert run(Segmentation(), raw, processed, "--size", "50", "40") == 0
    first, second = (processed.path("segmentation", frame).read_bytes() for frame in (plain, transparent))
    assert first == second


def test_unlisted_colours_are_255_and_counted(raw: RawData, processed: ProcessedData) -> None:
    (frame,) = frames(1)
    label = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    label[:, : WIDTH // 2] = (255, 0, 255)  # RD normal street
    label[:, WIDTH // 2 :] = (255, 0, 254)
    write_png(raw.path("label", frame), label)
    run(Segmentation(), raw, processed, "--size", str(WIDTH), str(HEIGHT))
    found = np.load(processed.path("segmentation", frame), allow_pickle=False)
    x, y = slow_camera.source_positions(CAMERA, (WIDTH, HEIGHT))
    _, outside = slow_camera.nearest(label, x, y)
    street = SEMANTIC_CLASSES.index("RD normal street")
    assert set(np.unique(found)) == {street, IGNORE}
    unlisted = np.count_nonzero((found == IGNORE) & ~outside)
    assert unlisted > WIDTH * HEIGHT / 3
    assert report_of(processed, "segmentation")["counts"]["pixels_of_unlisted_colour"] == pytest.approx(unlisted, abs=3)


def test_one_frames_pixels_do_not_leak_into_the_next(raw: RawData, processed: ProcessedData) -> None:
    """The look-up's memory is kept from frame to frame; what has no source pixel must not show the frame before."""
    first, second = frames(2)
    for frame, colour in ((first, (255, 0, 255)), (second, (135, 206, 255))):
        write_png(raw.path("label", frame), np.full((HEIGHT, WIDTH, 3), colour, np.uint8))
    run(Segmentation(), raw, processed, "--size", "70", "50")
    found = [np.load(processed.path("segmentation", frame), allow_pickle=False) for frame in (first, second)]
    for image, name in zip(found, ("RD normal street", "Sky"), strict=True):
        assert set(np.unique(image)) == {SEMANTIC_CLASSES.index(name), IGNORE}
    np.testing.assert_array_equal(found[0] == IGNORE, found[1] == IGNORE)


def test_packed_reads_three_bytes_a_pixel() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, 3 * 50 + 1, np.uint8)
    found = packed(rgb, out=np.empty(50, np.int64))
    expected = [int(r) + 256 * int(g) + 65536 * int(b) for r, g, b in rgb[:-1].reshape(-1, 3)]
    assert found.tolist() == expected
