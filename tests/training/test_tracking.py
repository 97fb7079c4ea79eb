"""metrics.jsonl is the source of truth; wandb holds the same numbers and may fail at any time."""

import json
import math
import socket
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

from datasets.layout import RunDir
from training import tracking
from training.tracking import Listing, Tracker, TrainingLog, start_wandb
from training.updates import LossScale, Schedule, StepReport, Updates

wandb = pytest.importorskip("wandb")  # the project runs without it


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path, "night")
    run.dir.mkdir()
    return run


def lines(run: RunDir) -> list[dict[str, Any]]:
    def no_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in run.metrics.read_text().splitlines()]


class Recorder:
    """Stands in for a wandb run."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], int]] = []
        self.summary: dict[str, Any] = {}
        self.finished = False

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((row, step))

    def finish(self) -> None:
        self.finished = True


# ---- metrics.jsonl --------------------------------------------------------------------------------------------


def test_each_log_is_one_line_and_one_wandb_step(run: RunDir) -> None:
    recorder = Recorder()
    tracker = Tracker(run, recorder)
    tracker.log({"train/depth/loss": 0.5}, 8)
    tracker.log({"epoch": 1, "val/depth/abs_rel": 0.25}, 16)
    tracker.summarise({"best/epoch": 1})
    tracker.finish()
    rows = [{"samples": 8, "train/depth/loss": 0.5}, {"samples": 16, "epoch": 1, "val/depth/abs_rel": 0.25}]
    assert lines(run) == rows
    assert recorder.rows == [(rows[0], 8), (rows[1], 16)]
    assert recorder.summary == {"best/epoch": 1}
    assert recorder.finished


def test_what_is_not_finite_is_null(run: RunDir) -> None:
    Tracker(run, None).log({"a": math.nan, "b": math.inf, "c": 1.0}, 8)
    assert lines(run) == [{"samples": 8, "a": None, "b": None, "c": 1.0}]


@pytest.mark.parametrize(
    "cut_off",
    [b"", b'{"samples": 24, "train/de', b'{"epoch": 1}', b"\n", b"\xff\xfe", b"[8]", b'{"samples": []}', b"8"],
)
def test_lines_after_the_checkpoint_are_forgotten(run: RunDir, cut_off: bytes) -> None:
    tracker = Tracker(run, None)
    for samples in (8, 16, 16, 24):
        tracker.log({"x": samples / 8}, samples)
    with open(run.metrics, "ab") as file:
        file.write(cut_off)
    tracker.forget_after(16)
    assert [row["samples"] for row in lines(run)] == [8, 16, 16]
    tracker.log({"x": 3.0}, 24)
    assert lines(run)[-1] == {"samples": 24, "x": 3.0}
    assert len(lines(run)) == 4


def test_forgetting_without_a_file_is_nothing(run: RunDir) -> None:
    Tracker(run, None).forget_after(0)
    assert not run.metrics.exists()


def test_an_unwritable_metrics_file_does_not_stop_the_run(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.metrics.mkdir()
    recorder = Recorder()
    Tracker(run, recorder).log({"x": 1.0}, 8)
    assert len(recorder.rows) == 1
    assert "metrics.jsonl" in capsys.readouterr().err


def test_losses_are_means_over_the_steps_between_two_lines(run: RunDir) -> None:
    log = TrainingLog(Tracker(run, None), every=2, weights=lambda: {"box": 0.5, "depth": 2.0})
    updates = Updates([], schedule=Schedule.over(100, 0.0), loss_scale=LossScale(enabled=False))
    updates.groups = {"depth": types.SimpleNamespace(learning_rate=0.1)}
    for step, (loss, count) in enumerate([(3.0, 4), (5.0, 4), (1.0, 1), (2.0, 2)], start=1):
        log.add_loss("depth", loss, count)
        updates.samples_seen, updates.steps = 4 * step, step
        log.steps([StepReport("depth", count, gradient_norm=step)], updates)
        log.steps([], updates)  # a border of a block where nothing steps
    rows = lines(run)
    assert [(row["samples"], row["train/depth/loss"]) for row in rows] == [(8, 1.0), (16, 1.0)]
    assert [row["train/loss"] for row in rows] == [2.0, 2.0]  # as weighed
    assert [row["gradient_norm/depth"] for row in rows] == [2, 4]
    assert rows[0]["learning_rate/depth"] == 0.1
    assert "speed/samples_per_second" in rows[1]
    assert ["weight/box" in row for row in rows] == [True, False]  # it has not changed
    assert not [row for row in rows if "fp16/loss_scale" in row]  # there is none but in fp16


def test_what_was_measured_stands_in_one_line(run: RunDir) -> None:
    """Not in those that follow."""
    log = TrainingLog(Tracker(run, None), every=1, weights=lambda: {"depth": 1.0})
    updates = Updates([], schedule=Schedule.over(100, 0.0), loss_scale=LossScale(enabled=False))
    updates.groups = {name: types.SimpleNamespace(learning_rate=0.1) for name in ("depth", "box")}
    for step, group in enumerate(["depth", "box"], start=1):
        log.add_loss("depth", 1.0, 1)
        if group == "depth":
            log.note({"similarity/depth/box": 0.5})
        updates.samples_seen = updates.steps = step
        log.steps([StepReport(group, 1, gradient_norm=step)], updates)
    found = [{key for key in row if "/" in key and not key.startswith(("speed/", "train/"))} for row in lines(run)]
    found[0] -= {"weight/depth"}
    first = {"gradient_norm/depth", "learning_rate/depth", "similarity/depth/box"}
    assert found == [first, {"gradient_norm/box", "learning_rate/box"}]


# ---- wandb that fails -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["log", "summary", "finish"])
def test_wandb_that_raises_never_stops_the_run(run: RunDir, moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Recorder):
        def log(self, row: dict[str, Any], step: int) -> None:
            if moment == "log":
                raise wandb.errors.CommError("no network")

        @property
        def summary(self) -> dict[str, Any]:
            raise OSError(28, "no space left")

        @summary.setter
        def summary(self, value: dict[str, Any]) -> None: ...

        def finish(self) -> None:
            raise RuntimeError("service is down")

    tracker = Tracker(run, Broken())
    for samples in (8, 16):
        tracker.log({"x": 1.0}, samples)
    if moment == "summary":
        tracker.summarise({"best": 1})
    tracker.finish()
    tracker.log({"x": 1.0}, 24)
    assert len(lines(run)) == 3
    assert capsys.readouterr().err.count("going on without it") == 1  # said once


def start(mode: str, run: RunDir) -> Any:
    listing = Listing("abcd1234", "night", "single_task", "train", ("single_task", "depth", "depth"))
    return start_wandb(mode, run, listing, {"seed": 3})


def test_wandbs_own_variables_replace_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing("abcd1234", "night", "single_task", "train", ("depth",))
    assert listing.with_environment() == listing
    given = {"PROJECT": "mine", "NAME": "a night", "RUN_GROUP": "nights", "JOB_TYPE": "try", "TAGS": "a, b"}
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert listing.with_environment() == Listing("abcd1234", "a night", "nights", "try", ["a", "b"], "mine")


def test_wandb_that_cannot_start_is_left_out(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_init(**settings: Any) -> None:
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", no_init)
    assert start("offline", run) is None
    assert "wandb can't start" in capsys.readouterr().err


@pytest.mark.usefixtures("_offline_machine")
def test_a_server_that_does_not_answer_is_waited_for_for_seconds_only(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking, "PATIENCE", 2)
        wandb_run = start("online", run)
    assert wandb_run.offline
    Tracker(run, wandb_run).finish()
    wandb.teardown()  # its helper process knows the silent server
    assert "warning: wandb can't be reached within 2 s, going on offline: " in capsys.readouterr().err
    assert list(run.wandb.glob("offline-run-*-abcd1234"))


def test_disabled_means_that_wandb_is_not_touched(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **settings: pytest.fail("wandb.init was called"))
    assert start("disabled", run) is None


@pytest.mark.usefixtures("_offline_machine")
@pytest.mark.parametrize(
    ("mode", "logged_in", "environment", "expected"),
    [
        ("auto", False, "", ("offline", None)),
        ("auto", True, "", ("online", "allow")),  # `allow`: a resumed run continues the same wandb run
        ("auto", True, "offline", ("offline", None)),
        ("offline", True, "", ("offline", None)),
        ("online", False, "", ("online", "allow")),
    ],
)
def test_offline_unless_logged_in_or_asked_for(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    logged_in: bool,
    environment: str,
    expected: tuple[str, str | None],
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **settings: settings)
    if logged_in:  # asking the real wandb with a key would log in this process for good
        monkeypatch.setattr(wandb, "login", lambda prompt, verify: not prompt and not verify)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    settings = start(mode, run)
    assert settings is not None
    assert (settings["mode"], settings["resume"]) == expected
    assert (settings["id"], settings["name"], settings["group"]) == ("abcd1234", "night", "single_task")
    assert settings["dir"] == run.dir


# ---- an offline run, read back by wandb -----------------------------------------------------------------------


def records(run: RunDir) -> list[dict[str, Any]]:
    """Every record of the run's .wandb file, by `wandb leet inspect` (part of the package)."""
    from wandb.util import get_core_path

    (file,) = run.wandb.glob("offline-run-*/run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "-no-observability", "-json", "-run-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("_offline_machine")
def test_an_offline_run_holds_the_same_numbers(run: RunDir) -> None:
    tracker = Tracker(run, start("auto", run))
    assert tracker.wandb_run is not None
    tracker.log({"train/depth/loss": 0.1 + 0.2, "learning_rate/depth": 1e-7}, 8)
    tracker.log({"train/depth/loss": 1 / 3}, 16)
    tracker.log({"epoch": 1, "val/depth/abs_rel": 0.25, "val/depth/rmse": math.nan}, 16)  # of the same moment
    tracker.summarise({"best/depth/abs_rel": 0.25, "best/epoch": 1})
    tracker.finish()

    found = records(run)
    rows = {row["history"]["step"]["num"]: row["history"]["item"] for row in found if row["type"] == "history"}
    merged: dict[int, dict[str, Any]] = {}
    for line in lines(run):
        merged.setdefault(line["samples"], {}).update(line)
    assert set(rows) == set(merged) == {8, 16}
    for step, row in merged.items():
        own = {key: value for key, value in rows[step].items() if not key.startswith("_")}
        assert own == {key: "NaN" if value is None else value for key, value in row.items()}

    summary: dict[str, Any] = {}
    for record in found:
        summary |= record.get("summary", {}).get("update", {})
    assert (summary["best/depth/abs_rel"], summary["best/epoch"]) == (0.25, 1)
    (about,) = (record["run"] for record in found if record["type"] == "run")
    assert about["run_id"] == "abcd1234"
    assert about["display_name"] == "night"
    assert about["run_group"] == "single_task"
    assert about["tags"] == ["single_task", "depth"]
    assert about["config"]["update"]["seed"] == 3
