"""Where submit.sh sends a job and its log, and what it tries before."""

import re
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster

TRAIN = ("slurm/submit.sh", "--time=1", "slurm/train.sbatch", "train_asymmetric.py", "--name", "ours")
WRONG = 'echo "error: training.epocs: no such key" >&2; exit 2'


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_a_job_is_submitted_with_its_options_and_arguments(cluster: Cluster) -> None:
    done = cluster.run(*TRAIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "101;cluster\n", "")
    logs = cluster.folder / "runs" / "logs"
    assert cluster.asked() == [[f"--output={logs}/%x-%j.log", *TRAIN[1:]]]
    assert logs.is_dir()  # Slurm makes no folder: the job would end without a word


@pytest.mark.parametrize("flag", [["--runs-root", "{}/elsewhere"], ["--runs-root={}/elsewhere"]])
def test_logs_are_where_the_job_has_its_runs(cluster: Cluster, flag: list[str]) -> None:
    cluster.run(*TRAIN, *(word.format(cluster.folder) for word in flag))
    assert cluster.asked()[0][0] == f"--output={cluster.folder}/elsewhere/logs/%x-%j.log"


def test_an_array_has_a_log_an_element(cluster: Cluster) -> None:
    cluster.run("slurm/submit.sh", "--array=1-8", "slurm/preprocess.sbatch", "segmentation", "8")
    assert cluster.asked()[0][0].endswith("/logs/%x-%A_%a.log")


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_jobs_with_and_without_a_gpu_have_their_own_partitions(cluster: Cluster, script: Path) -> None:
    own = {"CPU_PARTITION": "short", "CPU_ACCOUNT": "shared", "GPU_PARTITION": "a100", "GPU_ACCOUNT": "vision"}
    job = (str(script.relative_to(ROOT)), "x")
    assert cluster.run("slurm/submit.sh", *job, TRY="no", **own).returncode == 0
    assert cluster.run("slurm/submit.sh", *job, TRY="no").returncode == 0
    assert cluster.run("slurm/submit.sh", "--partition=mine", *job, TRY="no", **own).returncode == 0
    with_own, plain, given = cluster.asked()
    cpu = script.stem in ("download", "preprocess")
    expected = ["--partition=short", "--account=shared"] if cpu else ["--partition=a100", "--account=vision"]
    assert with_own[1:] == [*expected, *job]
    assert plain[1:] == [*job]  # SBATCH_PARTITION, or what the cluster has
    assert given[1:] == [*expected, "--partition=mine", *job]  # the last one counts


# ---- a training is tried first ------------------------------------------------------------------------------------


def test_a_training_is_tried(cluster: Cluster) -> None:
    cluster.run(*TRAIN)
    assert cluster.asked("python") == [[*TRAIN[3:], "--resume", "auto", "--dry-run", "--device", "cpu"]]


@pytest.mark.parametrize("option", [["--dependency=afterok:7"], ["-d", "afterok:7"], ["-dafterok:7"]])
def test_one_that_waits_for_its_data_is_tried_without(cluster: Cluster, option: list[str]) -> None:
    for options in (option, ["--time=1", *option]):
        cluster.run("slurm/submit.sh", *options, "slurm/train.sbatch", "train_asymmetric.py")
        assert cluster.asked("python")[-1][-3:] == ["--check-config", "--device", "cpu"]


@pytest.mark.parametrize("job", ["slurm/train.sbatch", "slurm/train_multinode.sbatch"])
def test_a_mistake_is_not_queued(tmp_path: Path, job: str) -> None:
    cluster = Cluster(tmp_path, python=WRONG)
    done = cluster.run("slurm/submit.sh", job, "train_asymmetric.py", "--set", "training.epocs=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: training.epocs: no such key",
        "error: not submitted: train_asymmetric.py --set training.epocs=3 would fail",
    ]
    assert not cluster.asked()
    assert cluster.run("slurm/submit.sh", job, "train_asymmetric.py", TRY="no").returncode == 0
    assert len(cluster.asked()) == 1


def test_what_needs_no_try(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, python=WRONG)
    assert cluster.run("slurm/submit.sh", "slurm/evaluate.sbatch", "runs/ours/best.pt").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ([], {}, "usage: bash slurm/submit.sh"),
        (["slurm/train.sbatch"], {}, "usage: bash slurm/submit.sh slurm/train.sbatch SCRIPT"),
        (["slurm/none.sbatch"], {}, "there is no job script slurm/none.sbatch here"),
        (["slurm/train.sbatch", "x"], {"TRY": "all"}, "TRY=all: there are data, config and no"),
        (["slurm/train.sbatch", "x"], {"A2D2_RUNS": "/dev/null", "TRY": "no"}, "set A2D2_RUNS to a folder"),
    ],
)
def test_misuse(cluster: Cluster, arguments: list[str], variables: dict[str, str], told: str) -> None:
    done = cluster.run("slurm/submit.sh", *arguments, **variables)
    assert done.returncode == 2
    assert told in done.stderr
    assert not cluster.asked()


# ---- what the job scripts promise ---------------------------------------------------------------------------------


def test_what_the_network_may_need_is_there_to_be_uncommented() -> None:
    text = (ROOT / "slurm" / "train_multinode.sbatch").read_text()
    found = re.findall(r"^# export ((?:NCCL|GLOO)_\w+)=", text, re.M)
    assert {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE"} <= {*found}
    assert not re.search(r"^export NCCL", text, re.M)


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_memory_is_asked_for(script: Path) -> None:
    assert re.search(r"^#SBATCH --mem=\d+G$", script.read_text(), re.M)  # many clusters give next to nothing by default
