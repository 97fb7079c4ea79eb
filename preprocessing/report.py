"""After a job array: merge the reports of its shards into one report.json a stage, and list what failed.

python preprocessing/report.py --kinds segmentation depth

Writes PROCESSED_ROOT/KIND/report.json. Exit code 1 where a frame failed or a shard has not reported.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections import Counter
from typing import Any

from datasets.files import read_json, write_json
from datasets.layout import add_processed_root_argument
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from strict import DataModel, checked

STATUS = ("written", "present", "without_label", "failed")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND", help="such as segmentation depth (default: all that have shards)"
    )
    add_processed_root_argument(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    processed = ProcessedData(args.processed_root)
    kinds = args.kinds or [kind for kind in processed.folders() if processed.shard_reports(kind)]
    if not kinds:
        raise UserError(f"no reports of shards below {processed.root}; run a preprocessing script with --shard I/N")
    bad = [kind for kind in kinds if not merge_kind(processed, kind)]
    return 1 if bad else 0


def merge_kind(processed: ProcessedData, kind: str) -> bool:
    """Write the kind's report.json and tell what is in it; whether every shard has reported and nothing failed."""
    reports = latest_run(processed, kind)
    total = next(iter(reports))[1]
    merged = merge([read_report(path) for path in reports.values()])
    missing = sorted(set(range(1, total + 1)) - {number for number, _ in reports})
    if not missing:
        write_json(processed.report_path(kind), merged, indent=2)
    written, present, without_label, failed = (merged[key] for key in STATUS)
    print(f"{kind}: {written} written, {present} already there, {without_label} without label, {failed} failed")
    if missing:
        numbers = ",".join(map(str, missing))
        print(f"{kind}: shards without a report: {numbers} of {total}; submit them again: --array={numbers}")
    if differing := merged["differing_copies"]:
        print(f"{kind}: {len(differing)} frames lie in two folders and differ, such as {differing[0]}")
    for failure in merged["failures"]:
        print(f"{kind}: failed: {failure['path']}: {failure['reason']}")
    return not missing and not merged["failures"]


class Failure(DataModel):
    frame: str
    path: str
    reason: str


class ShardReport(DataModel):
    """What a shard's report must hold."""

    kind: str
    written: int
    present: int
    without_label: int
    failed: int
    counts: dict[str, int]
    without_label_frames: list[str]
    differing_copies: list[str] = []
    failures: list[Failure]
    settings: dict[str, Any]


def read_report(path: Path) -> dict[str, Any]:
    """UserError: it is no report."""
    try:
        return checked(ShardReport, read_json(path)).model_dump()
    except ValueError as error:
        raise UserError(f"{path}: {error}; run this shard again") from None


def latest_run(processed: ProcessedData, kind: str) -> dict[tuple[int, int], Path]:
    """The reports of the last run's number of shards: earlier runs may have had others."""
    reports = processed.shard_reports(kind)
    if not reports:
        raise UserError(f"no reports of shards below {processed.kind_dir(kind)}; run its script with --shard I/N")
    _, latest = max(reports, key=lambda shard: reports[shard].stat().st_mtime)
    return {shard: path for shard, path in reports.items() if shard[1] == latest}


def merge(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report with the sums of the numbers and all names, sorted."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["counts"])
    return {
        "kind": reports[0]["kind"],
        **{key: sum(report[key] for report in reports) for key in STATUS},
        "counts": dict(sorted(counts.items())),
        "without_label_frames": sorted(frame for report in reports for frame in report["without_label_frames"]),
        "differing_copies": sorted(frame for report in reports for frame in report.get("differing_copies", ())),
        "failures": sorted((f for report in reports for f in report["failures"]), key=lambda f: f["frame"]),
        "settings": reports[0]["settings"],
    }


if __name__ == "__main__":
    run_as_script(main)
