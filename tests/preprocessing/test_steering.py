"""The rules of the steering angles: a slow re-implementation, and properties of any signal."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.a2d2.raw import RawData
from datasets.files import read_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from preprocessing.steering_angle import Steering, signed_angles
from tests.raw_files import OTHER_SCENE, SCENE, bus_entry, frames, random_bus_entry, signal, write_bus
from tests.stages import failures, report_of, run, statuses

NAME = "steering_angle_calculated"
FRAME = frames(1)[0]


def slow_angles(entry: dict[str, Any], name: str) -> tuple[list[float], list[int]]:
    """Sample by sample: no measurement? skip; negative on the right."""
    angle, sign = entry["flexray"][name], entry["flexray"][f"{name}_sign"]
    angles, timestamps = [], []
    for number in range(len(angle["values"])):
        if angle["values"][number] >= 614:
            continue
        angles.append(angle["values"][number] if sign["values"][number] == 0 else -angle["values"][number])
        timestamps.append(angle["timestamps"][number])
    return angles, timestamps


def signals(angles: list[float], signs: list[float], **more: Any) -> dict[str, Any]:
    return {NAME: {**signal(angles, 1000), **more}, f"{NAME}_sign": signal(signs, 5000, unit="null")}


# ---- whole files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "steering_angle"])
def test_labels_are_exact(raw: RawData, processed: ProcessedData, name: str) -> None:
    rng = np.random.default_rng(0)
    entries = {frame: random_bus_entry(rng, frame) for frame in frames(30) + frames(5, OTHER_SCENE)}
    for scene in (SCENE, OTHER_SCENE):
        write_bus(raw, scene, [entry for frame, entry in entries.items() if frame.scene == scene])
    assert run(Steering(), raw, processed, "--signal", name) == 0
    assert processed.frames("steering") == sorted(entries)
    for frame, entry in entries.items():
        angles, timestamps = slow_angles(entry, name)
        expected = {"signal": name, "unit": "deg", "angles": angles, "timestamps": timestamps}
        assert read_json(processed.path("steering", frame)) == expected
    kept = [slow_angles(entry, name)[0] for entry in entries.values()]
    counts = report_of(processed, "steering")["counts"]
    assert counts["angles"] == sum(map(len, kept))
    assert counts["sentinels_dropped"] == 35 * 21 - counts["angles"]
    assert any(angle < 0 for angles in kept for angle in angles)


def test_other_cameras_are_left_out(raw: RawData, processed: ProcessedData) -> None:
    first, second = frames(2)
    write_bus(raw, SCENE, [bus_entry(first, [1.0], [0]), bus_entry(second, [2.0], [0], camera="sideleft")])
    assert run(Steering(), raw, processed) == 0
    assert statuses(processed, "steering") == (1, 0, 0, 0)
    assert processed.frames("steering") == [first]


def test_frames_without_camera_files_have_labels_too(raw: RawData, processed: ProcessedData) -> None:
    write_bus(raw, "20181016_082154", [bus_entry(Frame("a2d2", "20181016_082154", "000000001"), [1.0], [0])])
    assert run(Steering(), raw, processed) == 0
    assert processed.frames("steering") == [Frame("a2d2", "20181016_082154", "000000001")]


def without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**entry, "flexray": {name: value for name, value in entry["flexray"].items() if name not in names}}


NOTHING_LEFT: dict[str, dict[str, Any]] = {
    "no signal": without(bus_entry(FRAME, [1.0], [0]), NAME),
    "no sign": without(bus_entry(FRAME, [1.0], [0]), f"{NAME}_sign"),
    "no signals at all": {**bus_entry(FRAME, [1.0], [0]), "flexray": {}},
    "empty": bus_entry(FRAME, [], []),
    "sentinels only": bus_entry(FRAME, [614.1, 614.25, 614.0, 700.0], [0, 1, 0, 0]),
    "signal is null": {**bus_entry(FRAME, [1.0], [0]), "flexray": {NAME: None, f"{NAME}_sign": None}},
}


@pytest.mark.parametrize("case", NOTHING_LEFT)
def test_frames_without_a_measurement_have_no_label(raw: RawData, processed: ProcessedData, case: str) -> None:
    _, second = frames(2)
    write_bus(raw, SCENE, [NOTHING_LEFT[case], bus_entry(second, [0.0], [0])])
    assert run(Steering(), raw, processed) == 0
    assert statuses(processed, "steering") == (1, 0, 1, 0)
    assert processed.frames("steering") == [second]
    assert report_of(processed, "steering")["without_label_frames"] == [str(FRAME)]


BAD_SIGNALS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer signs": (signals([1.0, 2.0], [0]), "2 values, 1 signs"),
    "fewer values": (signals([1.0], [0, 1]), "1 values, 2 signs"),
    "fewer timestamps": (signals([1.0, 2.0], [0, 1], timestamps=[5]), "1 timestamps"),
    "no timestamps": (signals([1.0], [0], timestamps=[]), "0 timestamps"),
    "radians": (signals([1.0], [0], unit="Unit_Radian"), "Unit_Radian"),
    "negative": (signals([-1.0], [0]), "negative"),
    "nan": (signals([1.0, math.nan], [0, 0]), "a finite number"),
    "infinite": (signals([math.inf], [0]), "a finite number"),
    "another sign": (signals([1.0, 1.0], [0, 2]), "sign other than 0"),
    "text": (signals(["left"], [0]), "a valid number"),
}


@pytest.mark.parametrize("case", BAD_SIGNALS)
def test_a_bad_frame_is_named_and_the_rest_goes_on(raw: RawData, processed: ProcessedData, case: str) -> None:
    flexray, reason = BAD_SIGNALS[case]
    _, second = frames(2)
    path = write_bus(raw, SCENE, [{**bus_entry(FRAME, [], []), "flexray": flexray}, bus_entry(second, [3.0], [1])])
    assert run(Steering(), raw, processed) == 1
    assert reason in failures(processed, "steering")[path]
    assert report_of(processed, "steering")["failures"][0]["frame"] == str(FRAME)
    assert processed.frames("steering") == [second]


# ---- rules ----------------------------------------------------------------------------------------------------

SAMPLE = st.tuples(
    st.one_of(st.floats(0, 613.99), st.sampled_from([0.0, 614.0, 614.10, 614.25, 613.95])),
    st.sampled_from([0, 1, 0.0, 1.0]),
    st.integers(0, 2**53),
)
SAMPLES = st.lists(SAMPLE, min_size=1, max_size=40)


def measured(samples: list[tuple[float, float, int]]) -> tuple[list[float], list[int], int]:
    values, signs, timestamps = (list(column) for column in zip(*samples, strict=True))
    found = signed_angles(signals(values, signs, timestamps=timestamps), NAME)
    assert found is not None
    return found


@given(samples=SAMPLES)
def test_any_signal_agrees_with_the_slow_rules(samples: list[tuple[float, float, int]]) -> None:
    angles, timestamps, dropped = measured(samples)
    expected = [(-value if sign else value, time) for value, sign, time in samples if value < 614]
    assert list(zip(angles, timestamps, strict=True)) == expected  # pairs stay pairs, in order
    assert dropped == len(samples) - len(expected)


@given(samples=SAMPLES)
def test_the_sign_is_the_signs(samples: list[tuple[float, float, int]]) -> None:
    angles, _, _ = measured(samples)
    mirrored, _, _ = measured([(value, 1 - sign, time) for value, sign, time in samples])
    assert mirrored == [-angle for angle in angles]
    assert all(abs(angle) < 614 for angle in angles)


@given(samples=SAMPLES)
def test_zero_is_an_angle_without_a_sign(samples: list[tuple[float, float, int]]) -> None:
    angles, _, _ = measured([(0.0, sign, time) for _, sign, time in samples])
    assert angles == [0.0] * len(samples)
    assert "-0.0" not in json.dumps(angles)


@given(samples=SAMPLES, surplus=st.integers(1, 3), column=st.integers(0, 2))
def test_lengths_that_differ_are_refused(samples: list[tuple[float, float, int]], surplus: int, column: int) -> None:
    columns = [list(values) for values in zip(*samples, strict=True)]
    columns[column] += [0] * surplus
    values, signs, timestamps = columns
    with pytest.raises(ValueError, match=NAME):
        signed_angles(signals(values, signs, timestamps=timestamps), NAME)
