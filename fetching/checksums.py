"""Checksums: of a file while it is written, and those of a CHECKSUMS.txt (`sum  path`, its lines parsed as data)."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

ALGORITHM_OF_LENGTH = {32: "md5", 40: "sha1", 64: "sha256"}
LONGEST_LINE = 4096  # bytes: a line without end must not fill the memory

_LINE = re.compile(rb"(?P<sum>[0-9a-fA-F]+)[ \t]+\*?(?:\./)?(?P<path>[^\s].*)")


@dataclass(frozen=True)
class Checksum:
    """A checksum and what it is of: md5, sha1 or sha256 by its length. ValueError: no checksum."""

    digest: str  # lower-case hexadecimal digits

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]+", self.digest) or len(self.digest) not in ALGORITHM_OF_LENGTH:
            raise ValueError(f"{self.digest!r} is no md5, sha1 or sha256 checksum")

    @classmethod
    def parse(cls, text: str) -> "Checksum":
        return cls(text.lower())

    @property
    def algorithm(self) -> str:
        return ALGORITHM_OF_LENGTH[len(self.digest)]


class Digests:
    """The checksums of content that passes by, compared at its end."""

    def __init__(self, expected: Iterable[Checksum]):
        self.expected = tuple(expected)
        self._running = {checksum.algorithm: hashlib.new(checksum.algorithm) for checksum in self.expected}

    def update(self, content: bytes) -> None:
        for running in self._running.values():
            running.update(content)

    def mismatch(self) -> str | None:
        """'md5 is ... instead of ...'; None where everything fits."""
        for checksum in self.expected:
            found = self._running[checksum.algorithm].hexdigest()
            if found != checksum.digest:
                return f"{checksum.algorithm} is {found} instead of {checksum.digest}"
        return None


@dataclass
class ChecksumList:
    """What a CHECKSUMS.txt says of some keys."""

    of: dict[str, Checksum] = field(default_factory=dict)  # key -> its checksum
    unlisted: set[str] = field(default_factory=set)  # files that are asked for, but that the listing did not have
    strange: int = 0  # lines that are no `sum  path`

    @classmethod
    def read(
        cls, pieces: Iterable[bytes], keys: Collection[str], is_asked_for: Callable[[str], bool]
    ) -> "ChecksumList":
        """Keep the lines of `keys`, and note other files that are asked for; the rest of 1.4 million is passed over."""
        found = cls()
        for line in _lines(pieces):
            parsed = _parse(line)
            if parsed is None:
                found.strange += bool(line.strip())
            elif parsed[0] in keys:
                found.of[parsed[0]] = parsed[1]
            elif is_asked_for(parsed[0]):
                found.unlisted.add(parsed[0])
        return found


def _parse(line: bytes) -> tuple[str, Checksum] | None:
    match = _LINE.fullmatch(line)
    try:
        return (match["path"].decode(), Checksum.parse(match["sum"].decode())) if match else None
    except ValueError:  # not UTF-8, or not as long as a checksum
        return None


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.rstrip(b"\r") for line in whole)
        if len(rest) > LONGEST_LINE:
            yield b"?"  # counted as no checksum; what follows up to the line's end as well
            rest = b"?"
    if rest:
        yield rest.rstrip(b"\r")
