"""Checksum files are parsed as data, line by line, whatever stands in them."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetching.checksums import LONGEST_LINE, Checksum, ChecksumList, Digests

KEYS = {"a/b c.png", "d.npz"}
SUMS = {name: hashlib.new(name, b"content").hexdigest() for name in ("md5", "sha1", "sha256")}


def read(*pieces: bytes) -> ChecksumList:
    return ChecksumList.read(pieces, KEYS, lambda key: key.startswith("a/"))


@pytest.mark.parametrize("name", SUMS)
def test_the_length_tells_the_kind(name: str) -> None:
    assert Checksum.parse(SUMS[name].upper()) == Checksum(SUMS[name])
    assert Checksum(SUMS[name]).algorithm == name


@pytest.mark.parametrize("text", ["", "c", "0" * 31, "0" * 33, "0" * 63, "g" * 32, "0" * 128, "$(id)", "0" * 31 + "\n"])
def test_what_is_no_checksum(text: str) -> None:
    with pytest.raises(ValueError, match="is no md5, sha1 or sha256 checksum"):
        Checksum.parse(text)


def test_lines_of_all_kinds() -> None:
    found = read(
        f"{SUMS['md5']}  a/b c.png\r\n{SUMS['sha256']} *./d.npz\n".encode(),
        f"{SUMS['sha1']}  a/unlisted.png\n{SUMS['sha1']}  other\n\n".encode(),
    )
    assert found.of == {"a/b c.png": Checksum(SUMS["md5"]), "d.npz": Checksum(SUMS["sha256"])}
    assert found.unlisted == {"a/unlisted.png"}
    assert found.strange == 0


def test_strange_lines_are_counted() -> None:
    found = read(
        b'1;system("id")  d.npz\n' + b"\xff\xfe\n" + b"0" * 33 + b"  d.npz\n<html>\n" + b"0" * 32 + b"  \xff\n"
    )
    assert not found.of
    assert found.strange == 5


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    pieces = [b"x" * LONGEST_LINE] * 50 + [f"\n{SUMS['md5']}  d.npz".encode()]
    found = read(*pieces)
    assert found.of == {"d.npz": Checksum(SUMS["md5"])}
    assert found.strange


@given(st.binary(max_size=200))
def test_no_content_raises(content: bytes) -> None:
    assert set(read(content).of) <= KEYS


@given(st.lists(st.integers(0, 120), max_size=5))
def test_where_the_pieces_end_makes_no_difference(cuts: list[int]) -> None:
    content = f"{SUMS['md5']}  a/b c.png\n{SUMS['sha1']}  d.npz\n".encode()
    ends = [0, *sorted(cuts), len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(ends)]
    assert read(*pieces) == read(content)


def test_digests_tell_what_differs() -> None:
    digests = Digests([Checksum(SUMS["md5"]), Checksum(SUMS["sha256"])])
    digests.update(b"cont")
    digests.update(b"ent")
    assert digests.mismatch() is None
    digests.update(b"!")
    assert digests.mismatch().startswith("md5 is ")
