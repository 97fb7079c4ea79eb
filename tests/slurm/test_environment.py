"""When a training job goes back into the queue: environment.sh with a `scontrol` that notes what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAVES = 'echo "$RUN" >"$A2D2_INTERRUPTED_FILE"'  # as a training does that was interrupted


class Job:
    """One job, which may start several times."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "slurm").mkdir()
        shutil.copy(ROOT / "slurm" / "environment.sh", folder / "slurm")
        self.answer("exit 0")

    def answer(self, command: str) -> None:
        fake = self.folder / "scontrol"
        fake.write_text(f'#!/bin/sh\necho "$@" >>{self.folder}/asked\n{command}\n')
        fake.chmod(0o755)

    def start(self, command: str, run: str = "") -> tuple[int, str]:
        """Train with this command -> exit status, what was printed."""
        environment = os.environ | {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_ID": "7",
            "RUN": run,
        }
        script = '. "$SLURM_SUBMIT_DIR/slurm/environment.sh"; train sh -c "$1"'
        done = subprocess.run(["bash", "-c", script, "job", command], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    @property
    def requeues(self) -> int:
        asked = self.folder / "asked"
        lines = asked.read_text().splitlines() if asked.exists() else []
        assert set(lines) <= {"requeue 7"}
        return len(lines)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(".*"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_training_that_ends_is_not_requeued(job: Job) -> None:
    assert job.start("exit 0") == (0, "")
    assert (job.requeues, job.left()) == (0, [])


@pytest.mark.parametrize("run", ["runs/ours 40", "elsewhere/with spaces/ours 40"])
def test_an_interrupted_one_is_wherever_its_run_lies(job: Job, run: str) -> None:
    assert job.start(SAVES, run) == (0, "interrupted and saved; back into the queue\n")
    assert job.requeues == 1


def test_it_is_again_where_it_got_further(job: Job) -> None:
    for samples in (0, 40, 80):
        assert job.start(SAVES, f"runs/ours {samples}")[0] == 0
    assert job.requeues == 3
    assert job.start("exit 0") == (0, "")
    assert (job.requeues, job.left()) == (3, [])


def test_it_is_not_where_it_gets_nowhere(job: Job) -> None:
    job.start(SAVES, "runs/ours 40")
    status, printed = job.start(SAVES, "runs/ours 40")
    assert status == 1  # jobs that wait for it with afterok do not take the half-trained network
    assert "interrupted twice at the same place (runs/ours 40); not requeued" in printed
    assert (job.requeues, job.left()) == (1, [])


def test_a_restart_that_fails_is_not_requeued(job: Job) -> None:
    """Data that are not mounted, a config that was changed meanwhile: what an earlier start left says nothing of it."""
    job.start(SAVES, "runs/ours 40")
    assert job.start("echo error: no data >&2; exit 2") == (2, "error: no data\n")
    assert (job.requeues, job.left()) == (1, [])


def test_a_refused_requeue_is_no_success(job: Job) -> None:
    job.answer("echo 'Job is not requeueable' >&2; exit 1")
    status, printed = job.start(SAVES, "runs/ours 40")
    assert status == 1
    assert "Job is not requeueable" in printed
    assert "submit it again, it goes on" in printed
