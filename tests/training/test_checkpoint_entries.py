"""A file of torch's that lacks an entry of a checkpoint, or has another in its place: one line from every script."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import evaluate
import train_single_task
import visualize
from errors import UserError
from tests.training.conftest import Printed, Workplace
from tests.training.test_train_single_task import assert_refused
from training.compatibility import load_checkpoint

Call = Callable[..., Printed]
GONE = object()
JUNK: dict[str, Any] = {
    "gone": GONE,
    "None": None,
    "a text": "text",
    "-1": -1,
    "NaN": float("nan"),
    "an empty list": [],
    "nothing": {},
    "other names": {"a": torch.zeros(3)},
}
# what an entry may as well hold: texts that say nothing, defaults, and what only the network can contradict
ALLOWED = {
    "git_commit": {"None", "a text"},
    "wandb_id": {"a text"},
    "sample_lists.train": {"a text"},
    "unreadable": {"an empty list"},
    "split.val": {"an empty list"},
    "datasets.a2d2.geometry": set(JUNK) - {"gone"},
    "constant": {"nothing"},  # where several tasks are compared, it is needed
    "balancing": {"nothing", "other names"},
    "config.seed": {"gone"},
    "model": {"nothing", "other names"},
    "updates.groups.steering.gradients": {"an empty list"},
    "tasks.steering": {"nothing", "other names"},
    "best.score": {"-1"},
    "best.results": {"nothing"},
    "log.sums": {"nothing"},
}


@pytest.fixture(scope="module")
def content(small_data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a steering network after one epoch."""
    place = Workplace(*small_data, tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train_single_task.py", *place.flags("steering")])
        train_single_task.main()
    return torch.load(place.runs / "steering" / "last.pt", weights_only=True)


@pytest.fixture
def scripts(workplace: Workplace, call: Call) -> Callable[[Path], Iterator[Printed]]:
    """Every script that reads a checkpoint, with this one."""

    def each(path: Path) -> Iterator[Printed]:
        yield call(evaluate.main, str(path), *workplace.roots(), "--workers", "0")
        shown = ("--sample", "0", "--checkpoint", f"a={path}", "--out", str(workplace.dir / "results"))
        yield call(visualize.main, *shown, *workplace.roots())
        yield call(train_single_task.main, *workplace.flags("steering", "--name", "other", "--resume", str(path)))

    return each


ENTRIES = [
    "format",
    "kind",
    "mode",
    "config",
    "config.seed",
    "config.tasks",
    "split",
    "split.val",
    "datasets",
    "datasets.a2d2",
    "datasets.a2d2.labels",
    "datasets.a2d2.geometry",
    "bound",
    "bound.steering",
    "git_commit",
    "wandb_id",
    "samples",
    "samples.steering",
    "sample_lists",
    "sample_lists.train",
    "constant",
    "model",
    "updates",
    "updates.groups",
    "updates.groups.steering",
    "updates.groups.steering.optimizer",
    "updates.groups.steering.count",
    "updates.groups.steering.gradients",
    "updates.loss_scale",
    "updates.schedule",
    "updates.schedule.end",
    "updates.samples_seen",
    "updates.seen",
    "updates.steps",
    "updates.overflows",
    "balancing",
    "tasks",
    "tasks.steering",
    "position",
    "position.epoch",
    "position.samples",
    "position.blocks",
    "position.validated",
    "best",
    "best.score",
    "best.results",
    "unreadable",
    "log",
    "log.sums",
    "log.noted",
    "random",
    "random.cpu",
]


def test_no_entry_is_forgotten(content: dict[str, Any]) -> None:
    assert set(content) == {entry for entry in ENTRIES if "." not in entry}


def changed(content: dict[str, Any], entry: str, value: Any) -> dict[str, Any]:
    """A copy with another entry."""
    first, _, rest = entry.partition(".")
    if rest:
        return content | {first: changed(content[first], rest, value)}
    return {key: old for key, old in content.items() if key != first} if value is GONE else content | {first: value}


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_of_the_wrong_kind_is_refused(content: dict[str, Any], tmp_path: Path, entry: str) -> None:
    path = tmp_path / "best.pt"
    for name, value in JUNK.items():
        torch.save(changed(content, entry, value), path)
        if name in ALLOWED.get(entry, ()):
            load_checkpoint(path)
            continue
        with pytest.raises(UserError) as error:
            load_checkpoint(path)
        assert str(error.value).startswith(str(path)), name
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "." not in entry])
def test_a_missing_entry_is_one_line_of_every_script(
    content: dict[str, Any], scripts: Callable[[Path], Iterator[Printed]], workplace: Workplace, entry: str
) -> None:
    path = workplace.dir / "a" / "best.pt"
    path.parent.mkdir()
    torch.save(changed(content, entry, GONE), path)
    for printed in scripts(path):
        assert_refused(printed, str(path))
    assert not workplace.runs.exists()
    assert not (workplace.dir / "results").exists()
