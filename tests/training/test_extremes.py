"""Data and settings at their limits: a training ends well, or with one line that says what is wrong with which key."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evaluate
import train_asymmetric
import train_single_task
from tests.training.conftest import Printed, Workplace
from tests.training.test_asymmetric import ASYMMETRIC
from training import checkpoint

Call = Callable[..., Printed]


def rewrite(place: Workplace, kind: str, change: Callable[[Path], None]) -> None:
    """Change every label file of a kind."""
    for frame in place.processed.frames(kind):
        change(place.processed.path(kind, frame))


def filled(value: float) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        label = np.load(path, allow_pickle=False)
        np.save(path, np.full_like(label, value))

    return fill


def no_boxes(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boxes": []}))


def assert_one_line(printed: Printed, *words: str) -> None:
    assert printed.code == 2, printed
    *warnings, line = printed.err.splitlines()
    assert all(warning.startswith("warning: ") for warning in warnings), printed.err
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def assert_trained(place: Workplace, call: Call, printed: Printed, name: str) -> None:
    """It has ended, its weights are numbers, and evaluate.py takes it."""
    assert (printed.code, "Traceback" in printed.err) == (0, False), printed
    path = place.runs / name / "last.pt"
    content = checkpoint.load(path)
    assert checkpoint.first_not_finite(checkpoint.state_tensors(content)) is None
    assert call(evaluate.main, path, *place.roots(), "--workers", "0").code == 0


def single(call: Call, place: Workplace, mode: str, *more: str) -> Printed:
    return call(train_single_task.main, *place.flags(mode, *more))


def asymmetric(call: Call, place: Workplace, *more: str) -> Printed:
    config = place.config(json.dumps(ASYMMETRIC))
    flags = ["--config", str(config), "--runs-root", str(place.runs), "--wandb", "disabled"]
    return call(train_asymmetric.main, *place.roots(), *flags, *more)


def test_boxes_nowhere(own_workplace: Workplace, call: Call) -> None:
    rewrite(own_workplace, "box", no_boxes)
    assert_one_line(single(call, own_workplace, "box"), "box", "no label has a box")


def test_masks_without_a_class(own_workplace: Workplace, call: Call) -> None:
    rewrite(own_workplace, "segmentation", filled(255))
    assert_one_line(single(call, own_workplace, "segmentation"), "segmentation")


def test_depth_without_a_measurement(own_workplace: Workplace, call: Call) -> None:
    rewrite(own_workplace, "depth", filled(0))
    assert_one_line(single(call, own_workplace, "depth"), "depth")


def test_a_task_whose_every_label_says_nothing_beside_others(own_workplace: Workplace, call: Call) -> None:
    rewrite(own_workplace, "segmentation", filled(255))
    assert_one_line(asymmetric(call, own_workplace), "segmentation")


def test_a_task_without_any_label_beside_others(own_workplace: Workplace, call: Call) -> None:
    rewrite(own_workplace, "steering", lambda path: path.unlink())
    printed = asymmetric(call, own_workplace)
    assert "steering" in printed.out + printed.err
    assert_trained(own_workplace, call, printed, "asymmetric")


def test_a_batch_larger_than_the_data(workplace: Workplace, call: Call) -> None:
    larger = ("--set", "tasks.steering.batch_size=64", "--set", "tasks.steering.micro_batch_size=32")
    assert_trained(workplace, call, single(call, workplace, "steering", *larger), "steering")


def test_one_frame(own_workplace: Workplace, call: Call) -> None:
    _, *others = own_workplace.processed.frames("steering")
    for frame in others:
        own_workplace.processed.path("steering", frame).unlink()
    assert_one_line(single(call, own_workplace, "steering"), "steering")
    overfit = single(call, own_workplace, "steering", "--set", "data.split={mode: overfit}")
    assert_trained(own_workplace, call, overfit, "steering")


def test_nothing_to_validate_with(workplace: Workplace, call: Call) -> None:
    printed = single(call, workplace, "steering", "--set", "data.split={mode: time, fractions: [1.0, 0.0, 0.0]}")
    assert_one_line(printed, "data.split")


@pytest.mark.parametrize("mode", ["steering", "box"])
def test_a_learning_rate_that_explodes(workplace: Workplace, call: Call, mode: str) -> None:
    """Whether it gets that far or not, no file holds what is not finite: loading one checks it."""
    rate = ("--set", f"tasks.{mode}.learning_rate=1000", "--set", "training.epochs=3")
    printed = single(call, workplace, mode, *rate)
    if printed.code:
        assert_one_line(printed, mode)
        for path in (workplace.runs / mode).glob("*.pt"):
            checkpoint.load(path)
    else:
        assert_trained(workplace, call, printed, mode)
