"""A preprocessing step on raw A2D2: what its five scripts share beyond datasets/conversion.py."""

import argparse
import filecmp
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets.a2d2.geometry import Calibration
from datasets.a2d2.raw import NAME, RAW_KINDS, RawData
from datasets.conversion import Label, Stage, add_conversion_arguments, convert
from datasets.frames import Frame


class A2D2Stage(Stage[RawData]):
    """One script: a raw kind, and how one of its files becomes a label."""

    raw_kind: str  # raw kind that it reads
    advice = "'sh get_data.sh' fetches them (or --data-root)"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the script's own flags. Default: none."""

    @abstractmethod
    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        """Everything that decides what the files contain, for settings.json (JSON types only)."""

    @abstractmethod
    def convert(self, source: Any) -> Label:
        """The label that a raw file gives: from its path, or from an entry of it. Any exception means: it is bad."""

    def searched(self, raw: RawData) -> Path:
        return raw.images_dir

    def raw_folders(self, raw: RawData) -> tuple[Path, ...]:
        return (*raw.images_dirs, raw.gateway_dir)

    def jobs(self, raw: RawData) -> list[Any]:
        """Every frame whose raw file exists."""
        return raw.frames(self.raw_kind)

    def labels(self, raw: RawData, job: Any) -> Iterator[tuple[Frame, Path, Callable[[], Label]]]:
        path = raw.path(self.raw_kind, job)
        yield job, path, lambda: self.convert(path)

    def copies_differ(self, raw: RawData, frame: Frame) -> bool:
        copies = raw.copies(self.raw_kind, frame) if self.raw_kind in RAW_KINDS else []
        return len(copies) > 1 and not filecmp.cmp(copies[0], copies[1], shallow=False)


def image_settings(args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
    """The part of the settings that the stages with an image size share."""
    return {"size": list(args.size), "calibration": Calibration.read(raw.calibration_path).to_json()}


def parse_arguments(stage: A2D2Stage, argv: list[str] | None) -> argparse.Namespace:
    doc = (sys.modules[type(stage).__module__].__doc__ or "").strip()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_conversion_arguments(parser)
    stage.add_arguments(parser)
    return parser.parse_args(argv)


def run_stage(stage: A2D2Stage, argv: list[str] | None = None) -> int:
    """Run a script. Returns the exit code: 0, or 1 if a frame failed. UserError for wrong usage."""
    args = parse_arguments(stage, argv)
    raw = RawData(args.data_root)
    return convert(stage, raw, stage.settings(args, raw), args, dataset=NAME)
