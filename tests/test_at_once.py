"""Scripts that run at once, as a cluster runs them: none spoils what another makes or reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from tests.conftest import ROOT
from tests.processes import PYTHON_PATH, wait_until
from tests.training.conftest import Workplace, own_workplace, small_data, workplace
from training import checkpoint

__all__ = ["own_workplace", "small_data", "workplace"]


def start(*command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, **pipes)


def end(*processes: subprocess.Popen[str]) -> list[str]:
    """What they printed, once all have ended well."""
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    return printed


def labels(processed: ProcessedData, kind: str) -> dict[str, bytes]:
    folder = processed.kind_dir(kind)
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("report"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_shards_that_overlap(small_data: tuple[RawData, ProcessedData], tmp_path: Path) -> None:
    raw, plain = small_data
    processed = ProcessedData(tmp_path / "processed")
    roots = ("--data-root", str(raw.root), "--processed-root", str(processed.root))
    stage = ("preprocessing/depth_preprocess.py", *roots, "--size", "64", "64", "--threads", "1")
    end(*(start(*stage, "--shard", shard) for shard in ("1/2", "2/2", "1/3", "2/3", "3/3", "1/1", "1/2", "1/1")))
    assert labels(processed, "depth") == labels(plain, "depth")


def training(place: Workplace, name: str) -> tuple[str, ...]:
    flags = place.flags("depth", "--name", name, "--set", "training.epochs=6", "--set", "data.workers=2")
    return ("train_single_task.py", *flags)


def rows(place: Workplace, name: str) -> list[dict[str, float]]:
    path = place.runs / name / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key != "speed/samples_per_second"} for row in found]


def test_preprocessing_and_packing_while_a_training_reads(own_workplace: Workplace) -> None:
    place = own_workplace
    end(start(*training(place, "undisturbed")))
    disturbed = start(*training(place, "disturbed"))
    wait_until(lambda: len(rows(place, "disturbed")) > 3, "the training has begun")
    roots = ("--data-root", str(place.raw.root), "--processed-root", str(place.processed.root))
    again = start("preprocessing/depth_preprocess.py", *roots, "--size", "64", "64", "--threads", "1")
    pack = start("preprocessing/pack.py", *roots[2:])
    preprocessed, _, _ = end(again, pack, disturbed)
    assert "0 written" in preprocessed
    assert rows(place, "disturbed") == rows(place, "undisturbed")
    assert checkpoint.load(place.runs / "disturbed" / "last.pt")["position"]["epoch"] == 6
