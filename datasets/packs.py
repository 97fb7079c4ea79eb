"""One scene's labels in one uncompressed tar: few large files for file systems that are slow with many small ones.

The first member is the index, JSON: {kind: {file's name: [offset, size, mtime in ns]}}, offsets counted from the end
of the index's blocks. The others are KIND/SCENE/NAME, so that `tar xf` in the processed root gives the files back.
"""

import json
import os
import tarfile
import weakref
from collections.abc import Callable, Iterator, KeysView
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from datasets.files import read_at
from errors import UserError

PACKED = "packed"  # the packs' folder in the processed root
BLOCK = tarfile.BLOCKSIZE


class Stamp(NamedTuple):
    """What tells whether a file is still the same without reading it."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        return cls(status.st_size, status.st_mtime_ns)


class Pack:
    """A scene's pack, open for reading. A fork may go on using it; a replaced or removed tar stays readable."""

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self._inode = (status.st_dev, status.st_ino)
        try:
            self._index, self._start = _read_index(self._descriptor, status.st_size)
        except (tarfile.HeaderError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no whole pack ({error}); delete it and run preprocessing/pack.py") from None

    def is_replaced(self) -> bool:
        """Whether another file (or none) has its path by now."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._inode

    def names(self, kind: str) -> KeysView[str]:
        """Names of the kind's files."""
        return self._index.get(kind, {}).keys()

    def files(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every file."""
        return ((kind, name) for kind, names in self._index.items() for name in names)

    def stamp(self, kind: str, name: str) -> Stamp | None:
        """The size and time that the file had when it was packed; None where the pack does not hold it."""
        entry = self._index.get(kind, {}).get(name)
        return None if entry is None else Stamp(*entry[1:])

    def read(self, kind: str, name: str) -> np.ndarray | None:
        """The file's bytes, uint8; None where the pack does not hold it."""
        entry = self._index.get(kind, {}).get(name)
        return None if entry is None else read_at(self._descriptor, entry[1], self._start + entry[0])


def _read_index(descriptor: int, file_size: int) -> tuple[dict[str, dict[str, tuple[int, int, int]]], int]:
    """The index and where the offsets count from."""
    header = tarfile.TarInfo.frombuf(os.pread(descriptor, BLOCK, 0), "ascii", "strict")
    content = json.loads(read_at(descriptor, header.size, BLOCK).tobytes())
    start = BLOCK + _padded(header.size)
    index = {}
    for kind, entries in content.items():
        index[kind] = {name: (offset, size, mtime_ns) for name, (offset, size, mtime_ns) in entries.items()}
        if any(start + offset + size > file_size for offset, size, _ in index[kind].values()):
            raise ValueError("is cut off")
    return index, start


@dataclass(frozen=True)
class Source:
    """A file to pack."""

    kind: str
    name: str
    stamp: Stamp
    read: Callable[[], np.ndarray | None]


def write_pack(file: BinaryIO, scene: str, sources: list[Source]) -> Iterator[Source]:
    """Write a pack; yields each source when it is written."""
    index: dict[str, dict[str, list[int]]] = {}
    end = 0
    for source in sources:
        index.setdefault(source.kind, {})[source.name] = [end + BLOCK, *source.stamp]
        end += BLOCK + _padded(source.stamp.size)
    newest = max(source.stamp.mtime_ns for source in sources)
    index_bytes = json.dumps(index, separators=(",", ":")).encode()
    _write_member(file, f"{PACKED}/{scene}.index.json", np.frombuffer(index_bytes, np.uint8), newest)
    for source in sources:
        name = f"{source.kind}/{scene}/{source.name}"
        content = source.read()
        if content is None or len(content) != source.stamp.size:
            raise UserError(f"{name} changed while it was packed; run again when nothing else writes there")
        _write_member(file, name, content, source.stamp.mtime_ns)
        yield source
    file.write(bytes(2 * BLOCK))  # the end of a tar


def _write_member(file: BinaryIO, name: str, content: np.ndarray, mtime_ns: int) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mtime = len(content), mtime_ns // 10**9
    file.write(header.tobuf(tarfile.USTAR_FORMAT))
    file.write(content.data)
    file.write(bytes(_padded(len(content)) - len(content)))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
