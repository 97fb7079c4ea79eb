"""When a training job goes back into the queue: environment.sh with a `scontrol` that notes what it is asked for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
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
        environment = self.environment() | {"RUN": run}
        script = '. "$SLURM_SUBMIT_DIR/slurm/environment.sh"; train sh -c "$1"'
        done = subprocess.run(["bash", "-c", script, "job", command], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.folder}:{BIN}:{os.environ['PATH']}",
            "A2D2_RUNS": str(self.folder / "runs"),
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_ID": "7",
        }

    @property
    def requeues(self) -> int:
        asked = self.folder / "asked"
        lines = asked.read_text().splitlines() if asked.exists() else []
        assert set(lines) <= {"requeue 7"}
        return len(lines)

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "runs" / "logs").iterdir())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_training_that_ends_is_not_requeued(job: Job) -> None:
    assert job.start("exit 0") == (0, "")
    assert (job.requeues, job.left()) == (0, [])


def test_stop_files_lie_below_the_runs(job: Job) -> None:
    logs = job.folder / "runs" / "logs"
    printed = f"{logs / 'stop-7'} {logs / 'interrupted-7'}\n"
    assert job.start('echo "$A2D2_STOP_FILE $A2D2_INTERRUPTED_FILE"') == (0, printed)


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
    assert "the requeue was refused: submit the same command again, it goes on from what was saved" in printed


def test_a_study_whose_requeue_is_refused(job: Job) -> None:
    job.answer("echo 'Job is not requeueable' >&2; exit 1")
    shutil.copy(ROOT / "slurm" / "study.sbatch", job.folder / "slurm")
    (job.folder / "study.py").write_text("import os, signal\nos.kill(os.getppid(), signal.SIGUSR1)\nsignal.pause()\n")
    environment = job.environment() | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    script = ["bash", "slurm/study.sbatch", "final", "4", "study.yaml"]
    done = subprocess.run(script, cwd=job.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "submit the same command again, it goes on from what was saved" in done.stderr
    assert (job.folder / "asked").read_text() == "requeue 7_3\n"


# ---- where Python is found ------------------------------------------------------------------------------------


def test_no_python(job: Job) -> None:
    tools = job.folder / "tools"
    tools.mkdir()
    for tool in ("bash", "uname", "mkdir"):
        (tools / tool).symlink_to(shutil.which(tool))
    environment = job.environment() | {"PATH": str(tools)}
    script = ["bash", "-c", '. "$SLURM_SUBMIT_DIR/slurm/environment.sh"; echo went on']
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: no Python 3.11 with the project's packages on ")
    assert "(found: none)" in done.stderr
    assert "slurm/environment.sh" in done.stderr


def test_a_container_runs_all_of_it(job: Job) -> None:
    fake = job.folder / "apptainer"
    fake.write_text('#!/bin/sh\necho "in a container: $*" >&2\nshift 3\nexec "$@"\n')
    fake.chmod(0o755)
    command = '. "$SLURM_SUBMIT_DIR/slurm/environment.sh"; train $CONTAINER python -c "print(7)"'
    environment = job.environment() | {"CONTAINER": "apptainer exec --nv a2d2.sif"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert done.stderr == "in a container: exec --nv a2d2.sif python -c print(7)\n"


@pytest.mark.parametrize("what", ["module purge", 'set +u; . "$HOME/miniconda3', 'CONTAINER="apptainer exec --nv'])
def test_what_a_cluster_may_need_is_there_to_be_uncommented(job: Job, what: str) -> None:
    path = job.folder / "slurm" / "environment.sh"
    text = path.read_text()
    assert text.count(f"# {what}") == 1
    path.write_text(text.replace(f"# {what}", what))
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_every_job_runs_its_command_in_the_container(script: Path) -> None:
    text = script.read_text()
    commands = re.findall(
        r"(\S+) (?:python|torchrun|sh) [^|]*?(?:\.py|get_data\.sh|--)", text.split("environment.sh")[1]
    )
    assert commands
    assert set(commands) == {"$CONTAINER"}
