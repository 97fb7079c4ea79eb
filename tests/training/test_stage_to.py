"""--stage-to: training and evaluation over a copy give what they give over the set itself, loose or packed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
import train_single_task
from datasets.processed import ProcessedData
from preprocessing.pack import pack
from tests.training.conftest import Printed, Workplace
from training import checkpoint

Call = Callable[..., Printed]


@pytest.fixture
def packed_place(own_workplace: Workplace) -> Workplace:
    """The same data as `workplace`, in packs alone."""
    pack(own_workplace.processed, remove=True)
    return own_workplace


def weights(place: Workplace, run: str) -> dict:
    return checkpoint.load(place.runs / run / "best.pt")["model"]


def test_training_over_a_copy_of_packs(
    workplace: Workplace, packed_place: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(train_single_task.main, *workplace.flags("steering", "--name", "loose")).code == 0
    local, roots = packed_place.dir / "local", set()
    read = ProcessedData.read
    monkeypatch.setattr(ProcessedData, "read", lambda self, *what: (roots.add(self.root), read(self, *what))[1])
    done = call(train_single_task.main, *packed_place.flags("steering", "--name", "copied", "--stage-to", str(local)))
    assert (done.code, done.err) == (0, "")
    assert f"{local}: 9 files copied" in done.out  # of the set, times, settings of five kinds, two scenes
    assert roots == {local}
    first, second = weights(workplace, "loose"), weights(packed_place, "copied")
    assert all(first[name].equal(second[name]) for name in first)


def test_evaluation_over_a_copy(packed_place: Workplace, call: Call) -> None:
    place, numbers = packed_place, []
    assert call(train_single_task.main, *place.flags("steering")).code == 0
    for more in ([], ["--stage-to", str(place.dir / "local")]):
        flags = [*place.roots(), "--workers", "0", "--json", str(place.dir / "numbers.json"), *more]
        assert call(evaluate.main, str(place.runs / "steering" / "best.pt"), *flags).code == 0
        numbers.append(json.loads((place.dir / "numbers.json").read_text()))
    assert numbers[0] == numbers[1]
    assert ProcessedData(place.dir / "local").frames("steering")


def test_a_dry_run_copies_nothing(workplace: Workplace, call: Call) -> None:
    local = workplace.dir / "local"
    done = call(train_single_task.main, *workplace.flags("steering", "--dry-run", "--stage-to", str(local)))
    assert done.code == 0
    assert not local.exists()
    assert "--stage-to: a copy of the processed data takes 0.00 GB" in done.out


def test_a_dry_run_elsewhere_than_in_a_job(workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert call(train_single_task.main, *workplace.flags("steering", "--dry-run", "--stage-to", "auto")).code == 0
    done = call(train_single_task.main, *workplace.flags("steering", "--stage-to", "auto"))
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_disk_that_is_too_small_is_one_line(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("usage", (), {"free": 10}))
    done = call(train_single_task.main, *workplace.flags("steering", "--stage-to", str(tmp_path / "local")))
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "GB free" in done.err
    assert not (workplace.runs / "steering").exists()
