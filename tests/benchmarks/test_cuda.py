"""The command for a GPU, as far as a CPU can tell: nothing registered lacks a line, and its whole path runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import torch

from models.encoder import ENCODERS
from models.registry import HEADS, NETWORKS
from tasks import TASKS
from tests.conftest import ROOT
from training.methods import METHODS


def command(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def listed() -> subprocess.CompletedProcess[str]:
    """The tests for a GPU, run where there is none."""
    only_list = ["--collect-only", "-q"] if torch.cuda.is_available() else ["-v"]
    return command("-m", "pytest", *only_list, "-m", "cuda", "tests/cuda", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def tests(listed: subprocess.CompletedProcess[str]) -> list[str]:
    """The names of the tests for a GPU."""
    return [line for line in listed.stdout.splitlines() if "::" in line]


CHOICES = [
    (name, key)
    for name, task in TASKS.items()
    for key, field in task.Settings.model_fields.items()
    if get_origin(field.annotation) is Literal
]
REGISTERED = {
    "test_loss": [*TASKS, *(f"{task} {key}=" for task, key in CHOICES)],
    "test_decode_and_metric": TASKS,
    "test_flip": TASKS,
    "test_network": [
        *(f"network {name}" for name in NETWORKS),
        *(f"head {name}" for name in HEADS),
        *(f"encoder {name}" for name in [*ENCODERS, "timm/"]),
        "norm frozen",
        "norm train",
    ],
    "test_balancing": METHODS,
    **{name: [*TASKS, "symmetric", "asymmetric"] for name in ("test_bf16", "test_fp16", "test_micro_batches")},
}


@pytest.mark.parametrize("name", REGISTERED)
def test_everything_that_is_registered_has_a_line(tests: list[str], name: str) -> None:
    lines = [test for test in tests if f"::{name}[" in test]
    assert [one for one in REGISTERED[name] if not any(one in line for line in lines)] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so() -> None:
    done = command("-m", "benchmarks.cuda")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no CUDA device here")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_tests_for_a_gpu_are_skipped_with_the_reason(listed: subprocess.CompletedProcess[str]) -> None:
    assert listed.returncode == 0
    assert "no CUDA device here" in listed.stdout
    assert "passed" not in listed.stdout


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "lines.jsonl").read_text().splitlines()]


WHOLE_PATH = """
import sys, benchmarks.cuda as c, benchmarks.cuda_speed as s, benchmarks.dataset as d
d.FRAMES = 2
c.TESTS = ["tests/cuda/test_parts.py::test_flip", "tests/cuda/test_trainings.py::test_bf16[steering]"]
s.SECONDS_A_SPEED = 0
s.MODES = {mode: s.MODES[mode] for mode in ("steering", "symmetric", "segmentation")}
sys.argv[1:] = ["--device", "cpu", "--minutes", "60", "--out", sys.argv[1]]
sys.exit(c.main())
"""


def test_the_whole_path_runs_on_a_cpu(tmp_path: Path) -> None:
    """A few of the tests, and every kind of line of speed and learning, of a few modes."""
    done = command("-c", WHOLE_PATH, str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = lines_of(tmp_path)
    assert {line["kind"] for line in lines} == {"machine", "correctness", "speed", "learning"}
    assert [line["outcome"] for line in lines if line["kind"] == "correctness"] == ["passed"] * (len(TASKS) + 1)
    speeds = {line["name"]: line for line in lines if line["kind"] == "speed"}
    assert len(speeds) > 12
    for mode in ("steering", "symmetric", "segmentation"):
        assert {"loaded_per_second", "trained_per_second"} < speeds[f"{mode} from the loader, 1 processes"].keys()


def test_what_no_time_is_left_for_is_named(tmp_path: Path) -> None:
    done = command("-m", "benchmarks.cuda", "--device", "cpu", "--minutes", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = lines_of(tmp_path)
    skipped = [line for line in lines if line["kind"] == "correctness" and "no time left" in line["reason"]]
    assert len(skipped) > 50
    assert len([line for line in lines if line["kind"] == "left out"]) > 12


def test_a_failing_line_of_correctness_fails_the_command(tmp_path: Path) -> None:
    probe = (
        "import sys, time, pathlib, torch, benchmarks.cuda as c\n"
        "report = c.Report(pathlib.Path(sys.argv[1]), time.monotonic() + 60)\n"
        "c.TESTS = [sys.argv[2]]\n"
        "c.correctness(report, torch.device('cpu'))\n"
        "sys.exit(report.failed)\n"
    )
    test = tmp_path / "test_broken.py"
    test.write_text("def test_nothing():\n    assert 1 == 2\n")
    done = command("-c", probe, str(tmp_path), str(test))
    assert done.returncode == 1, done.stderr
    (line,) = lines_of(tmp_path)
    assert (line["kind"], line["outcome"]) == ("correctness", "failed")
    assert "assert 1 == 2" in line["reason"]
