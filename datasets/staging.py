"""Copies of the processed set on node-local disks: training then reads nothing over the network.

Every process of a node calls `stage`; one copies, the others wait for it.
"""

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datasets.files import check_free_disk, locked, read_json, sorted_names, whole_file, write_json
from datasets.packs import PACKED, Pack, Stamp
from datasets.processed import ProcessedData
from errors import UserError
from progress import progress

PIECE = 16 * 2**20  # bytes that are copied at a time
MB, GB = 10**6, 10**9
AUTO = Path("auto")
DISKS = ("SLURM_TMPDIR", "TMPDIR")  # variables that name a job's disk, the first that is set counts


def add_stage_argument(parser: argparse.ArgumentParser) -> None:
    """--stage-to."""
    parser.add_argument(
        "--stage-to",
        type=_folder,
        metavar="DIR",
        help="first copy the processed set there, once per node, and read the copy; prints how many GB that takes. An "
        "empty folder of a node-local disk such as /local/a2d2, or auto: one in $SLURM_TMPDIR, else in $TMPDIR "
        "(default: no copy)",
    )


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("names no folder (an empty variable?)")  # Path("") is the current folder
    return Path(text)


def local_folder(folder: Path, roots: Sequence[Path]) -> Path:
    """Where copies of the processed roots go: for `auto` a folder of the job's disk that no other user or set has.

    UserError: no variable names that disk.
    """
    if folder != AUTO:
        return folder
    disk = next((os.environ[name] for name in DISKS if os.environ.get(name)), None)
    if disk is None:
        raise UserError(f"--stage-to auto: neither {' nor '.join(DISKS)} is set here; name a folder of a local disk")
    sets = hashlib.sha256("\n".join(str(root.resolve()) for root in roots).encode()).hexdigest()[:8]
    return Path(disk) / f"a2d2-{os.getuid()}-{sets}"


def copied_bytes(roots: Sequence[ProcessedData]) -> int:
    """What copies of these roots take."""
    return sum(stamp.size for root in roots for stamp in root.needed().values())


def stage(processed: ProcessedData, folder: Path) -> ProcessedData:
    """Make `folder` a copy of the processed set, copying only what is new or changed; returns the copy."""
    copy = ProcessedData(folder)
    if copy.root.resolve().is_relative_to(processed.root.resolve()):
        raise UserError(f"--stage-to: {folder} lies in the processed set itself; name a folder on a node-local disk")
    needed = processed.needed()
    if not needed:
        raise UserError(f"--stage-to: nothing to copy below {processed.root}; run the preprocessing scripts first")
    try:
        with locked(copy.lock_path):
            _claim(copy, processed.root.resolve())
            _bring_up_to_date(copy, processed, needed)
    except OSError as error:
        raise UserError(f"--stage-to: can't copy {processed.root} to {folder}: {error}") from None
    return copy


def _claim(copy: ProcessedData, origin: Path) -> None:
    """UserError where the folder holds files that are no copy of this set: bringing it up to date removes some."""
    if copy.origin_path.exists():
        found = read_json(copy.origin_path)
        if found != {"processed_root": str(origin)}:
            raise UserError(f"--stage-to: {copy.root} is a copy of another set: {found}; name another folder")
    elif any(not name.startswith(".") for name in sorted_names(copy.root)):  # hidden: the lock, a start that was killed
        raise UserError(f"--stage-to: {copy.root} holds files that are no copy of {origin}; name an empty folder")
    else:
        write_json(copy.origin_path, {"processed_root": str(origin)})


def _bring_up_to_date(copy: ProcessedData, processed: ProcessedData, needed: Mapping[Path, Stamp]) -> None:
    for kind in (PACKED, *copy.folders()):
        copy.remove_abandoned(kind)
    there = copy.stored()
    for path in set(there) - set(needed):  # such as a loose file that has since been packed: it would win over its pack
        copy.stored_path(path).unlink()
    missing = {path: stamp for path, stamp in needed.items() if there.get(path) != stamp}
    if not missing:
        return
    size = sum(stamp.size for stamp in missing.values())
    print(f"--stage-to: {size / GB:.2f} GB to copy to {copy.root}", flush=True)
    check_free_disk(copy.root, size)
    for _ in progress(_megabytes(_copy(processed, copy, missing)), size // MB, f"MB to {copy.root}", size=int):
        pass
    print(f"{copy.root}: {len(missing)} files copied, {len(needed) - len(missing)} already there", flush=True)


def _copy(processed: ProcessedData, copy: ProcessedData, files: Mapping[Path, Stamp]) -> Iterator[int]:
    """Copy the files with their times; yields the bytes of each piece."""
    for path, stamp in files.items():
        source = processed.stored_path(path)
        with open(source, "rb", buffering=0) as original, whole_file(copy.stored_path(path)) as file:
            while piece := original.read(PIECE):
                file.write(piece)
                yield len(piece)
            file.flush()  # a later write would change the time
            os.utime(file.fileno(), ns=(stamp.mtime_ns, stamp.mtime_ns))
            if Stamp.of(os.fstat(original.fileno())) != stamp or file.tell() != stamp.size:
                raise UserError(f"--stage-to: {source} changed while it was copied; start again")
            if path.parent.name == PACKED and (pack := processed.pack(path.stem)):
                _check_pack(pack, Path(file.name))


def _check_pack(pack: Pack, copied: Path) -> None:
    """UserError where the copy's files are not those that were packed."""
    if name := next(pack.damaged(copied), None):
        raise UserError(f"--stage-to: {name} in {pack.path} is damaged; {pack.advice}")


def _megabytes(pieces: Iterator[int]) -> Iterator[int]:
    """Bytes of each piece -> whole megabytes that it completes."""
    done = 0
    for size in pieces:
        before, done = done // MB, done + size
        yield done // MB - before
