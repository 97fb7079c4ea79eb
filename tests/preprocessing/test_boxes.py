"""The rules of the boxes: a slow re-implementation, and properties of any list of boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.a2d2.classes import BOX_CLASSES
from datasets.a2d2.raw import RawData
from datasets.conversion import Label
from datasets.files import read_json
from datasets.processed import ProcessedData
from preprocessing.bounding_box import Boxes, clip, parse_box, without_duplicates
from tests.raw_files import HEIGHT, WIDTH, box, frames, random_boxes, write_boxes
from tests.stages import report_of, run

FRAME = frames(1)[0]
RESOLUTION = (1920, 1208)
Box = dict[str, Any]


def slow_boxes(raw_boxes: list[Box], resolution: tuple[int, int]) -> list[Box]:
    """Box by box: unseen so far? clip; anything left? keep."""
    seen, kept = [], []
    for raw_box in raw_boxes:
        key = (raw_box["class"], raw_box["2d_bbox"])
        if key in seen:
            continue
        seen.append(key)
        left, top, right, bottom = raw_box["2d_bbox"]
        left, right = sorted([0, left, resolution[0]])[1], sorted([0, right, resolution[0]])[1]
        top, bottom = sorted([0, top, resolution[1]])[1], sorted([0, bottom, resolution[1]])[1]
        if right - left > 0 and bottom - top > 0:
            rest = {name: raw_box[name] for name in ("occlusion", "truncation")}
            kept.append({"class": raw_box["class"], "bbox": [left, top, right, bottom], **rest})
    return kept


def converted(raw_boxes: list[Box], folder: Path) -> tuple[list[Box], dict[str, int]]:
    """What the stage makes of these boxes: the label's boxes and the counts."""
    stage, path = Boxes(), folder / "boxes.json"
    stage.prepare({"resolution": list(RESOLUTION)})
    path.write_text(json.dumps({f"box_{number}": raw_box for number, raw_box in enumerate(raw_boxes)}))
    label = stage.convert(path)
    assert isinstance(label, Label)
    return json.loads(label.content)["boxes"], label.counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of hypothesis' examples."""
    return tmp_path_factory.mktemp("boxes")


# ---- whole files ----------------------------------------------------------------------------------------------


def test_labels_are_exact(raw: RawData, processed: ProcessedData) -> None:
    rng, written = np.random.default_rng(0), {}
    for frame in frames(20):
        written[frame] = random_boxes(rng)
        write_boxes(raw, frame, written[frame])
    assert run(Boxes(), raw, processed) == 0
    for frame, raw_boxes in written.items():
        label = read_json(processed.path("box", frame))
        assert label == {"size": [WIDTH, HEIGHT], "boxes": slow_boxes(raw_boxes, (WIDTH, HEIGHT))}
    counts = report_of(processed, "box")["counts"]
    expected = [slow_boxes(raw_boxes, (WIDTH, HEIGHT)) for raw_boxes in written.values()]
    assert counts["boxes"] == sum(map(len, expected))
    assert counts["duplicates_removed"] == 20 * 3
    assert counts["outside_or_degenerate_removed"] == 20 * 8 - counts["boxes"] > 0
    assert counts["boxes_clipped"] > 0


def test_real_boxes_are_exact(real_data: RawData, processed: ProcessedData) -> None:
    assert run(Boxes(), real_data, processed) == 0
    real = real_data.frames("label3D")
    assert real
    for frame in real:
        raw_boxes = list(read_json(real_data.path("label3D", frame)).values())
        label = read_json(processed.path("box", frame))
        assert label == {"size": [1920, 1208], "boxes": slow_boxes(raw_boxes, RESOLUTION)}
        assert label["boxes"]


def test_a_frame_without_boxes_has_an_empty_label(raw: RawData, processed: ProcessedData) -> None:
    write_boxes(raw, FRAME, [])
    assert run(Boxes(), raw, processed) == 0
    assert read_json(processed.path("box", FRAME)) == {"size": [WIDTH, HEIGHT], "boxes": []}


def test_size_has_no_part_in_boxes(raw: RawData, processed: ProcessedData) -> None:
    write_boxes(raw, FRAME, [box("Car", [1.5, 2.5, 30.25, 40.75])])
    assert run(Boxes(), raw, processed, "--size", "10", "10") == 0
    assert run(Boxes(), raw, processed, "--size", "20", "20") == 0  # no other settings
    assert read_json(processed.path("box", FRAME))["boxes"][0]["bbox"] == [1.5, 2.5, 30.25, 40.75]


# ---- rules ----------------------------------------------------------------------------------------------------

EDGE = st.one_of(st.floats(-13_000, 7_000), st.sampled_from([0.0, -0.0, 1920.0, 1208.0, 100.0]), st.integers(-50, 2000))
BOX = st.builds(
    box,
    st.sampled_from(BOX_CLASSES),
    st.lists(EDGE, min_size=4, max_size=4),
    occlusion=st.sampled_from([0.0, 1.0, 2.0, 3.0]),
    truncation=st.floats(0, 1),
)
BOXES = st.lists(BOX, max_size=12)


@settings(max_examples=50)
@given(raw_boxes=BOXES, repeated=st.lists(st.integers(0, 11), max_size=6))
def test_any_boxes_agree_with_the_slow_rules(folder: Path, raw_boxes: list[Box], repeated: list[int]) -> None:
    raw_boxes = raw_boxes + [raw_boxes[index] for index in repeated if index < len(raw_boxes)]
    assert converted(raw_boxes, folder)[0] == slow_boxes(raw_boxes, RESOLUTION)


@settings(max_examples=50)
@given(raw_boxes=BOXES)
def test_every_box_that_is_kept_lies_in_the_image_and_has_an_area(folder: Path, raw_boxes: list[Box]) -> None:
    boxes, counts = converted(raw_boxes, folder)
    for kept in boxes:
        left, top, right, bottom = kept["bbox"]
        assert 0 <= left < right <= 1920
        assert 0 <= top < bottom <= 1208
    removed = counts["duplicates_removed"] + counts["outside_or_degenerate_removed"]
    assert len(boxes) == counts["boxes"] == len(raw_boxes) - removed


@settings(max_examples=50)
@given(raw_boxes=BOXES, times=st.integers(2, 10))
def test_repeating_every_box_changes_nothing(folder: Path, raw_boxes: list[Box], times: int) -> None:
    once, counts = converted(raw_boxes, folder)
    often, more = converted(raw_boxes * times, folder)
    assert often == once
    assert more["duplicates_removed"] - counts["duplicates_removed"] == len(raw_boxes) * (times - 1)


@settings(max_examples=50)
@given(raw_boxes=st.lists(BOX, min_size=2, max_size=8, unique_by=lambda item: (item["class"], tuple(item["2d_bbox"]))))
def test_order_follows_the_file(folder: Path, raw_boxes: list[Box]) -> None:
    assert converted(raw_boxes[::-1], folder)[0] == converted(raw_boxes, folder)[0][::-1]


@settings(max_examples=50)
@given(
    corner=st.tuples(st.floats(0, 1900), st.floats(0, 1190)),
    extent=st.tuples(st.floats(0.5, 20), st.floats(0.5, 18)),
)
def test_a_box_inside_is_left_alone(folder: Path, corner: tuple[float, float], extent: tuple[float, float]) -> None:
    bbox = [corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1]]
    boxes, counts = converted([box("Bus", bbox, occlusion=2.0, truncation=0.25)], folder)
    assert boxes == [{"class": "Bus", "bbox": bbox, "occlusion": 2.0, "truncation": 0.25}]
    assert counts["boxes_clipped"] == 0


@given(bbox=st.lists(EDGE, min_size=4, max_size=4))
def test_clipping_twice_is_clipping_once(bbox: list[float]) -> None:
    once = clip(bbox, *RESOLUTION)
    assert clip(once, *RESOLUTION) == once


def test_same_place_but_another_class_is_no_duplicate(folder: Path) -> None:
    boxes, counts = converted([box("Car", [1, 2, 3, 4]), box("Truck", [1, 2, 3, 4])], folder)
    assert [kept["class"] for kept in boxes] == ["Car", "Truck"]
    assert counts["duplicates_removed"] == 0


def test_of_duplicates_the_first_is_kept() -> None:
    first, second = ({"class": "Car", "bbox": [1.0, 2.0, 3.0, 4.0], "occlusion": level} for level in (0.0, 2.0))
    assert without_duplicates([first, second]) == [first]


@pytest.mark.parametrize(
    "bbox",
    [
        [-50, 10, 0, 20],  # touches the left edge only
        [1920, 10, 2000, 20],
        [10, -30, 20, -1],
        [10, 1208, 20, 1300],
        [10, 10, 10, 20],  # no width
        [20, 10, 10, 20],  # left and right swapped
    ],
)
def test_what_has_no_area_in_the_image_is_dropped(folder: Path, bbox: list[float]) -> None:
    boxes, counts = converted([box("Car", bbox), box("Car", [1, 2, 3, 4])], folder)
    assert [kept["bbox"] for kept in boxes] == [[1, 2, 3, 4]]
    assert counts["outside_or_degenerate_removed"] == 1


def test_a_box_over_the_whole_image_is_clipped_to_it(folder: Path) -> None:
    boxes, counts = converted([box("Truck", [-12521.0, -3.5, 6699.0, 5000.0])], folder)
    assert boxes[0]["bbox"] == [0, 0, 1920, 1208]
    assert counts["boxes_clipped"] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class": "Spaceship"}, "Spaceship"),
        ({"class": None}, "class: Input should be a valid string"),
        ({"2d_bbox": [1, 2, 3]}, "2d_bbox"),
        ({"2d_bbox": [1, 2, 3, 4, 5]}, "2d_bbox"),
        ({"2d_bbox": [1, 2, 3, float("nan")]}, "2d_bbox"),
        ({"2d_bbox": [1, 2, float("inf"), 4]}, "2d_bbox"),
        ({"2d_bbox": ["left", 2, 3, 4]}, "2d_bbox"),
        ({"2d_bbox": None}, "2d_bbox"),
        ({"occlusion": float("nan")}, "occlusion"),
        ({"truncation": "much"}, "truncation"),
    ],
)
def test_a_bad_box_is_named(change: Box, reason: str) -> None:
    with pytest.raises(ValueError, match=f"box_7.*{reason}"):
        parse_box("box_7", {**box("Car", [1, 2, 3, 4]), **change})


@pytest.mark.parametrize("missing", ["class", "2d_bbox", "occlusion", "truncation"])
def test_a_missing_key_is_named(missing: str) -> None:
    incomplete = {name: value for name, value in box("Car", [1, 2, 3, 4]).items() if name != missing}
    with pytest.raises(ValueError, match=f"box_7.*{missing}"):
        parse_box("box_7", incomplete)
