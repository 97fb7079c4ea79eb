"""How a script ends: its exit code, what it prints, and that it leaves no loader process behind."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from errors import UserError, run_as_script
from tests.conftest import ROOT
from tests.processes import PATIENCE, marked

KILLED = "DataLoader worker (pid 7) is killed by signal: Killed"
BUS_ERROR = "DataLoader worker (pid 7) is killed by signal: Bus error"
LOST = "DataLoader worker (pid(s) 7, 8) exited unexpectedly"


def raises(*errors: BaseException) -> Callable[[], None]:
    """A main that raises the last one while it handles those before."""

    def main() -> None:
        try:
            if len(errors) > 1:
                raises(*errors[:-1])()
        finally:
            raise errors[-1]

    return main


@pytest.mark.parametrize(
    ("errors", "death"),
    [
        ([RuntimeError(f"{KILLED}. ")], KILLED),
        ([RuntimeError(f"{BUS_ERROR}. It is possible that dataloader's workers are out of shared memory.")], BUS_ERROR),
        ([RuntimeError(LOST)], LOST),
        ([RuntimeError(f"{KILLED}. "), RuntimeError(LOST)], KILLED),
        ([RuntimeError(f"{KILLED}. "), ValueError("in the midst of something else")], KILLED),
    ],
)
def test_a_killed_loader_process_is_one_line(
    capsys: pytest.CaptureFixture[str], errors: list[BaseException], death: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_as_script(raises(*errors))
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith(f"error: a loader process was killed, out of memory? ({death}); ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_killed_loader_process_whose_connection_breaks_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Then torch's handler of SIGCHLD comes a moment later."""
    before = signal.signal(signal.SIGALRM, lambda number, stack: raises(RuntimeError(f"{KILLED}. "))())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    monkeypatch.setattr("errors._PATIENCE", PATIENCE)
    with pytest.raises(SystemExit) as stopped:
        run_as_script(raises(error))
    signal.signal(signal.SIGALRM, before)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: a loader process was killed, out of memory? ({KILLED}); ")


def test_a_connection_that_breaks_for_another_reason_is_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("errors._PATIENCE", 0)
    with pytest.raises(ConnectionResetError):
        run_as_script(raises(ConnectionResetError("a bug")))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ...\nRuntimeError: a bug"
        ),
    ],
)
def test_a_bug_is_left_to_python(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        run_as_script(raises(error))
    assert raised.value is error
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Path.resolve does not mind there")
def test_a_link_that_leads_to_itself_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SystemExit) as stopped:
        run_as_script(lambda: print((tmp_path / "loop").resolve()))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: Symlink loop from '{tmp_path}/loop': ")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such\nframe", r"no such\nframe"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a file \udcff of no letters", r"a file \udcff of no letters"),
        ("größer → 'x' ...", "größer → 'x' ..."),
        ("x" * 1993, "x" * 1993),
        ("x" * 10**6, "x" * 1993 + "..."),
    ],
    ids=["a new line", "an escape sequence", "a surrogate", "letters", "long", "too long"],
)
def test_a_message_is_one_line_that_does_nothing_to_a_terminal(
    capsys: pytest.CaptureFixture[str], said: str, shown: str
) -> None:
    with pytest.raises(SystemExit):
        run_as_script(raises(UserError(said)))
    assert capsys.readouterr().err == f"error: {shown}\n"


# ---- children that are left -----------------------------------------------------------------------------------

SCRIPT = """
import multiprocessing, signal, sys, time
from errors import UserError, run_as_script

def work(started, daemon):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started.set()
    time.sleep(1000 if daemon else 1)
    print("worked", flush=True)

def start(daemon):
    started = multiprocessing.Event()
    multiprocessing.Process(target=work, args=(started, daemon), daemon=daemon).start()
    started.wait()

def main():
    print("printed")
    {main}

run_as_script(main)
"""


@pytest.mark.parametrize(
    ("end", "code", "last_line"),
    [
        ("return", 0, []),
        ("return 3", 3, []),
        ("sys.exit(4)", 4, []),
        ("raise UserError('a mistake')", 2, ["error: a mistake"]),
        ("raise KeyboardInterrupt", 130, ["interrupted"]),
        ("raise ValueError('a bug')", 1, ["ValueError: a bug"]),
    ],
)
def test_children_that_ignore_sigterm_are_killed(tmp_path: Path, end: str, code: int, last_line: list[str]) -> None:
    done = run(SCRIPT.format(main=f"start(True); start(True); {end}"), tmp_path)
    assert (done.returncode, done.stdout) == (code, "printed\n")
    assert done.stderr.splitlines()[-1:] == last_line
    assert ("Traceback" in done.stderr) == (code == 1)
    assert not marked(str(tmp_path))


def test_children_that_finish_their_work_are_left_alone(tmp_path: Path) -> None:
    done = run(SCRIPT.format(main="start(False); raise UserError('a mistake')"), tmp_path)
    assert (done.returncode, done.stdout) == (2, "printed\nworked\n")


def run(script: str, mark: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"A2D2_TEST": str(mark)}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


FINALISED = """
import sys
from errors import run_as_script

class Closed:
    def __init__(self, message):
        self.message = message

    def __del__(self):
        raise RuntimeError(self.message)

def main():
    Closed("DataLoader worker (pid 31010) is killed by signal: Killed. ")
    Closed(sys.argv[1])

run_as_script(main)
"""


def test_a_loader_that_dies_during_a_finaliser_is_no_traceback() -> None:
    """torch's handler raises there too, and Python prints what it can't raise; other errors are still printed."""
    command = [sys.executable, "-c", FINALISED, "something else"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "DataLoader worker" not in done.stderr
    assert done.stderr.count("Exception ignored in") == 1
    assert "RuntimeError: something else" in done.stderr


# ---- a terminal that goes away ----------------------------------------------------------------------------------

SAVES = """
import sys, time
from pathlib import Path
import signals
from errors import run_as_script

def save():
    print("saves", flush=True)
    Path(sys.argv[1]).write_text("saved")

def main():
    signals.when_ended(save)
    print("begun", flush=True)
    time.sleep(60)

run_as_script(main)
"""


def test_a_closed_terminal_lets_it_save(tmp_path: Path) -> None:
    """As a closed ssh session does it: SIGHUP, and what is printed then is an error."""
    ours, theirs = os.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    command = [sys.executable, "-c", SAVES, str(tmp_path / "saved")]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=ROOT, **streams, preexec_fn=own_terminal)
    os.close(theirs)
    printed = b""
    while not printed.endswith(b"\n"):
        printed += os.read(ours, 100)
    assert printed == b"begun\r\n"
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    assert (tmp_path / "saved").read_text() == "saved"


def test_under_nohup_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVES, str(tmp_path / "saved")]
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes, preexec_fn=ignore) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE) == ("saves\n", "ended by SIGTERM\n")
