"""What becomes of a script and its loader processes when one of them is killed, fails or is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import train_single_task
from datasets.files import whole_file
from signals import ENDING
from tests.conftest import ROOT
from tests.processes import PATIENCE, PYTHON_PATH, descendants, marked, wait_until
from tests.training.conftest import Printed, Workplace
from tests.training.test_loop import assert_same_state
from training import checkpoint

DRIVER = Path(__file__).with_name("disturbed.py")
# an epoch computes 5 losses of training, then 2 of validation; from the second on, the loaders of both have processes
EPOCHS = ("--set", "training.epochs=3")
WORKERS = ("--set", "data.workers=2")
# what a script gets past its flags with
ARGUMENTS = {"train_symmetric.py": ["--dry-run"], "evaluate.py": ["none.pt"], "visualize.py": ["--sample", "7"]}
FOR_EVER = ("--set", "training.epochs=100000")


class Started:
    """A script in a process group of its own; `left` are the processes of it that live, wherever they have gone."""

    def __init__(self, command: list[str], mark: str):
        environment = os.environ | {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1", "A2D2_TEST": mark}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.mark = f"A2D2_TEST={mark}"
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, start_new_session=True, **pipes
        )

    def left(self) -> list[int]:
        return marked(self.mark)

    def end(self) -> Printed:
        """Wait until it has ended by itself."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Printed(self.process.returncode, out, err)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started = []

    def begin(*command: str) -> Started:
        started.append(Started(list(command), f"{tmp_path}:{len(started)}"))
        return started[-1]

    yield begin
    for one in started:
        for pid in one.left():
            os.kill(pid, signal.SIGKILL)
        one.process.communicate()


Start = Callable[..., Started]


def disturbed(place: Workplace, n: int, deed: str, *more: str) -> list[str]:
    flags = place.flags("segmentation", *EPOCHS, *WORKERS, *more)
    return [str(DRIVER), "train_single_task", str(n), deed, *flags]


def undisturbed(place: Workplace, start: Start) -> Started:
    """The script itself, in the midst of a training that never ends by itself."""
    started = start("train_single_task.py", *place.flags("segmentation", *FOR_EVER, *WORKERS))

    def trains() -> bool:
        assert started.process.poll() is None, started.end()
        return (place.runs / "segmentation" / "best.pt").exists()

    wait_until(trains, "the first checkpoint")
    assert len(descendants(started.process.pid)) == 4
    return started


def assert_told_that_a_worker_was_killed(printed: Printed) -> None:
    assert printed.code == 2
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("error: a loader process was killed, out of memory? (")
    # on a busy machine its connection may break long before torch hears of its end
    assert "killed by signal: Killed" in printed.err or "its connection broke" in printed.err
    for word in ("data.workers", "more memory", "--resume auto"):
        assert word in printed.err


def assert_same_run(place: Workplace, name: str, other: str) -> None:
    a, b = (checkpoint.load(place.runs / run / "last.pt") for run in (name, other))
    assert a.pop("wandb_id") != b.pop("wandb_id")
    assert_same_state(a, b)
    assert rows_of(place, name) == rows_of(place, other)


def rows_of(place: Workplace, name: str) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    rows = map(json.loads, (place.runs / name / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "speed/samples_per_second"} for row in rows]


# ---- a worker is killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "worker"),
    [
        (2, "first"),  # in training, before any checkpoint
        (9, "first"),
        (9, "last"),  # in training, one that waits for the next validation
        (13, "last"),  # in validation
    ],
)
def test_a_killed_worker_ends_the_run_with_one_line_and_resume_goes_on(
    workplace: Workplace, start: Start, call: Callable[..., Printed], n: int, worker: str
) -> None:
    started = start(*disturbed(workplace, n, f"kill the {worker} worker"))
    assert_told_that_a_worker_was_killed(started.end())
    assert not started.left()
    flags = ("--resume", "auto", *EPOCHS, "--set", "data.workers=0")
    resumed = call(train_single_task.main, *workplace.flags("segmentation", *flags))
    assert (resumed.code, resumed.err) == (0, "")
    assert ("goes on after 10 samples" in resumed.out) == (n > 7)
    whole = call(train_single_task.main, *workplace.flags("segmentation", "--name", "whole", *flags))
    assert whole.code == 0
    assert_same_run(workplace, "segmentation", "whole")


def test_all_workers_are_killed_at_any_moment(workplace: Workplace, start: Start) -> None:
    started = undisturbed(workplace, start)
    for pid in descendants(started.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert_told_that_a_worker_was_killed(started.end())
    assert not started.left()


def test_one_of_several_processes_loses_a_worker(workplace: Workplace, start: Start) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    started = start(*torchrun, *disturbed(workplace, 6, "kill the first worker"))
    printed = started.end()
    assert printed.code != 0
    assert "error: a loader process was killed, out of memory?" in printed.err
    wait_until(lambda: not started.left(), "the end of all processes")


def test_evaluate_loses_a_worker(workplace: Workplace, start: Start, call: Callable[..., Printed]) -> None:
    assert call(train_single_task.main, *workplace.flags("segmentation")).code == 0
    best = str(workplace.runs / "segmentation" / "best.pt")
    flags = (best, *workplace.roots(), "--workers", "1", "--batch-size", "1")
    started = start(str(DRIVER), "evaluate", "1", "kill the last worker", *flags)
    printed = started.end()
    assert_told_that_a_worker_was_killed(printed)
    assert printed.out == ""
    assert not started.left()


# ---- the script itself ends -----------------------------------------------------------------------------------


def test_a_bug_ends_the_run_with_its_traceback(workplace: Workplace, start: Start) -> None:
    started = start(*disturbed(workplace, 13, "a bug"))
    printed = started.end()
    assert printed.code == 1
    assert printed.err.startswith("Traceback")
    assert printed.err.endswith("RuntimeError: this is a bug\n")
    assert printed.err.count("Error: ") == 1
    assert not started.left()


def test_mistakes_end_the_run_with_one_line(workplace: Workplace, start: Start) -> None:
    started = start(*disturbed(workplace, 9, "a mistake"))
    printed = started.end()
    assert (printed.code, printed.err) == (2, "error: this is a mistake\n")
    assert printed.out  # what was printed before is not lost
    assert not started.left()


SAVES = "interrupted: saves after the block in hand; Ctrl-C again ends at once, without saving\n"


def test_ctrl_c_saves_after_the_block_in_hand(workplace: Workplace, start: Start, call: Callable[..., Printed]) -> None:
    """Nobody requeues what a person has stopped; it goes on as if nothing had happened."""
    started = start(*disturbed(workplace, 9, "Ctrl-C"))
    printed = started.end()
    assert (printed.code, printed.err) == (130, f"{SAVES}interrupted\n")
    last = workplace.runs / "segmentation" / "last.pt"
    assert printed.out.endswith(f"interrupted; saved {last}; go on with --resume auto\n")
    assert not (last.parent / "INTERRUPTED").exists()
    assert not started.left()
    flags = ("--resume", "auto", *EPOCHS, "--set", "data.workers=0")
    assert "goes on after 14 samples" in call(train_single_task.main, *workplace.flags("segmentation", *flags)).out
    assert call(train_single_task.main, *workplace.flags("segmentation", "--name", "whole", *flags)).code == 0
    assert_same_run(workplace, "segmentation", "whole")


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(workplace: Workplace, start: Start) -> None:
    started = undisturbed(workplace, start)
    os.killpg(started.process.pid, signal.SIGINT)
    printed = started.end()
    assert (printed.code, printed.err) == (130, f"{SAVES}interrupted\n")
    assert not started.left()


def test_a_second_ctrl_c_does_not_wait(workplace: Workplace, start: Start) -> None:
    started = start(*disturbed(workplace, 9, "hang"))
    wait_until(lambda: (workplace.runs / "segmentation" / "best.pt").exists(), "the first checkpoint")
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.process.stderr.readline() == SAVES
    before = time.monotonic()
    os.killpg(started.process.pid, signal.SIGINT)
    printed = started.end()
    assert time.monotonic() - before < 2
    assert (printed.code, printed.err) == (130, "interrupted\n")
    assert not started.left()


@pytest.mark.parametrize("script", ARGUMENTS)
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "ended by SIGTERM\n"),
    ],
)
def test_a_signal_while_a_script_imports(start: Start, script: str, number: int, code: int, line: str) -> None:
    started = start(script, *ARGUMENTS[script])
    status, bit = Path(f"/proc/{started.process.pid}/status"), 1 << (signal.SIGUSR1 - 1)
    wait_until(lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16) & bit, "the handlers")
    os.kill(started.process.pid, number)
    assert started.end() == Printed(code, "", line)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_before_the_loop_is_requeued(
    workplace: Workplace, call: Callable[..., Printed], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    told = workplace.dir / "told"
    monkeypatch.setenv("A2D2_INTERRUPTED_FILE", str(told))
    monkeypatch.setattr("training.data.prepare_tasks", lambda *_: os.kill(os.getpid(), number))
    printed = call(train_single_task.main, *workplace.flags("segmentation", "--resume", "auto"))
    assert (printed.code, printed.err) == (0, f"ended by {signal.Signals(number).name}\n")
    run = workplace.runs / "segmentation"
    assert told.read_text() == f"{run} 0\n"
    assert (run / "INTERRUPTED").exists()
    monkeypatch.undo()
    assert call(train_single_task.main, *workplace.flags("segmentation", "--resume", "auto")).code == 0


def test_ctrl_c_before_the_loop(
    workplace: Workplace, call: Callable[..., Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.prepare_tasks", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    printed = call(train_single_task.main, *workplace.flags("segmentation"))
    assert (printed.code, printed.err) == (130, "interrupted\n")
    assert not workplace.runs.exists()


# ---- the machine is too small ---------------------------------------------------------------------------------


def test_a_full_disk_at_a_checkpoint(workplace: Workplace, start: Start, call: Callable[..., Printed]) -> None:
    started = start(*disturbed(workplace, 9, "full disk"))
    printed = started.end()
    last = workplace.runs / "segmentation" / "last.pt"
    assert printed.code == 2
    assert printed.err.splitlines()[-1].startswith(f"error: {last.with_name('best.pt')} can't be written: File too l")
    assert "Traceback" not in printed.err
    assert not started.left()
    assert not list(last.parent.glob(".*"))
    flags = ("--resume", "auto", *EPOCHS, "--set", "data.workers=0")
    assert "goes on after 10 samples" in call(train_single_task.main, *workplace.flags("segmentation", *flags)).out


def test_a_network_that_does_not_fit_the_memory(workplace: Workplace, start: Start) -> None:
    started = start(*disturbed(workplace, 9, "no memory"))
    printed = started.end()
    assert printed.code == 2
    assert printed.err.startswith("error: not enough memory: 1000000000000000 bytes more were asked for; set a smaller")
    assert printed.err.count("\n") == 1
    assert not started.left()


def test_workers_say_nothing_of_a_script_that_hangs_up(workplace: Workplace, start: Start) -> None:
    printed = start(*disturbed(workplace, 1, "hang up")).end()
    assert (printed.code, printed.err) == (0, "")


def test_workers_do_not_outlive_a_script_that_is_killed(workplace: Workplace, start: Start) -> None:
    started = undisturbed(workplace, start)
    started.process.kill()
    wait_until(lambda: not started.left(), "the workers' end")


def test_the_next_start_removes_a_half_written_checkpoint(
    workplace: Workplace, start: Start, call: Callable[..., Printed]
) -> None:
    started = start(*disturbed(workplace, 9, "kill -9 while saving"))
    assert started.end().code == -signal.SIGKILL
    run = workplace.runs / "segmentation"
    (half,) = run.glob(".*.pt.tmp-*")
    with whole_file(run / "other.pt") as file:  # this process lives
        flags = ("--resume", "auto", *EPOCHS)
        resumed = call(train_single_task.main, *workplace.flags("segmentation", *flags))
        assert (resumed.code, resumed.err) == (0, "")
        assert [path.name for path in run.glob(".*")] == [Path(file.name).name]
    assert not half.exists()


# ---- two trainings of one run ---------------------------------------------------------------------------------


def test_one_training_at_a_time_has_a_runs_folder(
    workplace: Workplace, start: Start, call: Callable[..., Printed]
) -> None:
    again = ["train_single_task.py", *workplace.flags("segmentation", *FOR_EVER, *WORKERS, "--resume", "auto")]
    first = undisturbed(workplace, start)
    second = call(train_single_task.main, *again[1:])
    assert second.code == 2
    assert second.err.count("\n") == 1
    assert f"{workplace.runs / 'segmentation'} is in use by process {first.process.pid} on " in second.err
    assert call(train_single_task.main, *again[1:], "--dry-run").code == 0  # writes nothing
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()

    third, lock = start(*again), workplace.runs / ".segmentation.lock"  # what a dead one left is no hindrance
    wait_until(lambda: len(descendants(third.process.pid)) == 4, "the third trains")
    assert f'"pid":{third.process.pid},' in lock.read_text()
    os.kill(third.process.pid, signal.SIGTERM)
    assert third.end().code == 0
    assert not lock.exists()


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "", " ", "a b", "a\nb", "\x1b[31mred", ".", "..", "-x", "x/y", "x" * 101]
)
def test_a_runs_name_is_one_part_of_a_path(workplace: Workplace, call: Callable[..., Printed], name: str) -> None:
    printed = call(train_single_task.main, *workplace.flags("segmentation"), f"--name={name}")
    assert printed.code == 2
    assert "argument --name: " in printed.err
    assert "names no folder" in printed.err
    assert "\x1b" not in printed.err
    assert not workplace.runs.exists()
