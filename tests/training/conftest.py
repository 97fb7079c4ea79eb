"""Small data and small configs for the tests of the training scripts."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import run_as_script
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tests.raw_files import OTHER_SCENE, SCENE, frames, write_every_kind
from tests.stages import run

CONFIG = """\
data:
  size: [64, 64]
  split: {mode: time, fractions: [0.7, 0.2, 0.1], gap_seconds: 1.0}
  workers: 0
training:
  epochs: 1
  log_every: 1
  images: 1
tasks:
  segmentation: {batch_size: 4, micro_batch_size: 2, learning_rate: 0.001, network: {base_channels: 2}}
  steering: {batch_size: 4, micro_batch_size: 4, learning_rate: 0.001}
  box:
    batch_size: 4
    micro_batch_size: 4
    learning_rate: 0.001
    network: {base_channels: 2, pairs: [1]}
    settings: {grid: 4}
  depth: {batch_size: 4, micro_batch_size: 2, learning_rate: 0.001, network: {encoder: small, pretrained: none}}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass
class Printed:
    """How a script ended."""

    code: int
    out: str
    err: str


def after_camera_warning(printed: Printed) -> Printed:
    """What came after the one warning that the processed images are of no use to the run."""
    first, _, rest = printed.err.partition("\n")
    assert first.startswith("warning: ")
    assert first.endswith("each image is made from its raw PNG, slowly")
    return replace(printed, err=rest)


@dataclass
class Workplace:
    """Raw data of 2 scenes x 12 frames, their labels at 64x64, and a folder for runs and configs."""

    raw: RawData
    processed: ProcessedData
    dir: Path

    @property
    def runs(self) -> Path:
        return self.dir / "runs"

    def config(self, text: str = CONFIG) -> Path:
        path = self.dir / "config.yaml"
        path.write_text(text)
        return path

    def roots(self) -> list[str]:
        return ["--data-root", str(self.raw.root), "--processed-root", str(self.processed.root), "--device", "cpu"]

    def flags(self, mode: str, *more: str) -> list[str]:
        """Of train_single_task.py."""
        config, runs = str(self.config()), str(self.runs)
        return [
            *self.roots(),
            "--train-mode",
            mode,
            "--config",
            config,
            "--runs-root",
            runs,
            "--wandb",
            "disabled",
            *more,
        ]


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[RawData, ProcessedData]:
    """Not to be written to."""
    root = tmp_path_factory.mktemp("small")
    raw, processed = RawData(root / "raw"), ProcessedData(root / "processed")
    write_every_kind(raw, frames(12, SCENE) + frames(12, OTHER_SCENE))
    for stage in (Camera(), Segmentation(), Depth(), Boxes(), Steering()):
        size = [] if isinstance(stage, Steering) else ["--size", "64", "64"]
        assert run(stage, raw, processed, *size) == 0
    return raw, processed


@pytest.fixture
def workplace(small_data: tuple[RawData, ProcessedData], tmp_path: Path) -> Workplace:
    return Workplace(*small_data, tmp_path)


@pytest.fixture
def own_workplace(small_data: tuple[RawData, ProcessedData], tmp_path: Path) -> Workplace:
    """With copies of the data, which the test may damage."""
    raw, processed = small_data
    shutil.copytree(raw.root, tmp_path / "raw")
    shutil.copytree(processed.root, tmp_path / "processed")
    return Workplace(RawData(tmp_path / "raw"), ProcessedData(tmp_path / "processed"), tmp_path)


@pytest.fixture
def _offline_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_account(tmp_path, monkeypatch)


def no_account(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in and wandb's own folders lie in this one."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(folder / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """Run a script's `main` as its file does, with these arguments."""

    def call_main(main: Callable[[], Any], *arguments: str) -> Printed:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        monkeypatch.setattr("errors._end_at_once", lambda error, status: None)  # this process goes on
        with pytest.raises(SystemExit) as stopped:
            run_as_script(main)
        out, err = capfd.readouterr()
        return Printed(stopped.value.code, out, err)

    return call_main
