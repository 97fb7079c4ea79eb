"""One scene's labels in one uncompressed tar: few large files for file systems that are slow with many small ones.

The first member is the index, JSON: the data set, the scene, and of each kind its files, {name: [offset, size, mtime in
ns, CRC-32]}, offsets counted from the end of the index's blocks. The index's own CRC-32 stands in its name. The others
are KIND/SCENE/NAME, so that `tar xf` in the processed root gives the files back.
"""

import json
import os
import re
import stat
import tarfile
import weakref
import zlib
from collections.abc import Callable, Iterator, KeysView
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple, Self

import numpy as np
from pydantic import Field, NonNegativeInt, ValidationError

from datasets.files import read_at
from errors import UserError
from strict import DataModel

PACKED = "packed"  # the packs' folder in the processed root
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of a tar


class Stamp(NamedTuple):
    """What tells whether a file is still the same without reading it."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        return cls(status.st_size, status.st_mtime_ns)


Name = Annotated[str, Field(pattern=r"\A[^./\x00][^/\x00]*\z")]
Entry = tuple[NonNegativeInt, NonNegativeInt, int, Annotated[str, Field(pattern=r"\A[0-9a-f]{8}\z")]]


class Index(DataModel, extra="forbid"):  # not StrictModel, which looks at keys before JSON's lists become tuples
    """What stands in a pack's first member."""

    data_set: Name
    scene: Name
    files: dict[Name, Annotated[dict[Name, Entry], Field(min_length=1)]] = Field(min_length=1)

    @classmethod
    def read(cls, descriptor: int) -> tuple[Self, int]:
        """The index of an open tar and where its offsets count from. ValueError or tarfile.HeaderError: it has none."""
        file_size = os.fstat(descriptor).st_size
        header = tarfile.TarInfo.frombuf(os.pread(descriptor, BLOCK, 0), "utf-8", "strict")
        if not 0 <= header.size <= file_size:
            raise ValueError("is cut off")
        content = read_at(descriptor, header.size, BLOCK)
        checksum = re.search(r"\.index-([0-9a-f]{8})\.json$", header.name)
        if not checksum:
            raise ValueError("has no index with a checksum")
        if checksum[1] != checksum_of(content):
            raise ValueError("its index is damaged")
        index, start = cls.model_validate_json(content.tobytes()), BLOCK + _padded(header.size)
        if start + index.size() + len(END) != file_size:
            raise ValueError("is cut off, or has more files than its index")
        return index, start

    def size(self) -> int:
        """Bytes of the members, which lie one after the other. ValueError: the index says otherwise."""
        end = 0
        for offset, size, *_ in sorted(entry for names in self.files.values() for entry in names.values()):
            if offset != end + BLOCK:
                raise ValueError(f"its index has a file at {offset}, not at {end + BLOCK}")
            end = offset + _padded(size)
        return end


class Pack:
    """A scene's pack, open for reading. A fork may go on using it; a replaced or removed tar stays readable."""

    def __init__(self, path: Path, data_set: Callable[[], str], scene: str):
        """UserError: it is damaged, or not of this scene of the data set."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which does not wait at a named pipe
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self._inode = (status.st_dev, status.st_ino)
        try:
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("is no file")
            index, self._start = Index.read(self._descriptor)
        except (tarfile.HeaderError, ValueError, OSError) as error:
            why = "its index makes no sense" if isinstance(error, ValidationError) else error
            raise UserError(f"{path} is no whole pack ({why}); {self.advice}") from None
        found, wanted = f"{index.data_set}/{index.scene}", f"{data_set()}/{scene}"
        if found != wanted:
            raise UserError(f"{path} is the pack of {found}, not of {wanted}; give it its place and name back")
        self.scene, self._index = scene, index.files

    @property
    def advice(self) -> str:
        """What to do about damage: nobody knows here whether the labels are anywhere else."""
        return (
            "put a good copy in its place; or, where its loose files are still there, delete it and run "
            "preprocessing/pack.py; or unpack what can be read by 'tar xf', delete it, and make the rest again"
        )

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
        return None if entry is None else Stamp(*entry[1:3])

    def read(self, kind: str, name: str) -> np.ndarray | None:
        """The file's bytes, uint8; None where the pack does not hold it. ValueError: the tar has another file there."""
        return None if self.stamp(kind, name) is None else self._read(self._descriptor, kind, name)

    def read_checked(self, kind: str, name: str) -> np.ndarray:
        """As `read`, of a file that it holds. UserError: the bytes are not those that were packed."""
        if self._is_damaged(self._descriptor, kind, name):
            raise UserError(f"{kind}/{self.scene}/{name} in {self.path} is damaged; {self.advice}")
        return self._read(self._descriptor, kind, name)

    def damaged(self, copy: Path | None = None) -> Iterator[str]:
        """The files, as KIND/SCENE/NAME, whose bytes in the pack, or in this copy of it, are not those packed."""
        with open(copy or self.path, "rb") as file:
            for kind, name in self.files():
                if self._is_damaged(file.fileno(), kind, name):
                    yield f"{kind}/{self.scene}/{name}"

    def _is_damaged(self, descriptor: int, kind: str, name: str) -> bool:
        with suppress(ValueError):
            return checksum_of(self._read(descriptor, kind, name)) != self._index[kind][name][3]
        return True

    def _read(self, descriptor: int, kind: str, name: str) -> np.ndarray:
        """With the header that the tar has before it: one read, and no other file is taken for this one."""
        offset, size, *_ = self._index[kind][name]
        content = read_at(descriptor, BLOCK + size, self._start + offset - BLOCK)
        if _name_in(content[:BLOCK].tobytes()) != f"{kind}/{self.scene}/{name}".encode():
            raise ValueError(f"{self.path} has another file where its index has {kind}/{self.scene}/{name}")
        return content[BLOCK:]


def checksum_of(content: np.ndarray) -> str:
    """CRC-32, as the index holds it."""
    return f"{zlib.crc32(content.data):08x}"


def _name_in(header: bytes) -> bytes:
    """The name of a member, as its header has it."""
    name, prefix = (part.partition(b"\0")[0] for part in (header[:100], header[345:500]))
    return prefix + b"/" + name if prefix else name


@dataclass(frozen=True)
class Source:
    """A file to pack."""

    kind: str
    name: str
    stamp: Stamp
    read: Callable[[], np.ndarray | None]


def write_pack(file: BinaryIO, data_set: str, scene: str, sources: list[Source]) -> Iterator[Source]:
    """Write a pack; yields each source when it is written. file: its beginning is written last, with the checksums."""
    index: dict[str, dict[str, list[int | str]]] = {}
    end = 0
    for source in sources:
        index.setdefault(source.kind, {})[source.name] = [
            end + BLOCK,
            *source.stamp,
            checksum_of(np.empty(0, np.uint8)),
        ]
        end += BLOCK + _padded(source.stamp.size)
    newest = max(source.stamp.mtime_ns for source in sources)

    def index_bytes() -> np.ndarray:  # as long before the checksums are known
        content = json.dumps({"data_set": data_set, "scene": scene, "files": index}, separators=(",", ":")).encode()
        return np.frombuffer(content, np.uint8)

    file.seek(BLOCK + _padded(len(index_bytes())))
    for source in sources:
        name = f"{source.kind}/{scene}/{source.name}"
        content = source.read()
        if content is None or len(content) != source.stamp.size:
            raise UserError(f"{name} changed while it was packed; run again when nothing else writes there")
        index[source.kind][source.name][-1] = checksum_of(content)
        _write_member(file, name, content, source.stamp.mtime_ns)
        yield source
    file.write(END)
    file.seek(0)
    content = index_bytes()
    _write_member(file, f"{PACKED}/{scene}.index-{checksum_of(content)}.json", content, newest)


def _write_member(file: BinaryIO, name: str, content: np.ndarray, mtime_ns: int) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mtime = len(content), mtime_ns // 10**9
    file.write(header.tobuf(tarfile.USTAR_FORMAT))
    file.write(content.data)
    file.write(bytes(_padded(len(content)) - len(content)))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
