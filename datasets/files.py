"""Reading and writing files: whole or not at all, without pickle, one process at a time where that matters."""

import errno
import fcntl
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from errors import UserError

NPY_HEADER = 4096  # bytes, more than the header of any label's .npy file takes
MAX_ARRAY = 1 << 30  # bytes: 80 times a full-size camera image
# numpy lets Python's parser read a header, which before 3.11.8 and 3.12.2 fails in several threads at once
# (github.com/python/cpython/issues/106905): a whole file would count as broken
_parsing = threading.Lock()
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
    if os.preadv(descriptor, [content.data], offset) != size:
        raise ValueError("is cut off")
    return content


def open_regular(path: Path) -> int:
    """A descriptor for reading. OSError: a folder, a pipe or a device (which may never end) as well."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a folder, pipe or device, not a file", str(path))
    return descriptor


def read_bytes(path: Path) -> bytes:
    """A file's bytes."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def read_whole(path: Path) -> np.ndarray:
    """A file's bytes, uint8, writable."""
    descriptor = open_regular(path)
    try:
        return read_at(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


class NpyHeader(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    start: int  # of the data


def npy_header(content: np.ndarray | bytes) -> NpyHeader:
    """From a .npy file's first NPY_HEADER bytes. ValueError: broken, or something that needs pickle."""
    header = io.BytesIO(bytes(content[:NPY_HEADER]))
    try:
        version = np.lib.format.read_magic(header)
        if version != (1, 0):
            raise ValueError(f"version {version}, not (1, 0)")
        with _parsing:
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
    except ValueError:
        raise
    except Exception as error:  # numpy lets Python's parser read it, which has errors of its own
        raise ValueError(f"its header: {error}") from None
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    if not all(0 <= length <= MAX_ARRAY for length in shape) or dtype.itemsize * math.prod(shape) > MAX_ARRAY:
        raise ValueError(f"shape {shape}; at most {MAX_ARRAY:,} bytes are read")
    return NpyHeader(shape, dtype, "F" if fortran_order else "C", header.tell())


def npy_array(content: np.ndarray) -> np.ndarray:
    """The array of a .npy file's bytes, without copying them. ValueError: broken, or something that needs pickle."""
    shape, dtype, order, start = npy_header(content)
    needed = dtype.itemsize * math.prod(shape)
    if len(content) - start < needed:
        raise ValueError(f"{len(content) - start} bytes of data, not {needed}")
    return np.ndarray(shape, dtype, content, start, order=order)


def npz_arrays(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Each array of a .npz file by its name, as a call that reads it and checks its CRC.

    ValueError: no such file; of the calls: broken, unpacks to more than MAX_ARRAY, or something that needs pickle.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(read_bytes(path)))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"not a whole .npz file: {error}") from None
    return {info.filename.removesuffix(".npy"): partial(_npz_array, archive, info) for info in archive.infolist()}


def _npz_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > MAX_ARRAY:
        raise ValueError(f"{info.filename} unpacks to {info.file_size:,} bytes; at most {MAX_ARRAY:,} are read")
    try:
        return npy_array(np.frombuffer(archive.read(info), np.uint8))
    except Exception as error:  # of the archive, of what packed it, or of the array in it
        raise ValueError(f"{info.filename}: {error or type(error).__name__}") from None


# ---- files that appear whole or not at all ------------------------------------------------------------------


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends well, else remove it.

    `durable` waits until the bytes are on the disk before the rename (checkpoints; too slow for 60,000 labels).
    OSError: it can't be written; it names `path`, whatever the library that wrote did say.
    """
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename not in (None, str(temporary)):
            raise  # something else that could not be read meanwhile
        why = error.strerror or f"only part of it was written, no space left? ({error})"
        raise OSError(error.errno or errno.EIO, why, str(path)) from error
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
def locked(path: Path) -> Iterator[int]:
    """Wait for a lock file's lock and hold it; it ends with the process at the latest.

    For processes of one machine that take turns; `datasets.locks.Lock` refuses instead, on every file system. Gives the
    file's descriptor: a child that inherits it holds the lock as well.

    A file system without locks only costs a warning: files still appear whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is at work in {path.parent}: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"warning: {path} can't be locked ({error.strerror}): run one process only", file=sys.stderr)
        yield file.fileno()


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
        return parse_json(read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} can't be read as JSON: {getattr(error, 'strerror', None) or error}") from None


def parse_json(content: bytes | str) -> Any:
    """What a JSON text says; numbers may be infinite or NaN. ValueError: it is none, nested too deep, or says a key
    twice."""
    try:
        return json.loads(content, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return content


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """UserError, before any work, where a file at `path` can't be made, or is one of those that the work reads.

    What is there and is no file stays: a rename would put a file in the place of a pipe, a device or a broken link.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not path.is_file():
        raise UserError(f"{path} is a pipe, a device or a link that leads nowhere, not a file; name another one")
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise UserError(f"{path} is read from, and would be written over; name another file to write")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{path} can't be written: {above} is not a folder that you may write to")


def temporary_path(path: Path) -> Path:
    """A name beside `path` that `is_abandoned` knows, in a folder that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def is_abandoned(name: str) -> bool:
    """Whether the name is a temporary file's whose process, on this machine, has ended."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and match["host"] == socket.gethostname() and start_of(int(match["pid"])) is None


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
