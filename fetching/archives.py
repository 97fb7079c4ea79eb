"""Unpack a tar archive into an empty folder: plain files and folders only. Needs nothing but Python.

    python -m fetching.archives FILE FOLDER [--without cam_rear_center ...] [--scenes 20180807_145028 ...]

FILE `-` is standard input, read to its end. Exit code 1: the archive holds what A2D2's do not (a link, a device, a
FIFO, a set-uid file, a name outside the folder), and the folder is of no use; 4: it is no whole tar archive.
"""

import argparse
import re
import stat
import sys
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

CHUNK_BYTES = 1 << 20
REFUSED, NO_ARCHIVE = 1, 4  # exit codes

_SCENE = re.compile(r"\d{8}_\d{6}")


class RefusedError(Exception):
    """A member that no archive of A2D2 has."""


def unpack(source: Path | None, folder: Path, without: Collection[str], scenes: Collection[str] | None) -> None:
    """Unpack a file (None: standard input) but for the folders `without`, and only these scenes.

    RefusedError: a member is not plain; tarfile.ReadError: no whole archive. What was unpacked before stays.
    """
    if source is None:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
            _extract(archive, folder, without, scenes)
        while sys.stdin.buffer.read(CHUNK_BYTES):  # else the sender breaks off
            pass
        return
    with tarfile.open(source, "r:") as archive:
        _extract(archive, folder, without, scenes)


def _extract(archive: tarfile.TarFile, folder: Path, without: Collection[str], scenes: Collection[str] | None) -> None:
    for member in archive:
        check(member)
        parts = PurePosixPath(member.name).parts
        scene = next((part for part in parts if _SCENE.fullmatch(part)), None)
        if set(parts).isdisjoint(without) and (scenes is None or scene is None or scene in scenes):
            archive.extract(member, folder, filter="data")


def check(member: tarfile.TarInfo) -> None:
    """RefusedError unless it is a plain file or folder below the archive's own."""
    name = member.name
    if name.startswith("/") or ".." in name.split("/"):
        raise RefusedError(f"a member outside its folder, {name!r}")
    if not name.isprintable():
        raise RefusedError(f"a name that is no plain text, {name!r}")
    if member.issym() or member.islnk():
        raise RefusedError(f"links, which A2D2 does not have: {name!r}")
    if not (member.isreg() or member.isdir()):
        raise RefusedError(f"something that is no plain file or folder, {name!r}")
    if member.isreg() and member.mode & (stat.S_ISUID | stat.S_ISGID):
        raise RefusedError(f"a file that would run as somebody else, {name!r}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fetching.archives", description="Unpack plain files and folders.")
    parser.add_argument("file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="folders that are left out")
    parser.add_argument("--scenes", nargs="+", metavar="SCENE", help="only these scenes")
    args = parser.parse_args(argv)
    if not hasattr(tarfile, "data_filter"):
        print(f"error: {sys.executable} can't unpack safely; Python 3.11.4 or newer can", file=sys.stderr)
        return REFUSED
    try:
        source = None if args.file == "-" else Path(args.file)
        unpack(source, args.folder, set(args.without), args.scenes and set(args.scenes))
    except (RefusedError, tarfile.FilterError) as error:
        print(f"error: the archive has {error}; nothing was taken from it", file=sys.stderr)
        return REFUSED
    except tarfile.TarError as error:
        print(f"{args.file} can't be read as a tar archive: {error}", file=sys.stderr)
        return NO_ARCHIVE
    except OSError as error:
        print(f"error: can't unpack into {args.folder}: {error.strerror}", file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
