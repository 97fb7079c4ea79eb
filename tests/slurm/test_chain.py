"""chain.sh with a `sbatch` that only notes what it is asked for."""

import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster

OPTIONS = ("--set", "training.epochs=3")


def submit_chain(cluster: Cluster, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {"SHARDS": "4", "A2D2_RUNS": f"{cluster.folder}/runs"} | variables
    return cluster.run("slurm/chain.sh", "ours", "train_asymmetric.py", *OPTIONS, *more, **variables)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture
def asked(cluster: Cluster) -> list[list[str]]:
    """What chain.sh submits, job 101 first."""
    assert submit_chain(cluster).returncode == 0
    return cluster.asked()


def test_each_waits_for_the_one_before(asked: list[list[str]]) -> None:
    after = [[part for part in job if part.startswith("--dependency")] for job in asked]
    arrays = [["--dependency=afterok:101"]] * 5
    expected = [[], *arrays, ["--dependency=afterok:102:103:104:105:106"], ["--dependency=afterok:107"]]
    assert after == expected


def test_what_is_submitted(asked: list[list[str]], tmp_path: Path) -> None:
    assert asked[0][-1] == "slurm/download.sbatch"
    assert [job[-3:] for job in asked[1:6]] == [
        ["slurm/preprocess.sbatch", stage, "4"]
        for stage in ("segmentation", "depth_preprocess", "bounding_box", "steering_angle", "camera")
    ]
    assert all("--array=1-4" in job for job in asked[1:6])
    script = ["slurm/train.sbatch", "train_asymmetric.py", "--name", "ours", "--set", "training.epochs=3"]
    assert asked[6][-6:] == script
    assert asked[7][-2:] == ["slurm/evaluate.sbatch", f"{tmp_path}/runs/ours/best.pt"]
    assert all(f"--output={tmp_path}/runs/logs/%x-" in job[0] for job in asked)


def test_evaluation_reads_what_the_training_read(cluster: Cluster) -> None:
    roots = ["--processed-root", "a b", "--processed-root=c", "--stage-to", "auto"]
    assert submit_chain(cluster, *roots, "--runs-root", f"{cluster.folder}/mine").returncode == 0
    evaluation = cluster.asked()[7]
    assert evaluation[-6:] == [f"{cluster.folder}/mine/ours/best.pt", *roots]
    assert all(f"--output={cluster.folder}/mine/logs/" in job[0] for job in cluster.asked())


def test_the_configuration_is_checked_first(cluster: Cluster) -> None:
    assert submit_chain(cluster).returncode == 0
    script = ["train_asymmetric.py", "--name", "ours", *OPTIONS]
    assert cluster.asked("python") == [[*script, "--resume", "auto", "--check-config", "--device", "cpu"]]


def test_a_mistake_is_told_before_anything_is_submitted(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, python="exit 2")
    done = submit_chain(cluster)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: not submitted: train_asymmetric.py --name ours" in done.stderr
    assert not cluster.asked()


def test_scripts_that_it_names_exist(asked: list[list[str]]) -> None:
    named = {part for job in asked for part in job if part.startswith("slurm/")}
    assert all((ROOT / path).is_file() for path in named)


def test_a_chain_that_fails_in_the_middle_says_what_it_has_submitted(tmp_path: Path) -> None:
    done = submit_chain(Cluster(tmp_path, jobs=2))
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["download: 101", "segmentation: 102"]
    assert done.stderr.splitlines() == [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit",
        "error: depth_preprocess was not submitted; already in the queue, and waiting: 101 102 (scancel 101 102)",
    ]


@pytest.mark.parametrize("shards", ["0", "abc", "-1", "08", "2 3"])
def test_impossible_shards_are_refused_before_anything_is_submitted(cluster: Cluster, shards: str) -> None:
    done = submit_chain(cluster, SHARDS=shards)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"SHARDS={shards}" in done.stderr
    assert not cluster.asked()


def test_jobs_with_and_without_a_gpu_have_their_own_partitions(cluster: Cluster) -> None:
    assert submit_chain(cluster, CPU_PARTITION="short", GPU_PARTITION="a100", GPU_ACCOUNT="vision").returncode == 0
    jobs = cluster.asked()
    assert ["--partition=short" in job for job in jobs] == [True] * 6 + [False] * 2
    assert [{"--partition=a100", "--account=vision"} <= {*job} for job in jobs] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_usage(shell: str) -> None:
    done = subprocess.run([shell, "slurm/chain.sh", "ours"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_bash_reads_the_scripts(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    if "--requeue" in text:
        assert "--open-mode=append" in text  # else a requeue empties the log
    assert "--signal=USR1" not in text  # without B: it would kill torchrun
