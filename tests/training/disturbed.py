"""Runs a script as its file does, and does something to it when a loss is computed for the n-th time.

Arguments: the script, n, what (a key of DEEDS), the script's flags. Training and validation are counted alike; of
several processes that torchrun starts, the first alone is disturbed.
"""

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd
from typing import Any, BinaryIO

import torch

from errors import UserError, run_as_script
from tasks.base import Task
from tasks.segmentation import SegmentationTask


def kill_worker(index: int) -> None:
    """Loader processes in the order of their start: those of training, then those of validation."""
    workers = sorted(multiprocessing.active_children(), key=lambda child: child.pid)
    os.kill(workers[index].pid, signal.SIGKILL)


def kill_while_saving() -> None:
    """At the next checkpoint, half of it written."""

    def killed(content: Any, file: BinaryIO) -> None:
        file.write(b"PK half a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = killed


def hang_up() -> None:
    """From now on, before it takes a tensor, it does to the worker what a script does that ends while it takes one."""
    detach = DupFd.detach

    def hung_up(self: DupFd) -> int:
        address, _ = self._id
        Client(address).close()
        return detach(self)

    DupFd.detach = hung_up


def fail(error: Exception) -> None:
    raise error


DEEDS: dict[str, Callable[[], None]] = {
    "kill the first worker": lambda: kill_worker(0),
    "kill the last worker": lambda: kill_worker(-1),
    "kill -9 while saving": kill_while_saving,
    "hang up": hang_up,
    "a bug": lambda: fail(RuntimeError("this is a bug")),
    "a mistake": lambda: fail(UserError("this is a mistake")),
    "Ctrl-C": lambda: os.kill(os.getpid(), signal.SIGINT),
    "hang": lambda: time.sleep(1000),
    "full disk": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    "no memory": lambda: torch.empty(10**15, dtype=torch.uint8),
}


def disturb(task: type[Task], n: int, deed: Callable[[], None]) -> None:
    loss, calls = task.loss, []

    def disturbed(self: Task, *arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == n:
            deed()
        return loss(self, *arguments)

    task.loss = disturbed


if __name__ == "__main__":
    _, script, n, what, *flags = sys.argv
    sys.argv = [f"{script}.py", *flags]
    if os.environ.get("RANK", "0") == "0":
        disturb(SegmentationTask, int(n), DEEDS[what])
    run_as_script(importlib.import_module(script).main)
