"""Reading and writing files: whole or not at all, without pickle, one process at a time where that matters."""

import fcntl
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from errors import UserError

NPY_HEADER = 4096  # bytes, more than the header of any label's .npy file takes
_TEMPORARY = re.compile(r"\..+\.tmp-(?P<host>[^/]+)-(?P<pid>\d+)-[0-9a-f]{8}")


# ---- folders --------------------------------------------------------------------------------------------------


def sorted_names(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where the folder does not exist. One scandir, no stat per file."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_abandoned_in(folder: Path) -> None:
    """Remove the temporary files whose writer was killed (known only for this machine's own processes)."""
    for name in sorted_names(folder):
        if is_abandoned(name):
            (folder / name).unlink(missing_ok=True)


# ---- reading files whole --------------------------------------------------------------------------------------


def read_at(descriptor: int, size: int, offset: int) -> np.ndarray:
    """uint8, writable, straight from an open file without moving its position. ValueError: the file ends before."""
    content = np.empty(size, np.uint8)
    if os.preadv(descriptor, [content], offset) != size:
        raise ValueError("is cut off")
    return content


def read_whole(path: Path) -> np.ndarray:
    """A file's bytes, uint8, writable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_at(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def npy_array(content: np.ndarray) -> np.ndarray:
    """The array of a .npy file's bytes, without copying them. ValueError: broken, or something that needs pickle."""
    header = io.BytesIO(content[:NPY_HEADER])
    version = np.lib.format.read_magic(header)
    if version != (1, 0):
        raise ValueError(f"version {version}, not (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    start, needed = header.tell(), dtype.itemsize * math.prod(shape)
    if len(content) - start < needed:
        raise ValueError(f"{len(content) - start} bytes of data, not {needed}")
    return np.ndarray(shape, dtype, content, start, order="F" if fortran_order else "C")


# ---- files that appear whole or not at all ------------------------------------------------------------------


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends well, else remove it.

    `durable` waits until the bytes are on the disk before the rename (checkpoints; too slow for 60,000 labels).
    """
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON by `whole_file`."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=indent) + "\n").encode())


def write_json_once(path: Path, content: Any) -> None:
    """Write JSON unless the file exists; of several processes that do so at once, exactly one succeeds."""
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    try:
        os.link(temporary, path)  # unlike a rename, it fails where the file exists
    except FileExistsError:
        pass  # another process was first: the caller reads what stands there
    finally:
        temporary.unlink()


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock file's lock, which ends with the process at the latest. UserError if another has it and not `wait`.

    A file system without locks only costs a warning: files still appear whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise UserError(f"{path} is locked: another process is at work there") from None
            print(f"another process is at work in {path.parent}: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"warning: {path} can't be locked ({error.strerror}): run one process only", file=sys.stderr)
        yield


def put_aside(path: Path) -> Path:
    """Rename a file to the first free name of NAME.aside, NAME.aside-2, ...; returns it. Nothing is deleted."""
    number = 1
    while (aside := path.with_name(f"{path.name}.aside" + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    return path.rename(aside)


def check_free_disk(folder: Path, needed: int) -> None:
    """UserError unless the folder's file system has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed")


def read_json(path: Path) -> Any:
    """Read a JSON file that this project or the user wrote; a broken one is the user's to mend."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}") from None


def temporary_path(path: Path) -> Path:
    """A name beside `path` that `is_abandoned` knows, in a folder that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def is_abandoned(name: str) -> bool:
    """Whether the name is a temporary file's whose process, on this machine, has ended."""
    match = _TEMPORARY.fullmatch(name)
    return bool(match) and match["host"] == socket.gethostname() and start_of(int(match["pid"])) is None


def start_of(pid: int) -> str | None:
    """When a process of this machine began, to tell it from a later one of the same number; None: none lives.

    A zombie (dead, but nobody has asked for its exit status) does not live. "": not on Linux.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it belongs to somebody else
    except (ProcessLookupError, OverflowError):
        return None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if state == "Z" else fields[18]
