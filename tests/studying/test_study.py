"""study.py on made-up squares: whole, disturbed, and with a run that fails. Trainings run in this process, in turn."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import study
import train_asymmetric
import train_symmetric
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from studying import carry_out
from studying.work import Children
from tests.small_roots import write_root
from tests.studying.made_up import STUDY, write_study
from training.loop import Trainer

SCRIPTS = {"train_symmetric.py": train_symmetric.main, "train_asymmetric.py": train_asymmetric.main}
ONE_SEED = STUDY.replace("seeds: [1, 2]", "seeds: [1]")


class InTurn:
    """Stands for the pool of threads: signals reach the main thread alone."""

    def __init__(self, jobs: int):
        pass

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, call: Callable[..., None], *arguments: Any) -> "InTurn":
        call(*arguments)
        return self

    def result(self) -> None:
        pass

    def shutdown(self, cancel_futures: bool) -> None:
        pass


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> ProcessedData:
    return write_root(tmp_path_factory.mktemp("rooms"), "rooms", ("segmentation", "depth"), frames=40)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Of the trainings that were started; a training is a call."""
    started: list[list[str]] = []

    def train(self: Children, command: list[str], log: Path, environment: dict[str, str], lock: int) -> int:
        started.append(command)
        with monkeypatch.context() as patch, open(log, "a") as file, redirect_stdout(file), redirect_stderr(file):
            patch.setattr(sys, "argv", command[1:])
            patch.setattr("errors._end_at_once", lambda error, status: None)
            with pytest.raises(SystemExit) as ended:
                run_as_script(SCRIPTS[Path(command[1]).name])
            return ended.value.code

    monkeypatch.setattr(Children, "run", train)
    monkeypatch.setattr(carry_out, "ThreadPoolExecutor", InTurn)
    return started


def start(monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, folder: Path, text: str = ONE_SEED) -> int:
    """study.py in a folder of its own -> exit status."""
    folder.mkdir(exist_ok=True)
    roots = ["--processed-root", str(rooms.root), "--runs-root", str(folder / "runs"), "--out", str(folder / "studies")]
    monkeypatch.setattr(sys, "argv", ["study.py", str(write_study(folder, text)), *roots, "--device", "cpu"])
    return study.main()


def results_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "studies" / "tiny" / "results.json").read_text())


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    for run in [*results["tuning"], *results["runs"]]:
        del run["made"], run["seconds"]
    return results


def test_a_killed_and_restarted_study_equals_an_undisturbed_one(
    monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, commands: list[list[str]], tmp_path: Path
) -> None:
    assert start(monkeypatch, rooms, tmp_path / "whole") == 0
    whole = results_in(tmp_path / "whole")
    assert (len(whole["tuning"]), len(whole["runs"]), whole["failed"]) == (3, 3, [])
    assert len(commands) == 6
    assert set(whole["constant"]) == {"segmentation", "depth"}
    report = tmp_path / "whole" / "studies" / "tiny" / "RESULTS.md"
    assert "3 of 3 final runs" in report.read_text()

    accumulate, calls = Trainer._accumulate, []

    def disturbed(self: Trainer, batch: object) -> object:  # the fourth training, the first final one
        calls.append(batch)
        if len(commands) == 10 and not os.environ.get("DISTURBED"):
            monkeypatch.setenv("DISTURBED", "yes")
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(self, batch)

    monkeypatch.setattr(Trainer, "_accumulate", disturbed)
    with pytest.raises(KeyboardInterrupt):
        start(monkeypatch, rooms, tmp_path / "disturbed")
    assert len(commands) == 10
    assert len(results_in(tmp_path / "disturbed")["tuning"]) == 3
    assert start(monkeypatch, rooms, tmp_path / "disturbed") == 0
    assert len(commands) == 13  # the three finished ones were not repeated
    assert without_times(results_in(tmp_path / "disturbed")) == without_times(whole)
    assert start(monkeypatch, rooms, tmp_path / "disturbed") == 0
    assert len(commands) == 13

    # frame by frame: the parts of each frame sum to the whole
    (path,) = (tmp_path / "whole" / "studies" / "tiny" / "frames").glob("final-segmentation*.npz")
    with np.load(path, allow_pickle=False) as frames:
        confusion = frames["segmentation/confusion"].sum(0)
        assert len(frames["segmentation/frames"]) == len(frames["segmentation/confusion"])
    (run,) = (run for run in whole["runs"] if run["row"] == "segmentation alone")
    assert confusion.trace() / confusion.sum() == pytest.approx(run["test"]["segmentation"]["accuracy"])


def test_a_failed_run_is_named_and_does_not_spoil_the_rest(
    monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, commands: list[list[str]], tmp_path: Path, capsys: Any
) -> None:
    train = Children.run

    def failing(self: Children, command: list[str], log: Path, environment: dict[str, str], lock: int) -> int:
        if command[command.index("--name") + 1].startswith("final-depth-alone"):
            log.write_text("a traceback\nRuntimeError: out of memory\n")
            return 1
        return train(self, command, log, environment, lock)

    monkeypatch.setattr(Children, "run", failing)
    assert start(monkeypatch, rooms, tmp_path) == 1
    results = results_in(tmp_path)
    assert [run["row"] for run in results["runs"]] == ["together", "segmentation alone"]
    (failure,) = results["failed"]
    assert (failure["row"], failure["seed"]) == ("depth alone", 1)
    assert "RuntimeError: out of memory" in failure["reason"]
    assert "RuntimeError: out of memory" in capsys.readouterr().out
    monkeypatch.setattr(Children, "run", train)
    assert start(monkeypatch, rooms, tmp_path) == 0
    assert (len(results_in(tmp_path)["runs"]), results_in(tmp_path)["failed"]) == (3, [])


def test_other_data_sets_are_refused(monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tiny is about streets"):
        start(monkeypatch, rooms, tmp_path, STUDY.replace("roots: [rooms]", "roots: [streets]"))


def test_job_arrays(monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, tmp_path: Path) -> None:
    """A pretend sbatch notes what it is asked for."""
    log, sbatch = tmp_path / "asked", tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\necho "$*" >>{log}\necho "$((100 + $(wc -l <{log})));cluster"\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    roots = ["--processed-root", str(rooms.root), "--out", str(tmp_path / "studies"), "--runs-root", str(tmp_path)]
    monkeypatch.setenv("GPU_PARTITION", "a100")
    monkeypatch.setattr(sys, "argv", ["study.py", str(write_study(tmp_path)), *roots, "--submit", "slurm"])
    assert study.main() == 0
    tuning, final = log.read_text().splitlines()
    assert "--array=1-3 slurm/study.sbatch tuning 3 " in tuning
    assert "--array=1-6 --dependency=afterany:101 slurm/study.sbatch final 6 " in final
    assert f"--processed-root {rooms.root}" in final
    assert final.startswith(f"--output={tmp_path}/logs/%x-%A_%a.log --partition=a100 ")


def test_job_arrays_that_are_refused(monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, tmp_path: Path) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    roots = ["--processed-root", str(rooms.root), "--out", str(tmp_path / "studies"), "--runs-root", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["study.py", str(write_study(tmp_path)), *roots, "--submit", "slurm"])
    with pytest.raises(UserError, match=r"^--submit slurm: refused: sbatch: error: invalid account$"):
        study.main()


def test_dry_run(monkeypatch: pytest.MonkeyPatch, rooms: ProcessedData, tmp_path: Path, capsys: Any) -> None:
    """Runs and samples, counted from the labels; nothing is started."""
    monkeypatch.setattr(subprocess, "Popen", None)
    roots = ["--processed-root", str(rooms.root), "--out", str(tmp_path / "out"), "--runs-root", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["study.py", str(write_study(tmp_path)), *roots, "--dry-run", "--device", "cpu"])
    assert study.main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (together,) = (line for line in lines if line[:1] == ["together"])
    assert together[1] == "3"  # one tuning run, two final ones
    # 40 frames in two scenes, 24 of them to train, less the gaps between splits; final runs train on val as well
    assert 40 < int(together[2]) < 3 * 32
    assert not (tmp_path / "out").exists()
