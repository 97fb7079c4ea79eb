"""Carry out one run: train by an ordinary training script, evaluate last.pt on the test split, write result.json."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from datasets.a2d2.raw import RawData
from datasets.files import locked, read_json, write_json
from datasets.layout import RunDir
from datasets.processed import ProcessedData
from errors import reason_of
from studying.frames import RecordedTask, save_frames
from studying.grid import ROOT, Run
from studying.provenance import describe_run
from tasks.base import Task
from training import checkpoint
from training.evaluation import Precision
from training.restore import Restored
from training.tables import finite_or_none

POINTS = 60  # of a learning curve, at most


class RunFailed(Exception):
    """One line: why, and where to look."""


@dataclass(frozen=True)
class Place:
    """Where a study's runs find their data and leave their files, and what they may use."""

    runs_root: Path
    processed: tuple[Path, ...]
    data_root: Path
    frames: Path  # folder of the frame by frame results
    device: str
    threads: int  # of a run
    wandb: tuple[str, ...]  # flags of the training scripts

    def run_dir(self, run: Run) -> RunDir:
        return RunDir(self.runs_root, run.name)

    def result_file(self, run: Run) -> Path:
        return self.run_dir(run).dir / "result.json"


class Children:
    """The training processes that are at work, to be stopped with the study."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.stopping = False

    def run(self, command: list[str], log: Path, environment: dict[str, str], lock: int) -> int:
        """Run to its end -> exit status. The child holds the lock as well, should this process be killed."""
        with open(log, "ab") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, env=environment, pass_fds=[lock], cwd=ROOT)
        self.running.add(child)
        try:
            return child.wait()
        finally:
            self.running.discard(child)

    def stop(self) -> None:
        """They save and end; no further one is evaluated."""
        self.stopping = True
        for child in list(self.running):
            child.terminate()


def carry_out(run: Run, place: Place, children: Children) -> dict[str, Any]:
    """The run's result, from its file where it is finished. RunFailed: what went wrong, one line."""
    finished, folder = place.result_file(run), place.run_dir(run)
    # another study may hold it, or an orphaned training of a killed one
    with locked(folder.dir.parent / ".locks" / run.name) as lock:
        if finished.is_file():
            return read_json(finished)
        folder.dir.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        train(run, place, children, lock)
        trained = time.monotonic()
        try:
            result = judged(run, place)
        except Exception as error:  # whatever it is, the other runs go on
            raise RunFailed(f"the {run.title} can't be evaluated: {reason_of(error)}") from error
        seconds = {"train": round(trained - started, 1), "evaluate": round(time.monotonic() - trained, 1)}
        result |= {"seconds": seconds, "made": describe_run(place.device, place.threads)}
        write_json(finished, result, indent=1)
        return result


def command_of(run: Run, place: Place) -> list[str]:
    """The ordinary command line of the run."""
    command = [sys.executable, str(ROOT / f"train_{run.script}.py"), "--train-mode", run.mode, "--name", run.name]
    command += ["--config", str(run.config_file), "--runs-root", str(place.runs_root), "--resume", "auto"]
    command += [flag for root in place.processed for flag in ("--processed-root", str(root))]
    command += ["--data-root", str(place.data_root), "--device", place.device, *place.wandb, *run.flags]
    return command + [flag for override in run.overrides for flag in ("--set", override)]


def train(run: Run, place: Place, children: Children, lock: int) -> None:
    folder = place.run_dir(run)
    log = folder.dir / "log.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(place.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    status = children.run(command_of(run, place), log, environment, lock)
    # 130: Ctrl-C reaches every process of a terminal
    if children.stopping or status == 130 or (status == 0 and folder.interrupted.exists()):
        raise KeyboardInterrupt
    if status:
        raise RunFailed(f"the {run.title} failed: {last_line(log)} ({log})")


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"


# ---- what a run gave ------------------------------------------------------------------------------------------


def judged(run: Run, place: Place) -> dict[str, Any]:
    """What a finished training gave: a tuning run on validation, a final one on test."""
    folder = place.run_dir(run)
    content = checkpoint.load(folder.last)
    result = {
        "row": run.row,
        "seed": run.seed,
        "purpose": run.purpose,
        "choice": run.choice,
        "key": run.key,
        "labels": content["samples"],
        "labels_seen": {name: content["updates"]["seen"][name] for name in content["samples"]},
        "images_seen": content["updates"]["samples_seen"],
    }
    if run.purpose == "tuning":
        return result | {"score": content["best"]["score"], "val": finite_or_none(content["best"]["results"])}
    network = restored(folder.last, place)
    result |= {"parameters": network.parameters(), "gflop": network.gflop()}
    frames = place.frames / f"{run.name}.npz"
    result |= {"test": finite_or_none(evaluated(network, place.device, frames))}
    return result | curves(folder.metrics, list(content["samples"]))


def restored(path: Path, place: Place) -> Restored:
    return Restored.load(path, RawData(place.data_root), [ProcessedData(root) for root in place.processed])


def evaluated(network: Restored, device: str, frames: Path) -> dict[str, dict[str, float]]:
    """Task -> metric -> value over the test split, as evaluate.py has it; each frame's share goes into `frames`."""
    names = {
        task: [str(sample.frame) for sample in network.samples("test", network.tasks) if task in sample.tasks]
        for task in network.tasks
    }
    recorded = {name: RecordedTask(task) for name, task in network.tasks.items()}
    network.tasks = {name: cast(Task, task) for name, task in recorded.items()}
    results = network.evaluate("test", Precision("auto", torch.device(device)), batch_size=8, workers=0)
    save_frames(frames, names, {name: task.recorded for name, task in recorded.items() if task.recorded})
    return results


def curves(metrics: Path, tasks: list[str]) -> dict[str, Any]:
    """Training losses by samples seen, and the cosine similarity of the tasks' gradients where it was measured."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = {task: points(lines, f"train/{task}/loss") for task in tasks}
    similar = sorted({name for line in lines for name in line if name.startswith("similarity/")})
    return {"losses": losses, "similarity": {name.removeprefix("similarity/"): points(lines, name) for name in similar}}


def points(lines: list[Mapping[str, Any]], name: str) -> list[list[float]]:
    """[samples seen, value] of what was logged under a name, thinned to evenly spread means."""
    found = [(line["samples"], line[name]) for line in lines if line.get(name) is not None]
    width = max(1, -(-len(found) // POINTS))
    parts = [found[start : start + width] for start in range(0, len(found), width)]
    return [[part[-1][0], float(f"{sum(value for _, value in part) / len(part):.5g}")] for part in parts]


def constant_results(run: Run, place: Place) -> dict[str, dict[str, float | None]]:
    """The constant baselines of a finished run's tasks over the test split, fitted to all training labels."""
    return finite_or_none(restored(place.run_dir(run).last, place).evaluate_constant("test", every_label=True))
