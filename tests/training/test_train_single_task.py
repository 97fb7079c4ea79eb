"""train_single_task.py as a user meets it; evaluate.py on what it leaves."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import evaluate
import train_single_task
from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import UserError
from tasks import TASKS
from tests.conftest import ROOT
from tests.training.conftest import CONFIG, Printed, Workplace, after_camera_warning
from training import checkpoint
from training.compatibility import FREE
from training.config import load_config
from training.loop import Trainer
from training.runs import SingleTaskRun
from training.step import Sums

MODES = ("segmentation", "steering", "box", "depth")
Call = Callable[..., Printed]


def train(call: Call, place: Workplace, mode: str, *more: str) -> Printed:
    return call(train_single_task.main, *place.flags(mode, *more))


def assert_refused(printed: Printed, *words: str) -> None:
    """Exit code 2 and one line without a traceback."""
    assert printed.code == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err


def interrupt_at(monkeypatch: pytest.MonkeyPatch, micro_batch: int, by: signal.Signals = signal.SIGTERM) -> None:
    """The process gets the signal while the n-th micro-batch is in hand."""
    accumulate, calls = Trainer._accumulate, []

    def disturbed(self: Trainer, batch: object) -> Sums:
        calls.append(batch)
        if len(calls) == micro_batch:
            os.kill(os.getpid(), by)
        return accumulate(self, batch)

    monkeypatch.setattr(Trainer, "_accumulate", disturbed)


# ---- training and evaluating ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_trains_and_is_evaluated(workplace: Workplace, call: Call, mode: str) -> None:
    trained = train(call, workplace, mode)
    assert (trained.code, trained.err) == (0, "")
    assert "split: 10 train, 4 val, 2 test, 8 unused" in trained.out
    assert f"training samples: 10, of 10 frames; with a label of {mode} 10;" in trained.out
    run = workplace.runs / mode
    files = {"config.yaml", "split.json", "best.pt", "last.pt", "metrics.jsonl", "images"}
    assert {path.name for path in run.iterdir()} == files

    content = checkpoint.load(run / "best.pt")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    asked = load_config(SingleTaskRun, workplace.dir / "config.yaml", []).model_dump(mode="json")
    assert saved == content["config"] == asked
    assert content["split"] == json.loads((run / "split.json").read_text())
    assert len(content["split"]["val"]) == 4
    labels = content["datasets"]["a2d2"]["labels"]
    assert (len(labels["segmentation"]["classes"]), len(labels["box"]["classes"])) == (38, 14)

    report = workplace.dir / "report.json"
    arguments = (str(run / "best.pt"), *workplace.roots(), "--workers", "0", "--json", str(report))
    evaluated = call(evaluate.main, *arguments)
    assert (evaluated.code, evaluated.err) == (0, "")
    numbers = json.loads(report.read_text(), parse_constant=pytest.fail)
    best = content["best"]["results"][mode]
    assert set(numbers[mode][mode]) == set(best)
    for name, value in numbers[mode][mode].items():
        assert value == pytest.approx(best[name], rel=1e-5) or (value is None and best[name] != best[name])
        assert TASKS[mode].written(name).title in evaluated.out
        assert name.partition("/")[2] in evaluated.out  # a class
    assert set(numbers["constant"]) == {mode}


def test_the_same_command_gives_the_same_weights(workplace: Workplace, call: Call) -> None:
    for name in ("a", "b"):
        assert train(call, workplace, "steering", "--name", name).code == 0
    a, b = (checkpoint.load(workplace.runs / name / "last.pt")["model"] for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert train(call, workplace, "steering", "--name", "c", "--set", "seed=1").code == 0
    c = checkpoint.load(workplace.runs / "c" / "last.pt")["model"]
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_overfit_validates_on_the_training_frames(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering", "--set", "data.split={mode: overfit}").code == 0
    split = json.loads((workplace.runs / "steering" / "split.json").read_text())
    assert split["train"] == split["val"]
    assert len(split["train"]) == 24


def test_without_validation_the_last_weights_are_the_result(workplace: Workplace, call: Call) -> None:
    """Final runs of a study: the validation frames train too, nothing draws a best.pt."""
    flags = ("--set", "data.split.train_on_val=true", "--resume", "auto")
    trained = train(call, workplace, "depth", *flags)
    assert (trained.code, trained.err) == (0, "")
    run = workplace.runs / "depth"
    assert {path.name for path in run.iterdir()} == {"config.yaml", "split.json", "last.pt", "metrics.jsonl"}
    with_val = json.loads((run / "split.json").read_text())
    assert with_val["val"] == []
    assert train(call, workplace, "depth", "--name", "chosen").code == 0
    split = json.loads((workplace.runs / "chosen" / "split.json").read_text())
    assert with_val["train"] == sorted(split["train"] + split["val"])
    assert with_val["test"] == split["test"]
    again = train(call, workplace, "depth", *flags)
    assert (again.code, f"done; {run / 'last.pt'}" in again.out) == (0, True)
    arguments = (str(run / "last.pt"), *workplace.roots(), "--workers", "0", "--split", "test")
    assert call(evaluate.main, *arguments).code == 0


# ---- wrong usage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--train-mode", "lanes"]])
def test_without_a_mode_nothing_is_trained(workplace: Workplace, call: Call, arguments: list[str]) -> None:
    flags = workplace.flags("depth")
    del flags[flags.index("--train-mode") : flags.index("--train-mode") + 2]
    printed = call(train_single_task.main, *flags, *arguments)
    assert printed.code == 2
    assert all(mode in printed.err for mode in MODES)
    assert "Traceback" not in printed.err
    assert not workplace.runs.exists()


@pytest.mark.parametrize("kind", ["segmentation", "steering"])
def test_labels_that_were_not_made(own_workplace: Workplace, call: Call, kind: str) -> None:
    shutil.rmtree(own_workplace.processed.kind_dir(kind))
    assert_refused(train(call, own_workplace, kind), f"no {kind} labels", "preprocessing script")
    assert not own_workplace.runs.exists()


def test_no_data_at_all(workplace: Workplace, call: Call) -> None:
    empty = Workplace(RawData(workplace.dir / "nowhere"), ProcessedData(workplace.dir / "nothing"), workplace.dir)
    assert_refused(train(call, empty, "depth"), "nowhere", "nothing", "get_data.sh")
    assert not workplace.runs.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "training.epoch=3"], ["config.yaml", "training.epoch:"]),
        (["--config", "no.yaml"], ["no.yaml"]),
        (["--device", "toaster"], ["--device toaster"]),
        (["--device", "meta"], ["--device meta is not available: networks run on cpu and cuda"]),
        (["--resume", "no.pt"], ["no.pt does not exist"]),
        (["--set", "data.split={mode: scenes}"], ["0 train"]),
    ],
)
def test_mistakes_are_one_line(workplace: Workplace, call: Call, flags: list[str], words: list[str]) -> None:
    assert_refused(train(call, workplace, "segmentation", *flags), *words)
    assert not workplace.runs.exists()


def test_a_size_that_the_labels_do_not_have(workplace: Workplace, call: Call) -> None:
    printed = train(call, workplace, "segmentation", "--set", "data.size=[32, 32]")
    assert_refused(after_camera_warning(printed), "[32, 32]", "[64, 64]", "segmentation/settings.json")
    assert not workplace.runs.exists()


def test_a_size_that_the_network_cannot_take(own_workplace: Workplace, call: Call) -> None:
    settings = own_workplace.processed.settings_path("segmentation")
    settings.write_text(settings.read_text().replace("64", "40"))
    for path in settings.parent.rglob("*.npy"):
        np.save(path, np.zeros((40, 40), np.uint8))
    printed = train(call, own_workplace, "segmentation", "--set", "data.size=[40, 40]")
    assert_refused(after_camera_warning(printed), "config.yaml", "data.size", "40", "16")
    assert not own_workplace.runs.exists()


def test_dry_run_writes_nothing(workplace: Workplace, call: Call) -> None:
    before = sorted(workplace.dir.rglob("*"))
    printed = train(call, workplace, "depth", "--dry-run")
    assert (printed.code, printed.err) == (0, "")
    assert "training samples: 10, of 10 frames; with a label of depth 10;" in printed.out
    assert "validation samples: 4" in printed.out
    gaps = "of 24 frames 8 are not used, 33 % (gaps between splits: data.split.gap_seconds and gap_frames)"
    assert gaps in printed.out
    assert "the last step of the first epoch has fewer samples than a batch: depth 2 of 4" in printed.out
    assert "parameters: 0.20 M" in printed.out
    assert set(workplace.dir.rglob("*")) - set(before) == {workplace.dir / "config.yaml"}  # the test's own


# ---- existing runs --------------------------------------------------------------------------------------------


def test_an_existing_run_is_refused(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering").code == 0
    run = workplace.runs / "steering"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert_refused(train(call, workplace, "steering"), str(run), "--resume auto")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert train(call, workplace, "steering", "--name", "second").code == 0


def test_resume_auto_starts_fresh_and_goes_on(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command line every time, as a batch script that requeues itself has it."""
    flags = ("--resume", "auto", "--set", "training.epochs=2")
    assert train(call, workplace, "steering", "--name", "whole", *flags).code == 0

    interrupt_at(monkeypatch, 2)
    run = workplace.runs / "steering"
    printed = train(call, workplace, "steering", *flags)
    assert printed.code == 0
    assert "--resume auto" in printed.out
    assert (run / "INTERRUPTED").exists()
    monkeypatch.undo()
    # undo has taken sys.argv back too; `call` sets it anew
    printed = train(call, workplace, "steering", *flags)
    assert printed.code == 0
    assert "goes on after" in printed.out
    assert not (run / "INTERRUPTED").exists()
    whole, parts = (checkpoint.load(workplace.runs / name / "last.pt")["model"] for name in ("whole", "steering"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    samples = [json.loads(line)["samples"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert samples == sorted(samples)
    assert [
        json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines() if "epoch" in line
    ] == [
        1,
        2,
    ]


def test_a_finished_run_is_extended(workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--resume", "auto", "--set", "training.epochs=2")
    longer = ("--resume", "auto", "--extend", "4")
    for name in ("steering", "whole"):
        assert train(call, workplace, "steering", "--name", name, *flags).code == 0
    assert train(call, workplace, "steering", "--name", "whole", *longer).code == 0

    interrupt_at(monkeypatch, 2)
    assert "interrupted; saved" in train(call, workplace, "steering", *longer).out
    monkeypatch.undo()
    assert train(call, workplace, "steering", *longer).code == 0  # the same command again: not extended once more
    whole, parts = (checkpoint.load(workplace.runs / name / "last.pt") for name in ("whole", "steering"))
    assert all(torch.equal(whole["model"][key], parts["model"][key]) for key in whole["model"])
    assert whole["position"]["epoch"] == whole["config"]["training"]["epochs"] == 4
    assert train(call, workplace, "steering", "--resume", "auto", "--set", "training.epochs=4").code == 0
    rows = [json.loads(line) for line in (workplace.runs / "whole" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate/steering"] for row in rows if "learning_rate/steering" in row]
    falls = [after < before for before, after in itertools.pairwise(rates)]
    assert falls.count(False) <= 2  # while it warms up, and where it starts again
    assert max(rates[len(rates) // 2 :]) > 0.8 * max(rates)


def test_what_extend_refuses(workplace: Workplace, call: Call) -> None:
    printed = train(call, workplace, "steering", "--extend", "4")
    assert (printed.code, "--extend needs --resume" in printed.err) == (2, True)
    assert train(call, workplace, "steering", "--set", "training.epochs=2").code == 0
    assert_refused(train(call, workplace, "steering", "--resume", "auto", "--extend", "1"), "--extend 1", "2 epochs")
    longer = train(call, workplace, "steering", "--resume", "auto", "--set", "training.epochs=3")
    assert_refused(longer, "training.epochs is 3", "--extend 3")


def test_what_was_set_at_the_start_need_not_be_repeated(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor --config: the run has its own."""
    flags = workplace.flags("steering", "--resume", "auto")
    place = flags.index("--config")
    bare = flags[:place] + flags[place + 2 :]
    settings = ("--set", "training.epochs=3", "tasks.steering.learning_rate=0.01")
    interrupt_at(monkeypatch, 2)
    assert call(train_single_task.main, *flags, *settings).code == 0
    monkeypatch.undo()
    printed = call(train_single_task.main, *bare, "--set", "training.log_every=5", "training.epochs=3")
    assert (printed.code, printed.err) == (0, "")
    run = workplace.runs / "steering"
    content = checkpoint.load(run / "last.pt")
    assert (content["position"]["epoch"], content["config"]["training"]["log_every"]) == (3, 5)
    assert content["config"]["tasks"]["steering"]["learning_rate"] == 0.01
    assert call(train_single_task.main, *bare, "--resume", str(run / "best.pt")).code == 0
    changed = call(train_single_task.main, *bare, "--set", "training.warmup=0.5")
    assert_refused(changed, "training.warmup is 0.5", "its own config.yaml")
    assert_refused(call(train_single_task.main, *flags), "learning_rate is 0.001", "without --config")


def test_another_precision_is_warned_of(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering").code == 0
    printed = train(call, workplace, "steering", "--resume", "auto", "--set", "training.precision=bf16")
    assert printed.code == 0
    assert printed.err == (
        "warning: training.precision is bf16, was auto: weights differ by rounding from those of one precision\n"
    )


def test_the_reference_names_each_key_that_may_change() -> None:
    reference = (ROOT / "docs/configuration.md").read_text()
    section = reference[reference.index("## What may change") :]
    named = re.findall(r"`(\w+\.\w+)`", section[: section.index("##", 3)])
    assert {*named} - {"config.yaml"} == {*FREE}


def test_what_decides_no_weight_may_change(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering").code == 0
    changed = ("training.images=2", "training.log_every=7", "training.keep_images=3", "data.workers=1")
    assert train(call, workplace, "steering", "--resume", "auto", "--set", *changed).code == 0


def test_resume_auto_after_a_death_before_the_first_checkpoint(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Trainer) -> None:
        raise UserError("the node is gone")

    monkeypatch.setattr(Trainer, "train", die)
    assert_refused(train(call, workplace, "steering", "--resume", "auto"), "the node is gone")
    run = workplace.runs / "steering"
    assert (run / "config.yaml").exists()
    (run / "metrics.jsonl").write_text('{"samples": 4, "train/steering/loss": 9.0}\n')
    monkeypatch.undo()
    assert train(call, workplace, "steering", "--resume", "auto").code == 0
    assert 'loss": 9.0' not in (run / "metrics.jsonl").read_text()


def test_a_changed_config_is_refused_by_name(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering").code == 0
    change = "tasks.steering.learning_rate=0.5"
    printed = train(call, workplace, "steering", "--resume", "auto", "--set", change)
    assert_refused(printed, "tasks.steering.learning_rate is 0.5, the checkpoint has 0.001")
    longer = train(call, workplace, "steering", "--resume", "auto", "--set", "training.epochs=2")
    assert_refused(longer, "training.epochs is 2")
    workers = train(call, workplace, "steering", "--resume", "auto", "--set", "data.workers=1")
    assert workers.code == 0  # decides nothing
    other_task = train(call, workplace, "steering", "--resume", "auto", "--set", "tasks.depth.learning_rate=0.5")
    assert other_task.code == 0  # nor does it


def test_another_mode_or_calibration_is_refused(own_workplace: Workplace, call: Call) -> None:
    assert train(call, own_workplace, "steering", "--name", "x").code == 0
    printed = train(call, own_workplace, "box", "--name", "x", "--resume", "auto")
    assert_refused(printed, "single_task steering training, not single_task box")
    path = own_workplace.raw.calibration_path
    path.write_text(path.read_text().replace("-0.26", "-0.2"))
    printed = train(call, own_workplace, "steering", "--name", "x", "--resume", "auto")
    assert_refused(after_camera_warning(printed), "another calibration")


def test_resume_from_a_broken_checkpoint(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "steering").code == 0
    last = workplace.runs / "steering" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    assert_refused(train(call, workplace, "steering", "--resume", "auto"), str(last), "not a checkpoint")


@pytest.mark.parametrize("damage", ["it is gone", "its target is gone"])
def test_a_run_that_lost_last_pt_is_not_started_anew(workplace: Workplace, call: Call, damage: str) -> None:
    assert train(call, workplace, "steering").code == 0
    run = workplace.runs / "steering"
    before = {name: (run / name).read_bytes() for name in ("best.pt", "metrics.jsonl", "config.yaml")}
    (run / "last.pt").unlink()
    if damage == "its target is gone":
        (run / "last.pt").symlink_to("elsewhere.pt")
    for flags in (["--resume", "auto"], ["--resume", "auto", "--dry-run"]):
        refused = train(call, workplace, "steering", *flags)
        assert_refused(refused, f"{run / 'last.pt'} is gone", f"--resume {run / 'best.pt'}", "another --name")
    assert before == {name: (run / name).read_bytes() for name in before}
    (run / "best.pt").unlink()
    (run / "last.pt").unlink(missing_ok=True)
    assert train(call, workplace, "steering", "--resume", "auto").code == 0  # as one killed in its first epoch


def test_a_kill_while_best_pt_is_written_leaves_a_run_that_goes_on(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pt is there before the epoch's last.pt: that of the moment before the validation is there already."""
    save = checkpoint.save

    def killed_after_best(path: Path, content: dict[str, Any]) -> None:
        save(path, content)
        if path.name == "best.pt":
            raise UserError("killed")

    monkeypatch.setattr(checkpoint, "save", killed_after_best)
    assert_refused(train(call, workplace, "steering"), "killed")
    monkeypatch.setattr(checkpoint, "save", save)
    assert train(call, workplace, "steering", "--resume", "auto").code == 0
    found = checkpoint.load(workplace.runs / "steering" / "last.pt")
    assert (found["position"]["epoch"], found["best"]["epoch"]) == (1, 1)


# ---- signals, in a process of its own -------------------------------------------------------------------------


def test_a_signal_to_the_whole_job_ends_it_cleanly(workplace: Workplace) -> None:
    """A scheduler signals all processes of a job, loader workers included."""
    epochs = ("--set", "training.epochs=100000", "--set", "data.workers=1")
    command = [sys.executable, "train_single_task.py", *workplace.flags("steering", *epochs)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run = workplace.runs / "steering"
    try:
        while not (run / "best.pt").exists() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(f"interrupted; saved {run / 'last.pt'}; go on with --resume auto\n")
    assert (run / "INTERRUPTED").exists()
    assert checkpoint.load(run / "last.pt")["updates"]["samples_seen"] > 0


def test_a_mistake_on_the_command_line_has_no_traceback(workplace: Workplace, tmp_path: Path) -> None:
    command = [sys.executable, "train_single_task.py", *workplace.flags("steering", "--set", "seed=-1")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'config.yaml'} with --set: seed: ")
    assert done.stderr.count("\n") == 1


def test_the_tiny_config_has_the_four() -> None:
    assert set(yaml.safe_load(CONFIG)["tasks"]) == set(MODES)


# ---- before any work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["best.pt", "last.pt", "metrics.jsonl", "config.yaml", "split.json"])
def test_a_folder_in_the_place_of_a_file_is_noticed_at_the_start(workplace: Workplace, call: Call, name: str) -> None:
    folder = workplace.runs / "steering" / name
    folder.mkdir(parents=True)
    printed = train(call, workplace, "steering", "--resume", "auto")
    assert_refused(printed, f"{folder} is a folder, pipe or device, where the run has a file")
    assert not printed.out


def test_a_runs_root_that_is_a_file(workplace: Workplace, call: Call) -> None:
    workplace.runs.write_text("")
    printed = train(call, workplace, "steering")
    assert_refused(printed, f"{workplace.runs} is not a folder that you may write to")


def test_damaged_fits_are_made_again(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "depth").code == 0
    kept = sorted((workplace.runs / ".fits").iterdir())
    before = [path.read_bytes() for path in kept]
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    printed = train(call, workplace, "depth", "--name", "again")
    assert (printed.code, printed.err.count("can't be read")) == (0, len(kept))
    assert [path.read_bytes() for path in kept] == before
    assert train(call, workplace, "depth", "--name", "third").err == ""


def test_a_long_run_grows_in_nothing(workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles, threads and memory after each validation."""
    counts: list[tuple[int, int, int]] = []
    validate = Trainer._validate

    def counted(self: Trainer, stop: object) -> object:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        counts.append((len(os.listdir("/proc/self/fd")), threading.active_count(), resident))
        return validate(self, stop)

    monkeypatch.setattr(Trainer, "_validate", counted)
    assert train(call, workplace, "steering", "--set", "training.epochs=50").code == 0
    assert len(counts) == 50
    handles, threads, memory = zip(*counts[9:], strict=True)
    assert (max(handles), max(threads)) == (handles[0], threads[0])
    assert memory[-1] - memory[0] < 2**24
    sizes = {path.name: path.stat().st_size for path in (workplace.runs / "steering").rglob("*") if path.is_file()}
    assert len([name for name in sizes if name.endswith(".jpg")]) <= 2  # of the best validation, and of the last
    assert sizes["metrics.jsonl"] < 50 * 8 * 1024
