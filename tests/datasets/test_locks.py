"""One lock: of several processes one has it, the others are told who, and a dead owner is noticed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets import locks
from datasets.locks import DEAD_AFTER, Lock
from errors import UserError
from tests.processes import PYTHON_PATH, wait_until

HOLDER = """
import sys, time
from pathlib import Path
from datasets.locks import Lock
with Lock(Path(sys.argv[1]), "the run"):
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / ".lock"


@pytest.fixture
def holder(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process that has the lock."""
    monkeypatch.setenv("PYTHONPATH", PYTHON_PATH)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], env={**os.environ, "SLURM_JOB_ID": "4711"})
    try:
        wait_until(path.exists, "the holder has the lock")
        yield process
    finally:
        process.kill()
        process.wait()


def take(path: Path) -> None:
    with Lock(path, "the run"):
        assert path.exists()


def rewritten(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_second_is_told_who_has_it(holder: subprocess.Popen, path: Path) -> None:
    with pytest.raises(UserError) as refused:
        take(path)
    for part in ("the run", f"process {holder.pid}", socket.gethostname(), "job 4711", str(path)):
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.exists()


@pytest.mark.parametrize("waited_for", [False, True], ids=["a zombie", "gone"])
def test_a_dead_owner_is_noticed_at_once(holder: subprocess.Popen, path: Path, waited_for: bool) -> None:
    holder.send_signal(signal.SIGKILL)
    if waited_for:
        holder.wait()
    else:
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    take(path)
    assert os.listdir(path.parent) == []


def test_another_process_of_the_same_number_does_not_have_it(path: Path) -> None:
    with Lock(path, "the run"):
        rewritten(path, process_start="1")
        take(path)


@pytest.mark.parametrize(("silent", "free"), [(DEAD_AFTER - 60, False), (DEAD_AFTER + 60, True)])
@pytest.mark.parametrize("known", [True, False], ids=["another host", "a file that does not say whose"])
def test_heartbeats_tell_where_no_process_can_be_seen(path: Path, silent: float, free: bool, known: bool) -> None:
    with Lock(path, "the run"):
        rewritten(path, host="elsewhere") if known else path.write_bytes(b"")
        os.utime(path, (time.time() - silent,) * 2)
        if free:
            take(path)
        else:
            with pytest.raises(UserError, match="elsewhere" if known else "another process"):
                take(path)


def test_an_owner_gives_signs_of_life(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with Lock(path, "the run"):
        os.utime(path, (0, 0))
        wait_until(lambda: path.stat().st_mtime > 0, "a heartbeat")
    assert not path.exists()


def test_an_owner_that_lost_it_says_so_and_leaves_it_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    said: list[str] = []
    monkeypatch.setattr(locks, "warn", said.append)
    with Lock(path, "the run"):
        path.write_bytes(b"of another node")
        os.utime(path, (0, 0))
        wait_until(lambda: bool(said), "a warning")
        time.sleep(0.1)
        assert path.stat().st_mtime == 0
    assert path.read_bytes() == b"of another node"
    assert len(said) == 1
    assert str(path) in said[0]
    assert "another process may use the run" in said[0]


def test_an_owner_that_gives_it_back_says_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.0001)
    said: list[str] = []
    monkeypatch.setattr(locks, "warn", said.append)
    for _ in range(50):
        take(path)
    assert said == []


def test_an_error_gives_it_back(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lock(path, "the run"):
        raise ZeroDivisionError
    take(path)


def test_it_is_given_back_only_by_who_has_it(path: Path) -> None:
    """An owner that was stopped for so long that it was taken for dead."""
    with Lock(path, "the run"):
        path.unlink()
        second = Lock(path, "the run")
        second.__enter__()
    assert path.exists()
    second.__exit__()


def test_of_many_that_find_a_dead_one_one_takes_it(path: Path) -> None:
    path.parent.mkdir()

    def attempt(_: int) -> Lock | None:
        try:
            return Lock(path, "the run").__enter__()
        except UserError:
            return None

    for _ in range(20):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
        with ThreadPoolExecutor(8) as pool:
            (taken,) = filter(None, pool.map(attempt, range(8)))
        taken.__exit__()
        assert not path.exists()


def test_one_that_died_while_it_took_over(holder: subprocess.Popen, path: Path) -> None:
    holder.kill()
    holder.wait()
    token = json.loads(path.read_text())["token"]
    path.with_name(f".lock-{token}").write_text(json.dumps(json.loads(path.read_text()) | {"token": 16 * "0"}))
    take(path)
    assert os.listdir(path.parent) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/\.lock can't be made: "):
        take(tmp_path / "file" / ".lock")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.symlink_to("nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to(path.name), "can't be made: Too many levels of symbolic links"),
        (os.mkfifo, "can't be made: a folder, pipe or device"),
        (Path.mkdir, "can't be made: a folder, pipe or device"),
    ],
    ids=["a link to nothing", "a link to itself", "a pipe", "a folder"],
)
def test_what_is_no_file_in_its_place(path: Path, make: Callable[[Path], None], why: str) -> None:
    path.parent.mkdir()
    make(path)
    with pytest.raises(UserError, match=why):
        take(path)
    assert os.listdir(path.parent) == [path.name]
