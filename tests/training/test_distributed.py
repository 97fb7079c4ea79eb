"""Several processes over gloo train what one process trains: in float64, to 1e-9."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import UserError
from tasks import TASKS
from tests.processes import PYTHON_PATH
from tests.training.conftest import CONFIG, Workplace
from tests.training.test_asymmetric import ASYMMETRIC, SYMMETRIC, uneven_data
from training import checkpoint, distributed
from training.runs.base import Portions
from training.start import check_processes

__all__ = ["uneven_data"]

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("one_process.py")
MICRO = {"micro_batch_size": 2}
UPGRAD = {"balancing": "upgrad", "batch_size": 4, "micro_batch_size": 1, "seed": 1}


def case(name: str, script: str, config: dict[str, Any], mode: str, **changes: Any) -> dict[str, Any]:
    changes = {"training.epochs": 1} | changes
    return {"name": name, "script": script, "config": config, "mode": mode, "changes": changes}


def single(task: str) -> dict[str, Any]:
    sizes = {f"tasks.{task}.batch_size": 8, f"tasks.{task}.micro_batch_size": 2}
    return case(task, "train_single_task", yaml.safe_load(CONFIG), task, **sizes)


# of 10 training frames: the last block is short, and with 4 processes some have no sample of it
CASES = [
    case("asymmetric", "train_asymmetric", ASYMMETRIC, "asymmetric", **MICRO, **{"training.similarity_every": 2}),
    case(
        "uniform",
        "train_asymmetric",
        ASYMMETRIC,
        "asymmetric",
        **MICRO,
        balancing="uncertainty",
        sampling="uniform",
        visit="label",
    ),
    case("per_label", "train_asymmetric", ASYMMETRIC, "asymmetric", **MICRO, visit="label"),
    case("any", "train_symmetric", SYMMETRIC, "symmetric", **MICRO, frames="any"),
    case("symmetric", "train_symmetric", SYMMETRIC, "symmetric", **MICRO),
    case("upgrad", "train_symmetric", SYMMETRIC, "symmetric", **UPGRAD),
    case("imtl_l", "train_symmetric", SYMMETRIC, "symmetric", **UPGRAD | {"balancing": "imtl_l"}),
    case("average", "train_asymmetric", ASYMMETRIC, "asymmetric", **MICRO, **{"training.ema": 0.8}),
    case("one_label", "train_symmetric", SYMMETRIC, "depth", **MICRO),
    *map(single, TASKS),
]


def write_runs(place: Workplace, cases: list[dict[str, Any]], suffix: str, **more: Any) -> Path:
    """The driver's JSON."""
    runs = []
    for one in cases:
        config = place.dir / f"{one['name']}.yaml"
        config.write_text(json.dumps(one["config"]))
        flags = [*place.roots(), "--config", str(config), "--runs-root", str(place.runs), "--wandb", "disabled"]
        flags += ["--name", one["name"] + suffix, "--train-mode", one["mode"], "--resume", "auto"]
        flags += [part for key, value in one["changes"].items() for part in ("--set", f"{key}={value}")]
        runs.append({"script": one["script"], "flags": flags, **more})
    path = place.dir / f"runs{suffix}.json"
    path.write_text(json.dumps(runs))
    return path


def start(folder: Path, script: Sequence[Path], processes: int) -> subprocess.CompletedProcess[str]:
    """script: with its arguments."""
    settings = {"PYTHONPATH": PYTHON_PATH, "A2D2_STOP_FILE": str(folder / "stop"), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), *map(str, script)]
    return subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, timeout=300)


def trained(place: Workplace, cases: list[dict[str, Any]], processes: int, suffix: str = "", **more: Any) -> None:
    done = start(place.dir, [DRIVER, write_runs(place, cases, suffix, **more)], processes)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(uneven_data: tuple[RawData, ProcessedData], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(*uneven_data, tmp_path_factory.mktemp("several"))
    trained(place, CASES, 1, "-1")
    return place


def state_of(place: Workplace, name: str) -> dict[str, Any]:
    return checkpoint.load(place.runs / name / "last.pt")


def rows_of(place: Workplace, name: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (place.runs / name / "metrics.jsonl").read_text().splitlines())
    return [
        {key: math.nan if value is None else value for key, value in row.items() if key != "speed/samples_per_second"}
        for row in rows
    ]


def assert_same_training(place: Workplace, name: str, other: str) -> None:
    """Weights, counts, validation and logged losses."""
    a, b = state_of(place, name), state_of(place, other)
    for key, value in a["model"].items():
        torch.testing.assert_close(
            b["model"][key], value, rtol=0, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert (a["updates"]["seen"], a["updates"]["steps"]) == (b["updates"]["seen"], b["updates"]["steps"])
    assert a["position"] == b["position"]
    rows, others = rows_of(place, name), rows_of(place, other)
    assert len(rows) == len(others) > 2
    for row, same in zip(rows, others, strict=True):
        assert same == pytest.approx(row, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.fixture(scope="module")
def four(place: Workplace) -> None:
    """By four processes; by two, test_golden.py trains every mode with every balancing."""
    trained(place, CASES, 4, "-4")


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("name", [one["name"] for one in CASES])
def test_several_processes_equal_one(place: Workplace, name: str) -> None:
    assert_same_training(place, f"{name}-1", f"{name}-4")


def test_there_was_something_to_get_wrong(place: Workplace) -> None:
    """Weights move, and all kinds of rows are logged."""
    content = state_of(place, "asymmetric-1")
    assert content["updates"]["steps"] > 5
    first, second = (state_of(place, name)["model"] for name in ("asymmetric-1", "uniform-1"))
    assert not torch.equal(*(weights["encoder.resnet.conv1.weight"] for weights in (first, second)))
    keys = {key for row in rows_of(place, "asymmetric-1") for key in row}
    assert {"similarity/segmentation/depth", "train/depth/loss", "val/box/map50", "samples/box"} <= keys


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_stopped_and_resumed_by_another_number_of_processes(place: Workplace, first: int, then: int) -> None:
    """The stop file appears in the first block, which leaves groups half full."""
    suffix = f"-stopped-{first}-{then}"
    cases = [one for one in CASES if one["name"] in ("asymmetric", "per_label")]  # gradients, similarities are pending
    trained(place, cases, first, suffix, stop_after=1)
    for one in cases:
        assert (place.runs / (one["name"] + suffix) / "INTERRUPTED").exists()
        content = state_of(place, one["name"] + suffix)
        assert content["position"]["epoch"] == 0
        assert content["updates"]["groups"]["backbone"]["count"] > 0
    trained(place, cases, then, suffix)
    for one in cases:
        assert_same_training(place, one["name"] + "-1", one["name"] + suffix)
        assert not (place.runs / (one["name"] + suffix) / "INTERRUPTED").exists()


def test_a_process_that_dies_ends_the_job_with_its_error(place: Workplace) -> None:
    done = start(place.dir, [DRIVER, write_runs(place, CASES[:1], "-dies", die_at=2)], 2)
    assert done.returncode != 0
    assert "this process dies" in done.stderr


def test_blocks_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    portions = Portions(block_size=8, micro_batch_size=8)
    check_processes(portions)
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(UserError, match="2 processes with micro_batch_size 8 do not divide the block of 8"):
        check_processes(portions)


SHARED_OUT = """
from functools import partial
from errors import UserError, run_as_script
from training import distributed

made = []

def make(name):
    made.append(name)
    return name.upper()

def fail():
    raise UserError("b can't be made")

def main():
    distributed.start("cpu")
    assert distributed.shared_out({name: partial(make, name) for name in "abc"}) == {"a": "A", "b": "B", "c": "C"}
    assert made == [["a", "c"], ["b"]][distributed.rank()]
    distributed.shared_out({"a": partial(make, "a"), "b": fail})

if __name__ == "__main__":
    run_as_script(main)
"""


def test_processes_share_what_is_to_be_made(tmp_path: Path) -> None:
    """And a mistake that the second of them finds is told once."""
    script = tmp_path / "shared_out.py"
    script.write_text(SHARED_OUT)
    done = start(tmp_path, [script], 2)
    assert done.stderr.count("error: b can't be made") == 1, done.stderr
    assert "rank0]: Traceback" not in done.stderr


# ---- one process: nothing happens -----------------------------------------------------------------------------


def test_one_process_exchanges_nothing() -> None:
    assert (distributed.rank(), distributed.processes(), distributed.is_main()) == (0, 1, True)
    layer = nn.Linear(2, 2)
    distributed.sum_gradients(layer.parameters())
    assert layer.weight.grad is None
    assert [distributed.count_raised(flag, torch.device("cpu")) for flag in (False, True)] == [0, 1]
    assert distributed.union(["a"]) == {"a"}
    assert distributed.from_main(lambda: "made") == "made"
