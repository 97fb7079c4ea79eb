"""How every script takes signals: one that ends it is an exception, so that files, locks and children are not left.

Imported before anything large: while a script imports, there is nothing to clean up, and it ends at once.
"""

import multiprocessing
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_HANGUP = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)  # nohup: it goes on
# of schedulers and of a terminal that goes away; SIGINT is a person's
ENDING: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGUSR1, *_HANGUP)
FOLDERS = (Path(__file__).resolve().parent, Path(__file__).resolve().parent / "preprocessing")  # of the scripts
# multiprocessing's tracker of resources removes the semaphores that a script's sudden end leaves; that it says so in
# two more lines helps nobody
QUIET_TRACKER = "ignore:resource_tracker:UserWarning"

_when_ended: Callable[[], None] | None = None


class Ended(BaseException):
    """One of the signals came: the script ends, whatever it does."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"ended by {signal.Signals(number).name}")


def raise_for_signals() -> None:
    """From now on a person's Ctrl-C raises KeyboardInterrupt, the others raise Ended."""
    filters = [part for part in os.environ.get("PYTHONWARNINGS", "").split(",") if part]
    os.environ["PYTHONWARNINGS"] = ",".join(dict.fromkeys([*filters, QUIET_TRACKER]))  # of the processes started later
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDING:
        signal.signal(number, _raise_ended)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """While a script imports within `main`: an exception could get lost in the midst of a library's import."""
    before = {number: signal.signal(number, _end_at_once) for number in (signal.SIGINT, *ENDING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """While the script ends, or in a process that another one ends."""
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)


def when_ended(call: Callable[[], None] | None) -> None:
    """What is to be done before a signal (no Ctrl-C) ends the script, which has then ended well. None: nothing."""
    global _when_ended
    _when_ended = call


def exit_code(error: Ended) -> int:
    """Does what `when_ended` was given."""
    if _when_ended is None:
        return 128 + error.number
    _when_ended()
    return 0


def leave_terminal() -> None:
    """What is still printed to a terminal that has gone away is lost, where it would be an error."""
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _raise_ended(number: int, stack: FrameType | None) -> None:
    leave_terminal()
    raise Ended(number)


def _end_at_once(number: int, stack: FrameType | None) -> None:
    leave_terminal()
    if multiprocessing.parent_process() is None:  # which speaks for all
        os.write(2, b"interrupted\n" if number == signal.SIGINT else f"{Ended(number)}\n".encode())
    os._exit(128 + number)


def _is_script() -> bool:
    path = getattr(sys.modules["__main__"], "__file__", None)
    return path is not None and Path(path).resolve().parent in FOLDERS


if _is_script():
    for ending in (signal.SIGINT, *ENDING):
        signal.signal(ending, _end_at_once)
