"""Runs a preprocessing stage in this process and reads what it wrote."""

from pathlib import Path
from typing import Any

from datasets.a2d2.raw import RawData
from datasets.a2d2.stage import A2D2Stage, run_stage
from datasets.files import read_json
from datasets.processed import ProcessedData


def roots(raw: RawData, processed: ProcessedData) -> list[str]:
    return ["--data-root", str(raw.root), "--processed-root", str(processed.root)]


def run(stage: A2D2Stage, raw: RawData, processed: ProcessedData, *flags: str) -> int:
    """The exit code of a run; one worker (in this process) unless the flags ask for more."""
    return run_stage(stage, [*roots(raw, processed), "--threads", "1", *flags])


def report_of(processed: ProcessedData, kind: str, shard: tuple[int, int] | None = None) -> dict[str, Any]:
    return read_json(processed.report_path(kind, shard))


def statuses(processed: ProcessedData, kind: str, shard: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """written, already there, without label, failed."""
    report = report_of(processed, kind, shard)
    return report["written"], report["present"], report["without_label"], report["failed"]


def failures(processed: ProcessedData, kind: str) -> dict[Path, str]:
    """Path -> reason, as the report has them."""
    return {Path(failure["path"]): failure["reason"] for failure in report_of(processed, kind)["failures"]}
