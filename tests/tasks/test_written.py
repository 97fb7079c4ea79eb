"""How people write metrics: per cent, digits, direction."""

import math

import pytest

from datasets.a2d2.spec import LABELS
from tasks import TASKS
from tasks.written import Written

RATE, ERROR = Written("mIoU", "%", 1, "higher"), Written("RMSE", "m", better="lower")


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        (RATE, 0.3894, "38.9"),
        (RATE, 0.0, "0.0"),
        (RATE, None, "-"),
        (RATE, math.nan, "-"),
        (ERROR, 4.56789, "4.568"),
        (ERROR, math.inf, "inf"),
        (Written("objects", decimals=0), 37, "37"),
    ],
)
def test_numbers(written: Written, value: float | None, text: str) -> None:
    assert written.number(value) == text


def test_units_and_directions() -> None:
    assert (RATE.heading, RATE.directed, RATE.with_unit(0.5)) == ("mIoU, %", "mIoU, % ↑", "50.0 %")
    assert (ERROR.directed, ERROR.with_unit(2.0)) == ("RMSE, m ↓", "2.000 m")
    assert Written("AbsRel").with_unit(0.1234) == "0.123"
    assert (RATE.difference(-0.0123), ERROR.difference(0.5)) == ("-1.23", "+0.5000")


def test_what_stands_for_all_classes_and_data_sets() -> None:
    task = TASKS["segmentation"]
    assert task.written("iou/Car") == task.written("iou@cityscapes") == task.metrics["iou"]
    assert task.written("of_another").title == "of_another"


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("kind", TASKS)
def test_each_task_says_how_its_metrics_are_written(kind: str) -> None:
    task = TASKS[kind](spec=LABELS.get(kind))
    assert task.deciding().better
    assert set(task.metric().compute()) <= set(task.metrics)
    assert task.class_frequency is None or task.class_frequency in task.metrics
