"""A researcher's day on tiny data: train, Ctrl-C, resume, extend, go on without a task, sweep, evaluate, draw."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
import train_asymmetric
import visualize
from tests.training.conftest import Printed, Workplace
from tests.training.test_train_multitask import content_of, rows_of, train
from tests.training.test_train_single_task import interrupt_at

Call = Callable[..., Printed]


def well(printed: Printed) -> str:
    assert (printed.code, printed.err) == (0, "")
    return printed.out


def test_from_the_first_training_to_the_papers_table(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick = ("--set", "training.epochs=2", "training.images=0")

    # a training that a person stops in its first epoch, and that goes on without repeating what was set
    interrupt_at(monkeypatch, 2, signal.SIGINT)
    stopped = train(call, workplace, "asymmetric", *quick, "--name", "ours")
    assert stopped.code == 130
    assert not (workplace.runs / "ours" / "INTERRUPTED").exists()
    ours = ("--name", "ours", "--runs-root", str(workplace.runs), "--wandb", "disabled", *workplace.roots())
    main = train_asymmetric.main
    well(call(main, *ours, "--resume", "auto"))
    assert content_of(workplace, "ours")["position"]["epoch"] == 2

    # longer
    well(call(main, *ours, "--resume", "auto", "--extend", "3"))
    assert content_of(workplace, "ours")["position"]["epoch"] == 3
    assert [row["epoch"] for row in rows_of(workplace, "ours") if "val/score" in row] == [1, 2, 3]

    # without a task, from these weights, in another mode
    initial = ("--init-from", str(workplace.runs / "ours" / "best.pt"))
    out = well(train(call, workplace, "symmetric", *quick, "tasks.box=null", "--name", "less", *initial))
    assert "box" in out  # named as not taken
    assert content_of(workplace, "less")["samples"].keys() == {"segmentation", "steering", "depth"}

    # as an agent of wandb's sweeps would start it
    well(train(call, workplace, "asymmetric", "--name", "swept", "--training.epochs=1", "--training.images=0"))
    assert content_of(workplace, "swept")["position"]["epoch"] == 1

    # the paper's table and figure
    runs = [str(workplace.runs / name / "best.pt") for name in ("ours", "less")]
    table = well(call(evaluate.main, *runs, *workplace.roots(), "--split", "val", "--latex"))
    assert r"\begin{tabular}" in table
    assert "mIoU" in table
    checkpoints = [f"ours={runs[0]}", f"less={runs[1]}"]
    figures = ("--out", str(tmp_path / "figures"), "--format", "pdf")
    well(call(visualize.main, "--sample", "0", "--checkpoint", *checkpoints, *workplace.roots(), *figures))
    well(call(visualize.main, "--curves", str(workplace.runs / "ours"), *figures))
    made = {path.name for path in (tmp_path / "figures").rglob("*.pdf")}
    assert {"sheet.pdf", "ours.pdf"} <= made
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "figures").rglob("*.pdf"))
