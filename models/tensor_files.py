"""Files of tensors, read with their checksums compared and without running code that lies in them."""

import zipfile
from pathlib import Path
from typing import Any

import torch

ARCHIVE = b"PK\x03\x04"  # how a file begins that torch 1.6 or newer has written


def read_tensors(path: Path) -> Any:
    """What torch.save has written, onto the CPU, its checksums compared: torch itself doesn't look at them.

    No code in it is run. ValueError: it is no whole file; and what torch raises.
    """
    if not path.is_file():  # opening a named pipe would wait for ever
        raise ValueError("no file")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):  # torch compresses nothing
            raise ValueError("compressed entries")
        if damaged := archive.testzip():
            raise ValueError(f"damaged: {damaged} in it is not what was written")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_published(path: Path) -> Any:
    """The same of a file that others may have written, also in torch's older form, which carries no checksums."""
    if path.is_file():
        with open(path, "rb") as file:
            begins = file.read(len(ARCHIVE))
        if begins != ARCHIVE:
            return torch.load(path, map_location="cpu", weights_only=True)
    return read_tensors(path)
