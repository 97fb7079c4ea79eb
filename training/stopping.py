"""What asks a training to stop before its end: signals, Ctrl-C, a file."""

import math
import os
import signal
import time
from typing import Any, Self

import signals
from training import distributed


class StopFlag:
    """Raised by SIGTERM, SIGUSR1 and SIGHUP, by Ctrl-C, and by the file that A2D2_STOP_FILE names: finish the block in
    hand, save, leave. A second Ctrl-C ends at once.

    Handlers do little more than set a flag, within a `with` block. The file is for batch scripts, whose signals don't
    reach the processes that torchrun starts.
    """

    def __init__(self) -> None:
        self._signalled, self._pressed, self._pid = False, math.inf, os.getpid()
        self._file = os.environ.get("A2D2_STOP_FILE")
        # torchrun passes on the Ctrl-C that its processes have got from the terminal already
        self._patience = 1.0 if distributed.processes() > 1 else 0.0

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, *signals.ENDING)
        self._before = {number: signal.signal(number, self._raise) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, stack: Any) -> None:
        if os.getpid() != self._pid:  # a loader process that has just begun
            return
        self._signalled = True
        signals.leave_terminal()
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if now - self._pressed > self._patience:
            raise KeyboardInterrupt
        first, self._pressed = not self.by_person, min(self._pressed, now)  # before the line that invites a second one
        if first and distributed.is_main():
            os.write(2, b"interrupted: saves after the block in hand; Ctrl-C again ends at once, without saving\n")

    @property
    def by_person(self) -> bool:
        return self._pressed < math.inf

    @property
    def raised(self) -> bool:
        return self._signalled or (self._file is not None and os.path.exists(self._file))
