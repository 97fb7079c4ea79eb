"""Properties of the pictures: what stands where and in which colour. Not golden pixels of whole pictures."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from datasets.a2d2.classes import COLOURS, SEMANTIC_CLASSES
from datasets.a2d2.spec import LABELS
from datasets.spec import IGNORE, rgb_of
from tasks import TASKS
from tasks.box import BoxLabel
from tasks.depth import DepthTask
from tasks.segmentation import SegmentationTask
from tasks.steering import SteeringTask
from tests.a2d2 import DEPTH, SEGMENTATION
from tests.toy_task import BalanceTask
from visual.drawing import legend, text_size, with_strip
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions, in_words

H, W = 120, 200
GREY = np.full((H, W, 3), 100, np.uint8)
PLAIN = DrawOptions()


def segmentation_target(classes: np.ndarray) -> dict[str, torch.Tensor]:
    return SegmentationTask(spec=SEGMENTATION).collate([classes.astype(np.uint8)])


def example(name: str) -> tuple[object, object]:
    """A prediction and a target of the task, B = 1."""
    boxes = BoxLabel(np.array([[0.1, 0.2, 0.5, 0.9]], np.float32), np.array([0]))
    labels = {
        "segmentation": np.full((24, 40), 7, np.uint8),
        "depth": np.full((24, 40), 10 * 256, np.uint16),
        "steering": np.full(10, 30.0, np.float32),
        "box": boxes,
    }
    task = TASKS[name](spec=LABELS.get(name))
    return task.constant([labels[name]]), task.collate([labels[name]])


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("size", [(604, 960), (302, 480), (60, 96)])
def test_the_size_depends_on_task_and_image_alone(name: str, size: tuple[int, int]) -> None:
    """Videos need it: all frames of a scene are drawn alike, whatever they have."""
    picture, image = picture_of(TASKS[name](spec=LABELS.get(name))), np.zeros((*size, 3), np.uint8)
    prediction, target = example(name)
    sizes = {picture.draw(image, *given, PLAIN).shape for given in ((prediction, None), (None, target))}
    sizes |= {picture.draw(image, prediction, target, DrawOptions(errors=True)).shape}
    sizes |= {picture.blank(image, PLAIN).shape}
    assert len(sizes) == 1
    assert sizes.pop()[1] == size[1]


@pytest.mark.parametrize("name", list(TASKS))
def test_letters_are_as_large_as_asked_for(name: str) -> None:
    """What is below the image is a number of lines."""
    picture, image = picture_of(TASKS[name](spec=LABELS.get(name))), np.zeros((120, 480, 3), np.uint8)
    heights = [picture.draw(image, None, example(name)[1], DrawOptions(letters=size)).shape[0] for size in (10, 20, 40)]
    lines = [picture.lines(480, size) for size in (10, 20, 40)]
    assert heights == [
        120 + (round((count + 0.5) * 1.5 * size) if count else 0)
        for count, size in zip(lines, (10, 20, 40), strict=True)
    ]


@pytest.mark.parametrize("name", list(TASKS))
def test_the_image_is_left_as_it_was(name: str) -> None:
    image = GREY.copy()
    picture_of(TASKS[name](spec=LABELS.get(name))).draw(image, *example(name), PLAIN)
    assert (image == 100).all()


# ---- segmentation ---------------------------------------------------------------------------------------------


def test_palette_has_the_colour_of_each_class() -> None:
    colours = SEGMENTATION.classes.palette()
    assert colours[SEMANTIC_CLASSES.index("Car")].tolist() == [255, 0, 0]  # of Car 1
    listed = {rgb_of(colour) for colour in COLOURS}
    assert {tuple(colours[index]) for index in range(len(SEMANTIC_CLASSES))} <= listed
    assert len(np.unique(colours[: len(SEMANTIC_CLASSES)], axis=0)) == len(SEMANTIC_CLASSES)


def test_a_class_pixel_has_its_classs_colour() -> None:
    classes = np.full((H, W), IGNORE)
    classes[:60, :100], classes[60:, 100:] = 0, 20
    picture = picture_of(SegmentationTask(spec=SEGMENTATION)).draw(GREY, None, segmentation_target(classes), PLAIN)
    for row, column, index in ((10, 10, 0), (59, 99, 0), (60, 100, 20), (119, 199, 20)):
        assert (
            picture[row, column].tolist()
            == np.rint(0.6 * SEGMENTATION.classes.palette()[index] + 0.4 * 100).astype(int).tolist()
        )
    assert (picture[10, 150] == 100).all()  # no class: the image itself


def test_errors_show_only_the_pixels_that_differ() -> None:
    truth = np.zeros((H, W))
    truth[:, 150:] = IGNORE
    prediction = torch.zeros(1, H, W, dtype=torch.uint8)
    prediction[:, :, 50:] = 4
    picture = picture_of(SegmentationTask(spec=SEGMENTATION)).draw(
        GREY, prediction, segmentation_target(truth), DrawOptions(errors=True)
    )[:H]
    coloured = np.ptp(picture.astype(int), axis=2) > 0
    assert not coloured[:, :50].any()
    assert coloured[:, 50:150].all()
    assert not coloured[:, 150:].any()  # nobody knows what is right there


@pytest.mark.parametrize("width", [480, 640, 960])
def test_the_longest_names_fit_into_the_legend(width: int) -> None:
    """A column's squares stand on white, not on the names of the column before; nothing reaches the border."""
    names = sorted(SEMANTIC_CLASSES, key=len, reverse=True)[:4]
    size, rows = text_size(width), 4
    canvas, pen = with_strip(np.full((1, width, 3), 255, np.uint8), rows, size)
    legend(pen, [(name, (255, 0, 0)) for name in names], (0, 1), width, rows, size)
    picture = np.array(canvas)
    assert (picture[:, -1] == 255).all()
    reds = (picture == (255, 0, 0)).all(2).any(0)
    (starts,) = np.nonzero(np.diff(reds.astype(int)) == 1)  # the outline's column; inside follows
    assert len(starts) == 1  # all four below each other
    for start in starts:
        assert (picture[:, start - 2 : start] == 255).all()


def test_a_narrow_legend_has_more_lines() -> None:
    picture = picture_of(SegmentationTask(spec=SEGMENTATION))
    target = segmentation_target(np.repeat(np.arange(12), 4)[None].repeat(20, 0))
    image, size = np.zeros((200, 400, 3), np.uint8), 27
    strip = picture.draw(image, None, target, DrawOptions(letters=size))[200:]
    squares = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()} & set(SEGMENTATION.classes.rgb[:12])
    assert len(squares) == 12
    assert picture.blank(image, DrawOptions(letters=size)).shape == (200 + len(strip), 400, 3)


def test_segmentation_overlay_fits_the_image() -> None:
    small = np.zeros((12, 20), np.uint8)
    small[:, 10:] = 7
    overlay = picture_of(SegmentationTask(spec=SEGMENTATION)).overlay(
        GREY, torch.from_numpy(small)[None], segmentation_target(small)
    )
    mask = overlay["masks"]["prediction"]["mask_data"]
    assert np.array_equal(mask, cv2.resize(small, (W, H), interpolation=cv2.INTER_NEAREST))
    assert overlay["masks"]["truth"]["class_labels"][7] == SEMANTIC_CLASSES[7]


def test_confusion_figure_shows_shares_of_the_present_classes() -> None:
    task, metric = SegmentationTask(spec=SEGMENTATION), SegmentationTask(spec=SEGMENTATION).metric()
    truth = np.zeros((10, 10))
    truth[5:] = 3
    predicted = torch.zeros(1, 10, 10, dtype=torch.uint8)
    predicted[0, 8:] = 3
    metric.update(predicted, segmentation_target(truth))
    axes = picture_of(task).plots(metric)["confusion"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [SEMANTIC_CLASSES[0], SEMANTIC_CLASSES[3]]
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0], [0.6, 0.4]])
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
        (0, 0, "100"),
        (0, 1, "60"),
        (1, 1, "40"),
    }
    assert "segmentation" in axes.get_title()


# ---- depth ----------------------------------------------------------------------------------------------------


def test_near_is_brighter_and_the_range_is_the_same_for_both() -> None:
    task = DepthTask(spec=DEPTH)
    metres = torch.linspace(1, 80, W).expand(1, H, W)
    picture = picture_of(task).draw(GREY, metres, None, PLAIN)[60].astype(int)
    brightness = picture @ [299, 587, 114]
    assert (np.diff(brightness) <= 0).mean() > 0.95
    assert brightness[0] > 3 * brightness[-1]
    dots = picture_of(task).draw(GREY, None, task.collate([np.rint(metres[0].numpy() * 256).astype(np.uint16)]), PLAIN)
    assert np.abs(dots[60, ::20].astype(int) - picture[::20]).max() <= 12  # a dot's neighbours lie over its rim


def test_a_measurement_is_a_dot_at_its_pixel() -> None:
    depth = np.zeros((24, 40), np.uint16)
    depth[6, 10] = 5 * 256
    picture = picture_of(DepthTask(spec=DEPTH)).draw(GREY, None, DepthTask(spec=DEPTH).collate([depth]), PLAIN)[:H]
    rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2))
    assert 0 < len(rows) < 30
    assert abs(rows.mean() - 6.5 * 5) < 1  # the pixel's centre at 5 times the size
    assert abs(columns.mean() - 10.5 * 5) < 1


def test_what_lies_beyond_the_cap_looks_like_the_cap() -> None:
    pictures = [
        picture_of(DepthTask(spec=DEPTH)).draw(GREY, torch.full((1, H, W), metres), None, PLAIN)
        for metres in (80.0, 500.0)
    ]
    assert np.array_equal(*pictures)


def test_errors_of_depth_are_shares_of_the_truth_at_the_measurements() -> None:
    task = DepthTask(spec=DEPTH)
    depth = np.zeros((24, 40), np.uint16)
    depth[6, 10], depth[12, 20], depth[18, 30] = 10 * 256, 20 * 256, 200 * 256  # the last is beyond what is evaluated
    target, prediction = task.collate([depth]), torch.full((1, 24, 40), 15.0)
    errors = task.relative_errors(prediction, target)
    assert errors[0, 6, 10] == 0.5
    assert errors[0, 12, 20] == 0.25
    assert errors.isfinite().sum() == 2
    metric = task.metric()
    metric.update(prediction, target)
    assert metric.compute()["abs_rel"] == pytest.approx(errors.nanmean().item())
    shown = picture_of(task).draw(GREY, prediction, target, DrawOptions(errors=True))[:H].astype(int)
    large, small, nothing = shown[32, 52], shown[62, 102], shown[92, 152]
    assert large.sum() > small.sum() > nothing.sum()
    assert np.ptp(nothing) == 0  # the image in grey


# ---- steering -------------------------------------------------------------------------------------------------


def wheel(degrees: float) -> np.ndarray:
    """Pixels of the prediction's spokes, for an angle all along."""
    picture, image = picture_of(SteeringTask()), np.full((302, 480, 3), 100, np.uint8)
    strip = picture.draw(image, torch.full((1, 10), degrees), None, PLAIN)[302:]
    return (strip[:, : round(0.36 * 480)] == (31, 119, 180)).all(2)  # the wheel is left of the numbers


def thick_spoke(spokes: np.ndarray) -> tuple[float, float]:
    """Where the thick spoke points: its mean place right of and above the centre, in pixels."""
    thick = cv2.morphologyEx(spokes.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))
    rows, columns = np.nonzero(thick)
    return columns.mean() - 1.2 * min(0.33 * len(spokes), 0.16 * 480), 0.5 * len(spokes) - rows.mean()


def test_left_is_positive_and_turns_the_wheel_anticlockwise() -> None:
    ahead, left, right = (thick_spoke(wheel(angle)) for angle in (0.0, 90.0, -90.0))
    assert abs(ahead[0]) < 3 < 10 < ahead[1]
    assert left[0] < -10 < -3 < left[1] < 3
    assert right[0] > 10 > 3 > right[1] > -3


@pytest.mark.parametrize("width", [300, 480, 960])
def test_nothing_is_cut_off(width: int) -> None:
    picture, image = picture_of(SteeringTask()), np.zeros((10, width, 3), np.uint8)
    strip = picture.draw(image, torch.full((1, 10), -123.4), None, DrawOptions(letters=27))[10:]
    assert (strip[:, -2:] == 255).all()


def test_angles_of_two_networks_have_one_range() -> None:
    """What is beside the curve, its marks, is the same."""
    picture, image = picture_of(SteeringTask()), np.zeros((10, 480, 3), np.uint8)
    marks = [
        picture.draw(image, torch.full((1, 10), angle), None, DrawOptions(letters=14))[80:, 195:235]
        for angle in (31.0, 33.0, 39.0)
    ]
    assert np.array_equal(marks[0], marks[1])
    assert not np.array_equal(marks[0], marks[2])


def test_a_frame_with_few_angles_is_drawn() -> None:
    task = SteeringTask()
    target = task.collate([np.array([5.0, 6.0], np.float32)])
    picture = picture_of(task)
    assert picture.draw(GREY, torch.zeros(1, 10), target, PLAIN).shape[0] > H
    assert picture.scene_value(target=target) == 6.0
    assert picture.scene_value(torch.arange(10.0)[None]) == 9.0


# ---- what is better said than drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "told"),
    [
        ("segmentation", np.array([[0, IGNORE], [IGNORE, IGNORE]], np.uint8), "75% without a class"),
        ("depth", np.array([[0, 512], [0, 1024]], np.uint16), "2.0 to 4.0 m on 50% of the pixels"),
        ("depth", np.zeros((2, 2), np.uint16), "nothing measured"),
        ("steering", np.array([-3.0, 5.04], np.float32), "-3.0°, +5.0°"),
        ("box", BoxLabel(np.array([[0, 0, 0.5, 0.5]] * 2, np.float32), np.array([0, 1])), "2 boxes"),
    ],
)
def test_a_caption_says_what_a_label_is(name: str, label: Any, told: str) -> None:
    task = TASKS[name](spec=LABELS.get(name))
    assert picture_of(task).caption(task.collate([label])) == told


# ---- a kind without a picture of its own ----------------------------------------------------------------------


class NormalsTask(BalanceTask):
    """Stands for any kind that visual/pictures does not know."""

    kind = "normals"


def plain(prediction: Any, target: Any) -> np.ndarray:
    return picture_of(NormalsTask()).draw(GREY, prediction, target, PLAIN)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_an_unknown_map_is_shown_in_colours(channels: int) -> None:
    """Dark to bright over the truth's range, for the prediction too."""
    truth = torch.linspace(-1, 1, 20).expand(1, channels, 12, 20)
    target = {"normals": truth, "valid": torch.ones(1, dtype=torch.bool)}
    shown, bright, dark = (plain(*given)[:H] for given in ((None, target), (truth + 2, target), (truth - 2, target)))
    expected = np.repeat(np.rint(np.linspace(0, 255, 20)).astype(int), W // 20)
    assert (np.abs(shown[H // 2].astype(int)[:, 0] - expected) <= 1).all()
    drawn = [0, 1, 2] if channels == 1 else list(range(channels))
    assert (bright[..., drawn] == 255).all()
    assert (dark == 0).all()


@pytest.mark.parametrize("values", [math.nan, math.inf, 3.0])
def test_an_unknown_map_without_a_range_is_dark(values: float) -> None:
    assert (plain(torch.full((1, 12, 20), values), None)[:H] == 0).all()


@pytest.mark.parametrize(
    "prediction",
    [
        torch.ones(1),
        torch.ones(1, 100),
        torch.ones(1, 30, 12, 20),
        torch.zeros(1, 0, 4),
        [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}],
        {"poses": torch.ones(1, 17, 3, dtype=torch.uint8)},
    ],
)
def test_unknown_numbers_are_told_below_the_image(prediction: Any) -> None:
    picture = plain(prediction, None)
    assert (picture[:H] == GREY).all()
    assert (picture[H:] < 128).any()
    assert (
        picture.shape
        == picture_of(NormalsTask()).blank(GREY, PLAIN).shape
        == plain(None, NormalsTask().collate([np.float64(2)])).shape
    )


def test_few_numbers_are_told_and_of_more_the_range() -> None:
    assert in_words({"angle": torch.tensor(1.5), "valid": torch.tensor([True, False])}) == "angle 1.5, valid 1 0"
    assert in_words(torch.arange(30.0).view(3, 10)) == "3 x 10, 0 to 29"
