"""What the tests' own processes import from, and processes seen through /proc."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# the repository, and what this process was given: libraries may lie there
PYTHON_PATH = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
PATIENCE = 120  # seconds until a process that should end is given up; how fast it is does not matter


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.001)


def descendants(pid: int) -> list[int]:
    """Children, grandchildren ... of a process that are no zombies."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (state := state_of(int(entry))) and state[0] != "Z":
            parents[int(entry)] = state[1]
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def state_of(pid: int) -> tuple[str, int, str] | None:
    """A process's state, parent and start time; None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), fields[19]


def is_gone(pid: int, start: str) -> bool:
    state = state_of(pid)
    return state is None or state[0] == "Z" or state[2] != start


def marked(mark: str) -> list[int]:
    """Processes, zombies aside, that were started with this in their environment, or forked from one that was."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # gone, or somebody else's
            lives = (state := state_of(int(entry))) is not None and state[0] != "Z"
            if lives and mark.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(int(entry))
    return found
