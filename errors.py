"""The one exception for mistakes that the user can mend, and the entry point that shows it without a traceback."""

import errno
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress

import signals

# torch's words: the first from its handler of SIGCHLD, whatever the training process is doing; the second where it
# waits for a batch
_LOADER_DIED = re.compile(r"DataLoader worker \(pid.+?\) (is killed by signal: [^.]+|exited unexpectedly[^.]*)")
# what reading from such a process raises, where that comes first
_BROKEN = (ConnectionError, EOFError, FileNotFoundError)
# of torch, on a GPU and on the CPU
_NO_MEMORY = re.compile(
    r"out of memory.*? tried to allocate ([\d.]+ \w+)|can't allocate memory: .*?allocate (\d+ \w+)", re.I
)
_LOOP = "Symlink loop from"  # of Path.resolve, up to Python 3.12
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PATIENCE = 5  # seconds
_LONGEST = 2000  # characters of a message


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong with which file or key, and what to do."""


def reason_of(error: Exception) -> str:
    """One line: the message of our own ValueErrors, the type as well for everything else."""
    text = " ".join(str(error).split())
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}"


def run_as_script(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its status; what the user can mend becomes one line on stderr and exit code 2.

    No loader process outlives it, and a signal that ends it is one line as well.
    """
    sys.unraisablehook = _ignore_death_of_a_loader
    try:
        signals.raise_for_signals()
        try:
            sys.exit(main() or 0)
        except (ConnectionError, EOFError):
            # the connection to a loader process breaks a moment before torch's handler can tell that it was killed
            time.sleep(_PATIENCE)
            raise
    except BaseException as error:
        signals.ignore_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises again for each one that is killed
        killed = _kill_loaders()
        status = _show(error)
        if killed or isinstance(error, KeyboardInterrupt | signals.Ended):  # who interrupts does not wait
            _end_at_once(error, status)
        if status is None:
            raise
        sys.exit(status)


def _show(error: BaseException) -> int | None:
    """Print one line and give an exit status for what is no bug; None for what Python itself shows best."""
    if isinstance(error, UserError):
        line, status = f"error: {error}", 2
    elif ended := next((cause for cause in chain(error) if isinstance(cause, signals.Ended)), None):
        line, status = str(ended), signals.exit_code(ended)
    elif any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
        # not always the last error: interrupted in the midst of a file, torch's writer adds one of its own
        line, status = "interrupted", 130
    elif full := next((cause for cause in chain(error) if isinstance(cause, OSError) and cause.errno in _FULL), None):
        line, status = f"error: can't write {full.filename or 'a file'}: {full.strerror}", 2
    elif asked := _memory_asked_for(error):
        line = (
            f"error: not enough memory: {asked} more were asked for; set a smaller micro_batch_size (of evaluate.py "
            "--batch-size) or data.size; python -m benchmarks.memory estimates what a config takes"
        )
        status = 2
    elif death := _death_of_a_loader(error):
        line = (
            f"error: a loader process was killed, out of memory? ({death}); use fewer of them (data.workers, "
            "--workers) or get more memory; a training run goes on with --resume auto"
        )
        status = 2
    elif isinstance(error, RuntimeError) and str(error).startswith(_LOOP):
        line, status = f"error: {error}: the path is a link that leads to itself; name another", 2
    elif isinstance(error, OSError) and error.filename is not None:
        line, status = f"error: {error.filename}: {error.strerror}", 2
    elif isinstance(error, MemoryError):
        line, status = f"error: not enough memory ({error}); ask for smaller sizes or fewer processes", 2
    else:
        return None
    print(one_line(line), file=sys.stderr)
    return status


def one_line(text: str) -> str:
    """With control characters made visible, which a value from the command line may have, and cut where it is long."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown}..."


def _ignore_death_of_a_loader(ignored: "sys.UnraisableHookArgs") -> None:
    """torch's handler raises wherever the script is: in a finaliser, which can't raise, the loss is noticed later."""
    if not _LOADER_DIED.match(str(ignored.exc_value)):
        sys.__unraisablehook__(ignored)


def _death_of_a_loader(error: BaseException) -> str | None:
    """What torch says of a loader process that ended by itself, from the deepest error: it names the signal."""
    found = [match[0] for cause in chain(error) if (match := _LOADER_DIED.match(str(cause)))]
    if not found and isinstance(error, _BROKEN) and _is_of_multiprocessing(error):
        return "its connection broke"
    return found[-1] if found else None


def _is_of_multiprocessing(error: BaseException) -> bool:
    files = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return any(f"{os.sep}multiprocessing{os.sep}" in file for file in files)


def _memory_asked_for(error: BaseException) -> str | None:
    """How much memory torch could not have; None: that is not what is wrong."""
    match = _NO_MEMORY.search(" ".join(str(error).split()))
    return match and (match[1] or match[2])


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kill_loaders() -> bool:
    """Kill the daemonic children that are left: loader processes, which hold nothing that must be saved. Any there?

    multiprocessing would send them SIGTERM, which they ignore, and wait for them for ever.
    """
    children = [child for child in multiprocessing.active_children() if child.daemon]
    for child in children:
        child.kill()
    for child in children:
        child.join(timeout=1)  # one that waits for a dead file system ends when it can
    return bool(children)


def _end_at_once(error: BaseException, status: int | None) -> None:
    """End without what runs at exit: torch's part of it may wait for a lock that a killed process has taken along."""
    if status is None and isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif status is None:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)
