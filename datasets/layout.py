"""Where runs and pictures lie, and the flags that name the roots. No other module builds a path below these folders.

Raw A2D2 is datasets/a2d2/raw.py's, the processed root datasets/processed.py's.
"""

import argparse
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from datasets.files import remove_abandoned_in, sorted_names
from datasets.frames import Frame
from errors import UserError


def add_root_arguments(parser: argparse.ArgumentParser) -> None:
    """--data-root and --processed-root; A2D2_DATA and A2D2_PROCESSED (scratch file systems) are their defaults."""
    add_data_root_argument(parser)
    add_processed_root_argument(parser)


def add_processed_root_argument(parser: argparse.ArgumentParser) -> None:
    """--processed-root, by default A2D2_PROCESSED."""
    _add_root(parser, "--processed-root", "A2D2_PROCESSED", "Datasets/processed", "labels, such as /scratch/processed")


def add_processed_roots_argument(parser: argparse.ArgumentParser) -> None:
    """--processed-root, once for each data set; by default A2D2_PROCESSED."""
    default = Path(os.environ.get("A2D2_PROCESSED") or "Datasets/processed")
    parser.add_argument(
        "--processed-root",
        type=Path,
        action=AppendToGiven,
        default=[default],
        metavar="DIR",
        help="a data set's labels and images, such as /scratch/nyuv2; once for each data set (default $A2D2_PROCESSED, "
        "else Datasets/processed)",
    )


class AppendToGiven(argparse.Action):
    """Collects what is given; what the default holds goes when the first one comes."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, *rest: Any) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [value] if given is self.default else [*given, value])


def add_data_root_argument(parser: argparse.ArgumentParser) -> None:
    """--data-root, by default A2D2_DATA."""
    _add_root(parser, "--data-root", "A2D2_DATA", "Datasets", "raw data, such as /scratch/a2d2")


def add_runs_root_argument(parser: argparse.ArgumentParser) -> None:
    """--runs-root, by default A2D2_RUNS."""
    _add_root(parser, "--runs-root", "A2D2_RUNS", "runs", "folder of the training runs, such as /scratch/runs")


def _add_root(parser: argparse.ArgumentParser, flag: str, variable: str, default: str, what: str) -> None:
    path = Path(os.environ.get(variable) or default)
    parser.add_argument(
        flag, type=Path, default=path, metavar="DIR", help=f"{what} (default ${variable}, else {default})"
    )


def fits_folder(runs_root: str | os.PathLike) -> Path:
    """Where what runs have learnt from their labels before training is kept, for the next ones."""
    return Path(runs_root) / ".fits"


class RunDir:
    """The files of one training run: `runs_root/NAME/...`."""

    def __init__(self, runs_root: str | os.PathLike, name: str):
        self.dir = Path(runs_root) / name
        self.config = self.dir / "config.yaml"
        self.split = self.dir / "split.json"
        self.best = self.dir / "best.pt"
        self.last = self.dir / "last.pt"
        self.metrics = self.dir / "metrics.jsonl"
        self.interrupted = self.dir / "INTERRUPTED"
        self.lock = self.dir.parent / f".{self.dir.name}.lock"  # beside it: an empty folder is one that no run has used
        self.wandb = self.dir / "wandb"

    def image(self, epoch: int, task: str, frame: Frame) -> Path:
        """A validation frame as it was drawn after an epoch."""
        return self._images(epoch) / f"{task}-{frame.dataset}-{frame.scene}-{frame.id}.jpg"

    def images_of_others(self, epochs: Collection[int]) -> list[Path]:
        """The folders of such pictures of all epochs but these."""
        kept = {*map(self._images, epochs)}
        return [path for path in (self.dir / "images").glob("epoch-*") if path not in kept]

    def _images(self, epoch: int) -> Path:
        return self.dir / "images" / f"epoch-{epoch:03d}"

    def plot(self, task: str, name: str) -> Path:
        """A plot of the task's metric at the end of training."""
        return self.dir / "images" / f"{task}-{name}.png"

    def exists(self) -> bool:
        return bool(sorted_names(self.dir))

    def check_files(self) -> None:
        """UserError where something else lies in the place of a file that the training will write."""
        for path in (self.config, self.split, self.best, self.last, self.metrics, self.interrupted):
            if path.exists() and not path.is_file():
                raise UserError(f"{path} is a folder, pipe or device, where the run has a file; move it away")

    def remove_abandoned(self) -> None:
        """Remove temporary checkpoints, and what else lies beside them, whose writer was killed (on this machine)."""
        remove_abandoned_in(self.dir)


class ResultsDir:
    """The pictures of one frame, several, or one scene: `root/TASK/NAME/...`."""

    def __init__(self, root: str | os.PathLike, task: str, name: str, suffix: str = "png"):
        """suffix: of pictures and plots."""
        self.dir, self.suffix = Path(root) / task / name, suffix
        self.sheet = self.dir / f"sheet.{suffix}"
        self.video = self.dir / "scene.mp4"
        self.gif = self.dir / "scene.gif"

    def picture(self, column: str) -> Path:
        """The picture of one column of the sheet: the camera, the truth or a network."""
        return self.dir / f"{column}.{self.suffix}"

    def plot(self, name: str) -> Path:
        """A plot over a scene's time, or of what a network's metric holds over a split."""
        return self.dir / f"{name}.{self.suffix}"


def curves_plot(root: str | os.PathLike, runs: str, suffix: str) -> Path:
    """The training curves of some runs: `root/curves/RUNS.png`."""
    return Path(root) / "curves" / f"{runs}.{suffix}"


def check_picture(root: str | os.PathLike, dataset: str) -> Path:
    """The picture of preprocessing/folders.py --check: `root/check/DATASET.png`."""
    return Path(root) / "check" / f"{dataset}.png"


class OverviewDir:
    """Contact sheets of raw scenes, and statistics of the whole set: `root/overview/...`."""

    def __init__(self, root: str | os.PathLike):
        self.dir = Path(root) / "overview"
        self.statistics = self.dir / "statistics.png"

    def sheet(self, scene: str) -> Path:
        return self.dir / f"{scene}.png"
