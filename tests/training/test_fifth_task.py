"""A fifth task is one class, one line in TASKS and label files: loop, dataset and the scripts need no change."""

import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import evaluate
import train_single_task
import visualize
from datasets.images import read_png
from datasets.processed import OTHER_SUFFIXES
from models.registry import HEADS, NETWORKS
from tasks import TASKS
from tests.toy_task import HEAD, KIND, NETWORK, SUFFIXES, BalanceTask, balance_of, write_balances
from tests.training.conftest import Printed, Workplace
from training import checkpoint

CONFIG = f"""\
data:
  size: [32, 20]
  split: {{mode: time, fractions: [0.7, 0.2, 0.1], gap_seconds: 1.0}}
  workers: 0
training: {{epochs: 3, log_every: 1}}
tasks:
  {KIND}: {{batch_size: 4, micro_batch_size: 2, learning_rate: 0.05, settings: {{cells: 2}}}}
"""


@pytest.fixture
def lab(own_workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The task is registered and has labels made from the images."""
    monkeypatch.setitem(TASKS, KIND, BalanceTask)
    monkeypatch.setitem(NETWORKS, KIND, NETWORK)
    monkeypatch.setitem(HEADS, KIND, HEAD)
    monkeypatch.setitem(OTHER_SUFFIXES, KIND, SUFFIXES)
    raw = own_workplace.raw
    values = {frame: balance_of(read_png(raw.path("camera", frame))) for frame in raw.frames("camera")}
    write_balances(own_workplace.processed, values)
    shutil.rmtree(own_workplace.processed.kind_dir("camera"))  # of another size: images come from the raw ones
    return own_workplace


def flags(lab: Workplace) -> list[str]:
    config, runs = str(lab.config(CONFIG)), str(lab.runs)
    return [*lab.roots(), "--train-mode", KIND, "--config", config, "--runs-root", runs, "--wandb", "disabled"]


def test_it_is_trained_resumed_and_evaluated_like_any_other(lab: Workplace, call: Callable[..., Printed]) -> None:
    trained = call(train_single_task.main, *flags(lab))
    assert (trained.code, trained.err) == (0, "")
    run = lab.runs / KIND
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in rows if f"val/{KIND}/mae" in row]) == 3
    assert rows[0] == {"samples": 0, f"samples/{KIND}": 10}
    assert f"train/{KIND}/loss" in rows[1]
    content = checkpoint.load(run / "best.pt")
    assert content["config"]["tasks"][KIND]["settings"] == {"cells": 2}
    assert content["model"]["network.hidden.weight"].shape == (5, 3 * 2**2)  # the setting has reached the network
    assert content["model"]["network.hidden.weight"].dtype == torch.float64

    resumed = call(train_single_task.main, *flags(lab), "--resume", "auto")
    assert resumed.code == 0
    assert "goes on after 30 samples" in resumed.out

    report = lab.dir / "report.json"
    evaluated = call(evaluate.main, str(run / "best.pt"), *lab.roots(), "--workers", "0", "--json", str(report))
    assert (evaluated.code, evaluated.err) == (0, "")
    numbers = json.loads(report.read_text())
    assert set(numbers) == {"constant", KIND, "runs"}
    assert numbers[KIND][KIND]["mae"] == pytest.approx(content["best"]["results"][KIND]["mae"])
    assert KIND in evaluated.out


def test_it_is_shown_without_a_picture_of_its_own(lab: Workplace, call: Callable[..., Printed]) -> None:
    config = ["--set", "training.epochs=1", "--set", "training.images=1"]
    assert call(train_single_task.main, *flags(lab), *config).code == 0
    run, out = lab.runs / KIND, lab.dir / "out"
    assert len(list((run / "images" / "epoch-001").glob(f"{KIND}-*.jpg"))) == 1
    checkpoint = ["--checkpoint", f"ours={run / 'best.pt'}"]
    shown = call(visualize.main, *lab.roots(), "--task", KIND, "--sample", "0", "--out", str(out), *checkpoint)
    assert (shown.code, shown.err) == (0, "")
    (frame,) = (out / KIND).iterdir()
    assert {path.name for path in frame.iterdir()} == {"camera.png", "truth.png", "ours.png", "sheet.png"}


def test_its_settings_are_checked(lab: Workplace, call: Callable[..., Printed]) -> None:
    wrong = call(train_single_task.main, *flags(lab), "--set", f"tasks.{KIND}.settings.cels=3")
    assert wrong.code == 2
    assert f"tasks.{KIND}.settings.cels" in wrong.err
    with pytest.raises(ValidationError):
        BalanceTask.Settings.model_validate({"cells": "many"})


def test_it_is_offered_beside_the_four(lab: Workplace, call: Callable[..., Printed]) -> None:
    assert KIND in call(train_single_task.main, "--config", str(lab.config(CONFIG))).err


def test_its_broken_labels_are_named(lab: Workplace, call: Callable[..., Printed]) -> None:
    frame = lab.raw.frames("camera")[0]
    lab.processed.path(KIND, frame).write_text("{}")
    trained = call(train_single_task.main, *flags(lab))
    assert trained.code == 0
    assert str(frame) in trained.err


def test_the_toy_itself(lab: Workplace) -> None:
    """Its own rules hold: what is mirrored is negated."""
    picture = read_png(lab.raw.path("camera", lab.raw.frames("camera")[0]))
    assert balance_of(picture[:, ::-1]) == pytest.approx(-balance_of(picture))
    task = BalanceTask()
    target = task.hflip(task.collate([np.float64(2.0), None]), torch.tensor([True, True]))
    assert target["balance"][0] == -2.0
    assert target["valid"].tolist() == [True, False]
