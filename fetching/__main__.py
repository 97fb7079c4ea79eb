"""Fetch A2D2 file by file from its bucket: only the front center camera and the parts asked for.

    python -m fetching --dest Datasets --only bboxes --scenes 20180807_145028      (sh get_data.sh does it)

Writes into DEST as A2D2 has its files. What is there with the right size is not fetched again. Exit code: 0, 1 if a
file failed, 2 for wrong usage and full disks, 3 if the bucket is not there or refuses access (get_data.sh then tries
the archives).
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from arguments import whole
from datasets.a2d2.raw import RawData
from datasets.files import check_free_disk
from datasets.locks import Lock
from errors import UserError, run_as_script
from fetching.bucket import Bucket, ObjectError, Patience, TransientError, UnavailableError
from fetching.checksums import Checksum, ChecksumList
from fetching.plan import PARTS, Plan, Wanted, make_plan
from fetching.transfer import Summary, fetch_all, remove_abandoned, split
from signals import ENDING

BUCKET = "audi-autonomous-driving-dataset"
CHECKSUM_FILE = "CHECKSUMS.txt"
TRIES = 8
UNAVAILABLE = 3  # exit code
NAMED = 20  # failures that the summary shows


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fetching", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dest", type=Path, required=True, metavar="DIR", help="such as Datasets; must be given")
    parser.add_argument("--only", choices=PARTS, help="one part (default: bboxes and bus)")
    parser.add_argument("--scenes", nargs="+", metavar="SCENE", help="only these scenes (default: all)")
    parser.add_argument("--all-cameras", action="store_true", help="all six cameras, not only the front center one")
    parser.add_argument("--transfers", type=whole(1), default=32, metavar="N", help="at once, such as 8 (default 32)")
    parser.add_argument("--checksums", action="store_true", help=f"check every file against {CHECKSUM_FILE} as well")
    parser.add_argument("--verify", action="store_true", help="compare the checksums of what is there, too")
    parser.add_argument("--dry-run", action="store_true", help="list what would be fetched")
    parser.add_argument("--bucket", default=BUCKET, metavar="NAME", help=f"another, such as my-copy (default {BUCKET})")
    parser.add_argument(
        "--endpoint",
        default=os.environ.get("A2D2_S3_ENDPOINT") or None,
        metavar="URL",
        help="an S3 server, such as http://localhost:9000 (default $A2D2_S3_ENDPOINT, else Amazon's)",
    )
    return parser.parse_args(argv)


def seconds(variable: str, default: float) -> float:
    """A number of seconds from the environment."""
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        raise UserError(f"{variable}={os.environ[variable]} is no number of seconds") from None


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    # at once, not when a stalled transfer gives Python its turn: what is half fetched is none of the files
    for number in {signal.SIGTERM, signal.SIGHUP}.intersection(ENDING):
        signal.signal(number, signal.SIG_DFL)
    patience = Patience(TRIES, seconds("GET_DATA_BACKOFF", 1))
    bucket = Bucket(args.bucket, args.endpoint, seconds("GET_DATA_PATIENCE", 60), patience)
    try:
        return run(bucket, args)
    except UnavailableError as error:
        print(f"{bucket}: {error}", file=sys.stderr)
        return UNAVAILABLE
    except (TransientError, ObjectError) as error:
        raise UserError(f"{bucket} can't be read: {error}") from None


def run(bucket: Bucket, args: argparse.Namespace) -> int:
    """List, and fetch what is missing. Returns the exit code."""
    parts = [args.only] if args.only else ["bboxes", "bus"]
    plan = make_plan(bucket, RawData(args.dest), parts, args.scenes, args.all_cameras)
    show(plan, bucket)
    needs_list = args.checksums or any(wanted.object.md5 is None for wanted in plan.files)
    if args.dry_run:
        there, missing = split(plan.files, {}, by_content=False)
        size = sum(wanted.object.size for wanted in missing)
        more = f", and {CHECKSUM_FILE} to check them" if needs_list else ""
        print(f"{len(there)} files are there; would fetch {len(missing)} files, {size / 1e9:.2f} GB{more}")
        print(f"{free_disk(args.dest) / 1e9:.2f} GB free in {args.dest}")
        return 0
    try:
        with Lock(args.dest / ".get_data" / "files.lock", str(args.dest)):
            return fetch_plan(bucket, plan, read_checksums(bucket, plan) if needs_list else ChecksumList(), args)
    except OSError as error:
        raise UserError(f"{args.dest} can't be written to: {error.strerror}") from None


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def show(plan: Plan, bucket: Bucket) -> None:
    for line in plan.found():
        print(f"{bucket}/{line}")
    for line in plan.contents():
        print(f"from {bucket}/{line}")
    if plan.ignored:
        print(f"{len(plan.ignored)} files have none of the set's names and are left out, such as {plan.ignored[0]!r}")


def read_checksums(bucket: Bucket, plan: Plan) -> ChecksumList:
    """The lines of CHECKSUMS.txt that the plan needs. UserError: the listing lacks files that it names."""
    listed = next((file for file in bucket.level("")[1] if file.key == CHECKSUM_FILE), None)
    if listed is None:
        print(f"{bucket} has no {CHECKSUM_FILE}: files without an MD5 as ETag are checked by their size alone")
        return ChecksumList()
    print(f"reading {CHECKSUM_FILE}, {listed.size / 1e6:.0f} MB")
    keys = {wanted.object.key for wanted in plan.files}
    found = bucket.patience(lambda: ChecksumList.read(bucket.read(listed), keys, plan.is_asked_for))
    if found.strange:
        print(f"{CHECKSUM_FILE}: {found.strange} lines are no 'sum  path'")
    if not found.of:
        print(f"{CHECKSUM_FILE} names none of the files asked for")
    return found


def fetch_plan(bucket: Bucket, plan: Plan, checksums: ChecksumList, args: argparse.Namespace) -> int:
    remove_abandoned(plan.files)
    there, missing = split(plan.files, checksums.of, args.verify)
    size = sum(wanted.object.size for wanted in missing)
    print(f"{len(there)} files are there; fetching {len(missing)} files, {size / 1e9:.2f} GB", flush=True)
    check_free_disk(args.dest, size)
    summary = fetch_all(bucket, missing, checksums.of, args.transfers)
    for key in sorted(checksums.unlisted):
        summary.failed[key] = f"{CHECKSUM_FILE} names it, the bucket's listing does not"
    report(summary, missing, checksums.of)
    return 1 if summary.failed else 0


def report(summary: Summary, missing: Sequence[Wanted], checksums: dict[str, Checksum]) -> None:
    unchecked = sum(wanted.object.md5 is None and wanted.object.key not in checksums for wanted in missing)
    print(f"{summary.fetched} files fetched, {summary.fetched_bytes / 1e9:.2f} GB; {len(summary.failed)} failed")
    if unchecked:
        print(f"{unchecked} of them have no checksum: only their size was checked")
    for path in summary.aside:
        print(f"a file of another size or content was there; it is now {path}")
    for key, reason in sorted(summary.failed.items())[:NAMED]:
        print(f"failed: {key}: {reason}", file=sys.stderr)
    if len(summary.failed) > NAMED:
        print(f"... and {len(summary.failed) - NAMED} more failed", file=sys.stderr)
    if summary.failed:
        print("error: run again to fetch what failed", file=sys.stderr)


if __name__ == "__main__":
    run_as_script(main)
