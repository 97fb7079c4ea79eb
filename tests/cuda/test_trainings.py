"""Whole trainings on the device: every mode, precision, and what must not change the result."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import train_asymmetric
import train_single_task
import train_symmetric
from datasets.processed import ProcessedData
from errors import UserError
from tests.processes import PYTHON_PATH
from tests.training.golden import ROOT, cases
from tests.training.test_train_single_task import interrupt_at
from training import checkpoint

SCRIPTS = {script.__name__: script for script in (train_single_task, train_symmetric, train_asymmetric)}
MODES = {
    "segmentation": "segmentation",
    "steering": "steering",
    "box": "box",
    "depth": "depth",
    "symmetric": "symmetric fixed",
    "asymmetric": "asymmetric fixed",
}
SHORT = ("training.epochs=2",)  # 10 steps
Train = Callable[..., dict[str, Any]]


@pytest.fixture
def command(tmp_path: Path, labels: ProcessedData, device: torch.device) -> Callable[..., list[str]]:
    """A script and its flags."""

    def make(mode: str, name: str, *settings: str, more: tuple[str, ...] = ()) -> list[str]:
        script, train_mode, config = cases()[MODES[mode]]
        path = tmp_path / f"{mode}.yaml"
        path.write_text(json.dumps(config))
        roots = ["--data-root", tmp_path / "raw", "--processed-root", labels.root, "--runs-root", tmp_path / "runs"]
        flags = [*roots, "--config", path, "--name", name, "--train-mode", train_mode, "--device", device.type]
        settings = [part for setting in (*SHORT, *settings) for part in ("--set", setting)]
        return [script, *map(str, flags), "--wandb", "disabled", *settings, *more]

    return make


@pytest.fixture
def train(
    tmp_path: Path, command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Train:
    """Train in this process -> the last checkpoint."""

    def run(mode: str, name: str, *settings: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
        script, *flags = command(mode, name, *settings, more=more)
        monkeypatch.setattr(sys, "argv", [script, *flags])
        with suppress(SystemExit):
            SCRIPTS[script].main()
        return checkpoint.load(tmp_path / "runs" / name / "last.pt")

    return run


def losses(state: dict[str, Any]) -> dict[str, float]:
    """Of the last validation."""
    return {task: scores["loss"] for task, scores in state["best"]["results"].items()}


def all_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Between two states of a network, relative to the first."""
    pairs = [(a[key].double(), b[key].double()) for key in a if a[key].is_floating_point()]
    return math.sqrt(sum((x - y).square().sum() for x, y in pairs) / sum(x.square().sum() for x, _ in pairs))


@pytest.mark.parametrize("mode", MODES)
def test_bf16(train: Train, mode: str) -> None:
    """Ends near float32."""
    full, half = (losses(train(mode, name, f"training.precision={name}")) for name in ("fp32", "bf16"))
    assert half == pytest.approx(full, rel=0.15)


@pytest.mark.parametrize("mode", MODES)
def test_fp16(train: Train, mode: str) -> None:
    """The loss scale finds its level: some steps are dropped at first, the rest learns."""
    state = train(mode, "fp16", "training.precision=fp16", "training.epochs=4")
    updates = state["updates"]
    assert updates["overflows"] < updates["steps"]
    assert all(map(math.isfinite, losses(state).values()))
    full = losses(train(mode, "fp32", "training.precision=fp32", "training.epochs=4"))
    assert all(losses(state)[task] < 2 * full[task] for task in full)


@pytest.mark.parametrize("mode", MODES)
def test_micro_batches(train: Train, mode: str) -> None:
    """In float32: rounding alone."""
    first, *others = (
        train(mode, f"micro{size}", "training.precision=fp32", *micro_batch(mode, size))["model"]
        for size in (1, 2, 4, 8)
    )
    assert [distance(first, other) < 1e-2 for other in others] == [True] * 3


def micro_batch(mode: str, size: int) -> tuple[str, ...]:
    """Blocks of 8, so that each size divides them."""
    section = "" if mode in ("symmetric", "asymmetric") else f"tasks.{mode}."
    block = "block_size" if mode == "asymmetric" else f"{section}batch_size"
    return f"{section}micro_batch_size={size}", f"{block}=8"


@pytest.mark.parametrize("mode", MODES)
def test_deterministic_trainings_are_equal_bit_for_bit_and_so_is_a_resumed_one(
    train: Train, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("training.deterministic=true", "training.precision=auto")
    whole, again = (train(mode, name, *wanted)["model"] for name in ("whole", "again"))
    assert all_equal(whole, again)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        train(mode, "cut", *wanted)
    resumed = train(mode, "cut", *wanted, more=("--resume", "auto"))
    assert resumed["position"]["epoch"] == 2
    assert all_equal(resumed["model"], whole)


def test_without_determinism_a_resumed_training_is_as_near_as_another_one(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = (train("asymmetric", name)["model"] for name in ("whole", "again"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        train("asymmetric", "cut")
    resumed = train("asymmetric", "cut", more=("--resume", "auto"))["model"]
    assert distance(whole, resumed) <= 10 * distance(whole, again) + 1e-4


def test_two_trainings_with_a_moving_average_are_alike(train: Train) -> None:
    states = [train("symmetric", name, "training.precision=fp32", "training.ema=0.9") for name in ("one", "other")]
    assert distance(states[0]["model"], states[1]["model"]) < 1e-2
    assert distance(states[0]["model"], states[0]["average"]["trained"]) > 0


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_similarities_are_measured(train: Train, tmp_path: Path, mode: str) -> None:
    train(mode, "similar", "training.similarity_every=2", "training.log_every=1")
    rows = map(json.loads, (tmp_path / "runs" / "similar" / "metrics.jsonl").read_text().splitlines())
    found = [value for row in rows for key, value in row.items() if key.startswith("similarity/")]
    assert len(found) > 1
    assert all(-1.001 <= value <= 1.001 for value in found)


@pytest.mark.parametrize("balancing", ["uncertainty", "upgrad", "dwa", "imtl_l"])
def test_balanced(train: Train, balancing: str) -> None:
    """Whole trainings; tests of parts have every method."""
    settings = ("training.precision=fp32", f"balancing={balancing}", "frames=complete")
    states = [train("symmetric", name, *settings)["model"] for name in ("one", "other")]
    assert distance(*states) < 1e-2


def test_nan(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not a number stops the run in one line, and no checkpoint is written."""
    with pytest.raises(UserError, match="not finite"):
        train("symmetric", "diverged", "learning_rate=1e30", "training.clip=1e30", "training.precision=fp32")


# ---- several processes -----------------------------------------------------------------------------------------------


def spawned(command: list[str], processes: int) -> subprocess.CompletedProcess[str]:
    script, *flags = command
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *torchrun, str(ROOT / f"{script}.py"), *flags]
    return subprocess.run(line, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_two_processes_on_one_device(
    train: Train, command: Callable[..., list[str]], tmp_path: Path, device: torch.device, mode: str
) -> None:
    """Over gloo (NCCL wants a GPU for each process): what one process trains."""
    one = train(mode, "one", "training.precision=fp32")["model"]
    shared = "cuda:0" if device.type == "cuda" else "cpu"
    done = spawned([*command(mode, "two", "training.precision=fp32"), "--device", shared], 2)
    assert done.returncode == 0, done.stderr
    assert distance(one, checkpoint.load(tmp_path / "runs" / "two" / "last.pt")["model"]) < 1e-2


EXCHANGE = """
import torch, torch.distributed as dist
from training import distributed
torch.cuda.set_device(0)
dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29577", rank=0, world_size=1)
distributed.processes = lambda: 2  # so that nothing is left out; the sums are over one
parts = [torch.arange(float(n), device="cuda") for n in (3, 70_000, 1)]
copies = [part.clone() for part in parts]
distributed.sum_in_buckets(parts)
distributed.sum_tensors(parts[0])
assert all(map(torch.equal, parts, copies))
assert distributed.count_raised(True, torch.device("cuda")) == 1
assert distributed.from_main(lambda: "made") == "made"
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).cuda()
x = torch.randn(2, 3, 8, 8, device="cuda")
plain = model(x)
distributed.sync_batch_norm(model)
for takes_part in (True, False):
    with distributed.exchanged_batch_norm(model, takes_part):
        torch.testing.assert_close(model(x), plain)
dist.destroy_process_group()
"""


@pytest.mark.gpu_only
def test_nccl_and_sync_bn_with_one_process() -> None:
    done = subprocess.run([sys.executable, "-c", EXCHANGE], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


# ---- last, since it takes a compiler's minutes ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_compiled(train: Train, mode: str) -> None:
    plain, compiled = (
        losses(train(mode, f"compile{value}", f"training.compile={value}", "training.precision=fp32"))
        for value in ("false", "true")
    )
    assert compiled == pytest.approx(plain, rel=1e-2)
