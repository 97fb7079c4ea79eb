"""Pictures of boxes: where they and their names stand, what is said where there are none; plots and the dashboard."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from datasets.a2d2.classes import BOX_CLASSES, BOX_COLOURS
from datasets.spec import rgb_of
from tasks.box import BoxLabel, BoxTask
from tests.a2d2 import BOX
from visual.drawing import Tags
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions

GREY = np.full((120, 200, 3), 100, np.uint8)
PLAIN = DrawOptions()


def box_target(*boxes: list[float], index: int = 0) -> dict[str, torch.Tensor]:
    return BoxTask(spec=BOX).collate([BoxLabel(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), index))])


def prediction(box: list[float], score: float, index: int = 0) -> list[dict[str, torch.Tensor]]:
    return [{"boxes": torch.tensor([box]), "scores": torch.tensor([score]), "labels": torch.tensor([index])}]


def has_colour(picture: np.ndarray, index: int) -> np.ndarray:
    return (picture == rgb_of(BOX_COLOURS[index])).all(2)


def test_corners_of_a_predicted_box_are_where_they_belong() -> None:
    image = np.full((201, 401, 3), 100, np.uint8)
    drawn = has_colour(
        picture_of(BoxTask(spec=BOX)).draw(image, prediction([0.25, 0.5, 0.75, 0.9], 0.8, 3), None, PLAIN), 3
    )
    for row, column in ((100, 100), (100, 300), (180, 100), (180, 300)):
        assert drawn[row, column]
    assert drawn[180, 100:301].all()  # solid
    assert drawn[100:181, 300].all()
    assert not drawn[182:].any()
    assert not drawn[:, 302:].any()
    assert not drawn[110:170, 110:290].any()


def test_the_truth_is_dashed() -> None:
    image = np.full((201, 401, 3), 100, np.uint8)
    drawn = has_colour(
        picture_of(BoxTask(spec=BOX)).draw(image, None, box_target([0.25, 0.5, 0.75, 0.9], index=2), PLAIN), 2
    )
    edge = drawn[180, 100:301]
    assert edge[0]
    assert 0.3 < edge.mean() < 0.8
    assert (np.diff(edge.astype(int)) != 0).sum() > 10


def test_boxes_below_the_threshold_are_not_drawn() -> None:
    box = [0.2, 0.2, 0.6, 0.6]
    low, high = (
        picture_of(BoxTask(spec=BOX)).draw(GREY, prediction(box, 0.4), None, DrawOptions(threshold))
        for threshold in (0.3, 0.5)
    )
    assert has_colour(low, 0).any()
    assert not has_colour(high, 0).any()


def test_where_nothing_is_drawn_it_says_so() -> None:
    task = picture_of(BoxTask(spec=BOX))
    nothing = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}]
    told = [
        task.draw(GREY, *given, PLAIN) for given in ((None, box_target()), (nothing, None), (nothing, box_target()))
    ]
    for picture in told:
        assert (picture == 255).all(2).any()
        assert (picture == 0).all(2).any()
    assert not np.array_equal(told[0], told[1])  # of predictions with the lowest score that counts


def test_tags_do_not_cover_each_other() -> None:
    pen = ImageDraw.Draw(Image.new("RGB", (300, 200)))
    tags, rng = Tags(pen, 12, []), np.random.default_rng(0)
    for left, top in rng.integers(0, (250, 150), (60, 2)).tolist():
        tags.add("Pedestrian 0.87", (left, top, left + 40, top + 40), (255, 0, 0))
    assert 12 < len(tags.taken) < 60  # those without room are left out
    for i, (left, top, right, bottom) in enumerate(tags.taken):
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        assert not any(left < c and a < right and top < d and b < bottom for a, b, c, d in tags.taken[:i])


def test_a_tag_stands_where_it_hides_the_least() -> None:
    pen = ImageDraw.Draw(Image.new("RGB", (300, 200)))
    box, above, far = (100, 100, 190, 140), (110, 88, 120, 98), (0, 0, 300, 60)
    tags = Tags(pen, 12, [box, above, far])
    tags.add("Car", box, (255, 0, 0))
    ((left, top, *_),) = tags.taken
    assert (left, top) == (100, 140)  # below: above it is a small box
    tags.add("Truck", far, (255, 0, 0))
    assert tags.taken[1][1] == 0  # inside, of which a tag hides little


def test_precision_falls_where_a_wrong_box_is_the_better_one() -> None:
    """Two cars, one found, with a score below that of a box where nothing is."""
    task = BoxTask(spec=BOX)
    metric, cars = task.metric(), [[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]]
    boxes = torch.tensor([[0.4, 0.1, 0.5, 0.2], cars[0]])
    found = [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.zeros(2).long()}]
    metric.update(found, box_target(*cars))
    curves = metric.precision_at_recall()
    assert list(curves) == ["any class", BOX_CLASSES[0]]
    np.testing.assert_allclose(curves[BOX_CLASSES[0]], np.where(np.arange(101) <= 50, 0.5, 0))
    assert np.mean(curves["any class"]) == pytest.approx(metric.compute()["ap50_any_class"])
    (figure,) = picture_of(task).plots(metric).values()
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["any class, AP50 25.2 %", "Car, AP50 25.2 %"]
    assert picture_of(task).plots(task.metric()) == {}


def test_every_class_of_boxes_has_a_colour_of_its_own() -> None:
    assert len(set(BOX_COLOURS)) == len(BOX_COLOURS) == len(BOX_CLASSES)


def test_box_overlay_is_wandbs_format() -> None:
    overlay = picture_of(BoxTask(spec=BOX)).overlay(
        GREY, prediction([0.25, 0.5, 0.75, 1.0], 0.5, 3), box_target([0, 0, 0.5, 0.5])
    )
    (predicted,), (true,) = (overlay["boxes"][name]["box_data"] for name in ("prediction", "truth"))
    assert predicted["position"] == {"minX": 0.25, "minY": 0.5, "maxX": 0.75, "maxY": 1.0}
    assert (predicted["class_id"], predicted["scores"]) == (3, {"score": 0.5})
    assert "scores" not in true
    assert overlay["boxes"]["truth"]["class_labels"][true["class_id"]] == "Car"
