"""The shipped job scripts, submitted to a real Slurm: where `sinfo` answers (tests/slurm/slurm_up.sh starts one)."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from tests.training.conftest import Workplace, small_data, workplace
from tests.training.test_asymmetric import ASYMMETRIC
from training import checkpoint

__all__ = ["small_data", "workplace"]

ROOT = Path(__file__).parents[2]
CPU = ["--gpus-per-node=0", "--cpus-per-task=1", "--mem=0"]  # what the scripts ask for on a cluster, made small


def slurm_answers() -> bool:
    if not shutil.which("sbatch"):
        return False
    return subprocess.run(["timeout", "5", "sinfo", "-h"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not slurm_answers(), reason="no Slurm here; tests/slurm/slurm_up.sh starts one (Debian, root)"),
]


def nodes() -> int:
    return sum(map(int, subprocess.check_output(["sinfo", "-h", "-p", "main", "-o", "%D"], text=True).split()))


def environment(place: Workplace, **more: str) -> dict[str, str]:
    return os.environ | {
        "A2D2_DATA": str(place.raw.root),
        "A2D2_PROCESSED": str(place.processed.root),
        "A2D2_RUNS": str(place.runs),
        "WANDB_MODE": "disabled",
        "CPU_PARTITION": "main",
        "GPU_PARTITION": "main",
        "TRY": "no",  # two tests do
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def submit_sh(place: Workplace, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "slurm/submit.sh", "--parsable", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(place, **more), capture_output=True, text=True)


def submit(place: Workplace, *arguments: str, **more: str) -> str:
    """-> the job's id."""
    done = submit_sh(place, *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def logs(place: Workplace, job: str) -> str:
    """Of all elements."""
    return "".join(path.read_text() for path in sorted((place.runs / "logs").glob(f"*-{job}*.log")))


def state(job: str) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return " ".join(part.removeprefix("JobState=") for part in shown.split() if part.startswith("JobState="))


def wait_until(condition: Callable[[], bool], what: str, seconds: int = 240) -> None:
    for _ in range(seconds * 4):
        if condition():
            return
        time.sleep(0.25)
    pytest.fail(f"waited in vain until {what}")


def finish(place: Workplace, job: str) -> str:
    """Wait for the end of a job (all elements) -> its logs."""
    ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
    wait_until(lambda: set(state(job).split()) <= ended, f"job {job} ends")
    assert set(state(job).split()) == {"COMPLETED"}, logs(place, job)
    return logs(place, job)


# ---- preprocessing ------------------------------------------------------------------------------------------------


def labels(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("report")
    }


def test_an_array_makes_what_a_plain_run_makes(small_data: tuple[RawData, ProcessedData], tmp_path: Path) -> None:
    raw, plain = small_data
    place = Workplace(raw, ProcessedData(tmp_path / "processed"), tmp_path)
    stage = ["slurm/preprocess.sbatch", "depth_preprocess", "4", "--size", "64", "64"]
    finish(place, submit(place, "--array=1-4", *CPU[1:], *stage))
    made = labels(place.processed.kind_dir("depth"))
    assert made == labels(plain.kind_dir("depth"))

    # one element again does only what is missing
    frame = place.processed.frames("depth")[2]
    place.processed.path("depth", frame).unlink()
    element = raw.frames("lidar").index(frame) % 4 + 1
    log = finish(place, submit(place, f"--array={element}", *CPU[1:], *stage))
    assert "1 written, 5 already there" in log
    assert labels(place.processed.kind_dir("depth")) == made

    report = [sys.executable, "preprocessing/report.py", "--processed-root", str(place.processed.root)]
    done = subprocess.run(report, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "depth: 19 written, 5 already there, 0 without label, 0 failed" in done.stdout


# ---- training -----------------------------------------------------------------------------------------------------


def flags(place: Workplace, name: str, epochs: int) -> list[str]:
    config = place.config(json.dumps(ASYMMETRIC))
    return ["--config", str(config), "--name", name, "--set", f"training.epochs={epochs}"]


def weights(place: Workplace, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(place.runs / name / "last.pt")["model"]


def lines(place: Workplace, name: str) -> list[dict[str, float]]:
    path = place.runs / name / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key != "speed/samples_per_second"} for row in rows]


def preempt(place: Workplace) -> None:
    """A job that wants every node for a moment, with the right to push others aside."""
    command = ["sbatch", "--parsable", "--partition=high", f"--nodes={nodes()}", "--exclusive", "--wrap", "sleep 1"]
    finish(place, subprocess.check_output([*command, "--output=/dev/null"], text=True).strip())


def test_a_job_that_is_preempted_twice_ends_as_if_undisturbed(workplace: Workplace) -> None:
    epochs = 60
    job = submit(workplace, *CPU, "slurm/train.sbatch", "train_asymmetric.py", *flags(workplace, "job", epochs))
    for more in (3, 6):  # lines of the log: it has begun (again)
        seen = len(lines(workplace, "job"))
        wait_until(lambda seen=seen, more=more: len(lines(workplace, "job")) >= seen + more, "the training goes on")
        preempt(workplace)
        assert state(job) in ("PENDING", "RUNNING", "COMPLETING")
    log = finish(workplace, job)
    assert log.count("back into the queue") == 2
    assert log.count("goes on after") == 2
    assert not (workplace.runs / "job" / "INTERRUPTED").exists()

    plain = [sys.executable, "train_asymmetric.py", *flags(workplace, "plain", epochs)]
    subprocess.run(plain, cwd=ROOT, env=environment(workplace), check=True, capture_output=True)
    ours, theirs = weights(workplace, "job"), weights(workplace, "plain")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert lines(workplace, "job") == lines(workplace, "plain")


def test_the_time_limits_signal_requeues_too(workplace: Workplace) -> None:
    """USR1 to the batch script alone, as --signal=B:USR1@120 sends it."""
    job = submit(workplace, *CPU, "slurm/train.sbatch", "train_asymmetric.py", *flags(workplace, "limit", 30))
    wait_until(lambda: len(lines(workplace, "limit")) > 3, "the training has begun")
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    log = finish(workplace, job)
    assert (log.count("back into the queue"), log.count("goes on after")) == (1, 1)
    assert lines(workplace, "limit")[-1]["epoch"] == 30


def test_a_mistake_fails_the_job_and_does_not_requeue_it(workplace: Workplace) -> None:
    job = submit(workplace, *CPU, "slurm/train.sbatch", "train_asymmetric.py", "--config", "none.yaml")
    wait_until(lambda: state(job) == "FAILED", "the job has failed")
    log = logs(workplace, job)
    assert "error: none.yaml can't be read" in log
    assert "back into the queue" not in log


def test_a_mistake_is_not_queued(workplace: Workplace) -> None:
    config = ["--config", str(workplace.config(json.dumps(ASYMMETRIC))), "--set", "training.epocs=3"]
    before = subprocess.check_output(["squeue", "-h"], text=True)
    done = submit_sh(workplace, "slurm/train.sbatch", "train_asymmetric.py", *config, TRY="data")
    assert (done.returncode, done.stdout) == (2, "")
    assert "epocs" in done.stderr
    assert "error: not submitted" in done.stderr
    assert subprocess.check_output(["squeue", "-h"], text=True) == before


def test_a_chain_whose_last_jobs_would_be_refused_is_not_begun(workplace: Workplace) -> None:
    flags = ["ours", "train_asymmetric.py", "--config", str(workplace.config(json.dumps(ASYMMETRIC)))]
    more = {"GPU_PARTITION": "nowhere", "TRY": "config"}
    command = ["bash", "slurm/chain.sh", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment(workplace, **more), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is wrong with the configuration of asymmetric" in done.stderr
    assert "invalid partition specified: nowhere" in done.stderr


def test_a_training_that_was_tried_and_its_evaluation_over_a_copy(workplace: Workplace) -> None:
    """$TMPDIR of the submission reaches the job here; a cluster sets its own."""
    script = ["slurm/train.sbatch", "train_asymmetric.py", *flags(workplace, "copied", 1), "--stage-to", "auto"]
    (workplace.dir / "disk").mkdir()
    disk = {"TMPDIR": str(workplace.dir / "disk")}
    done = submit_sh(workplace, *CPU, *script, **disk, TRY="data")
    assert "--stage-to: a copy of the processed data takes 0.00 GB" in done.stderr
    log = finish(workplace, done.stdout.strip())
    assert "--stage-to: 0.00 GB to copy to " in log
    assert "files copied" in log
    (copy,) = (workplace.dir / "disk").glob("a2d2-*")
    assert ProcessedData(copy).frames("depth")
    assert not list((workplace.runs / "logs").glob("stop-*"))

    best = str(workplace.runs / "copied" / "best.pt")
    log = finish(workplace, submit(workplace, *CPU, "slurm/evaluate.sbatch", best, "--stage-to", "auto", **disk))
    assert "mIoU" in log
    assert "files copied" not in log  # the copy is whole


@pytest.mark.skipif(slurm_answers() and nodes() < 2, reason="needs two nodes: NODES=2 tests/slurm/slurm_up.sh")
def test_two_nodes_train_together(workplace: Workplace) -> None:
    resources = [*CPU, "--nodes=2"]
    script = ["slurm/train_multinode.sbatch", "train_asymmetric.py", *flags(workplace, "nodes", 2)]
    log = finish(workplace, submit(workplace, *resources, *script, PROCESSES="1"))
    assert "; 2 processes" in log
    assert log.count("done; best epoch") == 1  # one of them speaks
    assert checkpoint.load(workplace.runs / "nodes" / "last.pt")["position"]["epoch"] == 2
