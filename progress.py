"""Progress of long work: a tqdm bar on a terminal, else a plain line every 30 seconds (job logs)."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30

Item = TypeVar("Item")

_silent = False


def silence() -> None:
    """No more bars in this process: another one shows them."""
    global _silent
    _silent = True


def progress(
    items: Iterable[Item],
    total: int,
    name: str,
    note: Callable[[], str] = str,
    size: Callable[[Item], int] = lambda _: 1,
    in_bytes: bool = False,
) -> Iterator[Item]:
    """Pass the items on and show how many of `total` are done. `note`: text to show beside; `size`: units an item.

    `in_bytes`: the units are bytes, shown as MB and GB.
    """
    shown = tqdm.format_sizeof if in_bytes else str
    units = {"unit": "B", "unit_scale": True} if in_bytes else {}
    start = last = time.monotonic()
    done = 0
    with tqdm(total=total, desc=name, disable=_silent or not sys.stderr.isatty(), **units) as bar:
        for item in items:
            yield item
            done += size(item)
            bar.update(size(item))
            bar.set_postfix_str(note(), refresh=False)
            now = time.monotonic()
            if bar.disable and now - last >= SECONDS_BETWEEN_LINES:
                last = now
                speed = done / (now - start)
                rate = f"{shown(speed)}B" if in_bytes else f"{speed:.1f}"
                print(f"{name}: {shown(done)}/{shown(total)}, {rate}/s {note()}".rstrip(), flush=True)


def warn(text: str) -> None:
    """One line on stderr that does not break a bar."""
    tqdm.write(text, file=sys.stderr)
