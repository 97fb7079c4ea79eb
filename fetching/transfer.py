"""Many transfers at once: each file whole or not at all, verified, tried again with back-off, named if it failed."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from datasets.files import is_abandoned, put_aside, whole_file
from errors import UserError
from fetching.bucket import CHUNK_BYTES, Bucket, ObjectError, TransientError, UnavailableError
from fetching.checksums import Checksum, Digests
from fetching.plan import Wanted
from progress import progress, warn

HOPELESS = 50  # files that fail before the first one succeeds: the rest is not tried

Checksums = Mapping[str, Checksum]  # key -> checksum


@dataclass
class Summary:
    """What became of the files of a run."""

    fetched: int = 0
    fetched_bytes: int = 0
    aside: list[Path] = field(default_factory=list)  # files that were there and did not fit, under their new names
    failed: dict[str, str] = field(default_factory=dict)  # key -> why

    def note(self) -> str:
        return f"{self.fetched} files" + (f", {len(self.failed)} failed" if self.failed else "")


def expected(wanted: Wanted, checksums: Checksums) -> list[Checksum]:
    """What the content must fit: the ETag where it is an MD5, and the line of the checksum file."""
    sums = [Checksum(wanted.object.md5)] if wanted.object.md5 else []
    return sums + ([checksums[wanted.object.key]] if wanted.object.key in checksums else [])


def is_there(wanted: Wanted, checksums: Checksums, by_content: bool) -> bool:
    """Whether a file of the right size (and content) is there already: files only appear whole."""
    try:
        if wanted.path.stat().st_size != wanted.object.size:
            return False
    except FileNotFoundError:
        return False
    return not by_content or mismatch_of(wanted.path, expected(wanted, checksums)) is None


def mismatch_of(path: Path, sums: Sequence[Checksum]) -> str | None:
    """How a file differs from its checksums; None: it does not."""
    digests = Digests(sums)
    with open(path, "rb") as file:
        while content := file.read(CHUNK_BYTES):
            digests.update(content)
    return digests.mismatch()


def fetch(bucket: Bucket, wanted: Wanted, sums: Sequence[Checksum], stop: threading.Event) -> Path | None:
    """One try. Returns the new name of a file that was there and did not fit.

    TransientError: broken off, or not what was listed; OSError: the disk.
    """
    digests, size = Digests(sums), 0
    with whole_file(wanted.path) as file:
        for piece in bucket.read(wanted.object):
            if stop.is_set():
                raise TransientError("stopped")
            digests.update(piece)
            file.write(piece)
            size += len(piece)
        if size != wanted.object.size:
            raise TransientError(f"{size} bytes came instead of {wanted.object.size}")
        if mismatch := digests.mismatch():
            raise TransientError(mismatch)
        return put_aside(wanted.path) if wanted.path.exists() else None


def fetch_all(bucket: Bucket, files: Sequence[Wanted], checksums: Checksums, transfers: int) -> Summary:
    """Fetch the files, `transfers` at once. UserError: the disk takes no more; the bucket refuses access."""
    summary, stop = Summary(), bucket.patience.stop

    def transfer(wanted: Wanted) -> Path | None:
        return bucket.patience(lambda: fetch(bucket, wanted, expected(wanted, checksums), stop))

    with ThreadPoolExecutor(transfers) as pool:
        try:
            futures = {pool.submit(transfer, wanted): wanted for wanted in files}
            done = ((futures[future], future) for future in as_completed(futures))
            total = sum(wanted.object.size for wanted in files)
            for wanted, future in progress(
                done, total, "fetching", summary.note, lambda pair: pair[0].object.size, in_bytes=True
            ):
                _note(summary, wanted, future.exception(), None if future.exception() else future.result())
        finally:
            stop.set()  # only an error or Ctrl-C leaves any to stop
            pool.shutdown(wait=False, cancel_futures=True)
    return summary


def _note(summary: Summary, wanted: Wanted, error: BaseException | None, aside: Path | None) -> None:
    if isinstance(error, OSError):
        raise UserError(f"can't write {wanted.path}: {error.strerror}; what is there stays, a rerun goes on") from None
    if error is not None and not isinstance(error, TransientError | ObjectError | UnavailableError):
        raise error
    if error is not None:
        summary.failed[wanted.object.key] = str(error)
        warn(f"failed: {wanted.object.key}: {error}")
        if len(summary.failed) == HOPELESS and not summary.fetched:
            raise UserError(f"the first {HOPELESS} files all failed, the last one: {error}")
        return
    summary.fetched += 1
    summary.fetched_bytes += wanted.object.size
    if aside is not None:
        summary.aside.append(aside)


def split(files: Sequence[Wanted], checksums: Checksums, by_content: bool) -> tuple[list[Wanted], list[Wanted]]:
    """Those that are there, and those to fetch."""
    there: list[Wanted] = []
    missing: list[Wanted] = []
    for wanted in progress(files, len(files), "looking what is there"):
        (there if is_there(wanted, checksums, by_content) else missing).append(wanted)
    return there, missing


def remove_abandoned(files: Sequence[Wanted]) -> None:
    """Remove temporary files of runs that were killed, from the folders that the files belong into."""
    for folder in sorted({wanted.path.parent for wanted in files}):
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_abandoned(path.name):
                path.unlink(missing_ok=True)
