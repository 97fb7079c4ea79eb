"""chain.sh with a `sbatch` that only notes what it is asked for."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def submit_chain(folder: Path, jobs: int = 100, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run chain.sh; `sbatch` refuses all but the first `jobs` jobs."""
    log, fake = folder / "asked", folder / "sbatch"
    fake.write_text(
        f'#!/bin/sh\nprintf "%s\\t" "$@" >>{log}; echo >>{log}\n'
        f"n=$(wc -l <{log})\n"
        f'[ "$n" -le {jobs} ] || {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}\n'
        'echo "$((100 + n));cluster"\n'
    )
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SHARDS": "4", "A2D2_RUNS": "scratch/runs"}
    chain = ["sh", "slurm/chain.sh", "ours", "train_asymmetric.py", "--set", "training.epochs=3"]
    return subprocess.run(chain, cwd=ROOT, env=environment | variables, capture_output=True, text=True)


@pytest.fixture
def asked(tmp_path: Path) -> list[list[str]]:
    """What chain.sh submits, job 101 first."""
    assert submit_chain(tmp_path).returncode == 0
    return [line.split("\t")[:-1] for line in (tmp_path / "asked").read_text().splitlines()]


def test_each_waits_for_the_one_before(asked: list[list[str]]) -> None:
    after = [[part for part in job if part.startswith("--dependency")] for job in asked]
    arrays = [["--dependency=afterok:101"]] * 5
    expected = [[], *arrays, ["--dependency=afterok:102:103:104:105:106"], ["--dependency=afterok:107"]]
    assert after == expected


def test_what_is_submitted(asked: list[list[str]]) -> None:
    assert asked[0][-1] == "slurm/download.sbatch"
    assert [job[-3:] for job in asked[1:6]] == [
        ["slurm/preprocess.sbatch", stage, "4"]
        for stage in ("segmentation", "depth_preprocess", "bounding_box", "steering_angle", "camera")
    ]
    assert all("--array=1-4" in job for job in asked[1:6])
    script = ["slurm/train.sbatch", "train_asymmetric.py", "--name", "ours", "--set", "training.epochs=3"]
    assert asked[6][-6:] == script
    assert asked[7][-2:] == ["slurm/evaluate.sbatch", "scratch/runs/ours/best.pt"]


def test_scripts_that_it_names_exist(asked: list[list[str]]) -> None:
    named = {part for job in asked for part in job if part.startswith("slurm/")}
    assert all((ROOT / path).is_file() for path in named)


def test_a_chain_that_fails_in_the_middle_says_what_it_has_submitted(tmp_path: Path) -> None:
    done = submit_chain(tmp_path, jobs=2)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["download: 101", "segmentation: 102"]
    assert done.stderr.splitlines() == [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit",
        "error: depth_preprocess was not submitted; already in the queue, and waiting: 101 102 (scancel 101 102)",
    ]


@pytest.mark.parametrize("shards", ["0", "abc", "-1", "08", "2 3"])
def test_impossible_shards_are_refused_before_anything_is_submitted(tmp_path: Path, shards: str) -> None:
    done = submit_chain(tmp_path, SHARDS=shards)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"SHARDS={shards}" in done.stderr
    assert not (tmp_path / "asked").exists()


def test_jobs_with_and_without_a_gpu_have_their_own_partitions(tmp_path: Path) -> None:
    partitions = {"CPU_PARTITION": "short", "GPU_PARTITION": "a100", "GPU_ACCOUNT": "vision"}
    assert submit_chain(tmp_path, **partitions).returncode == 0
    jobs = [line.split("\t") for line in (tmp_path / "asked").read_text().splitlines()]
    assert ["--partition=short" in job for job in jobs] == [True] * 6 + [False] * 2
    assert [{"--partition=a100", "--account=vision"} <= {*job} for job in jobs] == [False] * 6 + [True] * 2


def test_usage() -> None:
    done = subprocess.run(["sh", "slurm/chain.sh", "ours"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_bash_reads_the_scripts(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "#SBATCH --mem=" in text  # many clusters give next to nothing by default
    if "--requeue" in text:
        assert "--open-mode=append" in text  # else a requeue empties the log
    assert "--signal=USR1" not in text  # without B: it would kill torchrun
