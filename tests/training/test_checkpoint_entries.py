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


OPTIMIZER = "updates.groups.steering.optimizer"


def in_optimizer(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other settings of the first group of parameters."""
    groups = content["updates"]["groups"]["steering"]["optimizer"]["param_groups"]
    return changed(content, f"{OPTIMIZER}.param_groups", [groups[0] | changes, *groups[1:]])


def in_moments(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    state = content["updates"]["groups"]["steering"]["optimizer"]["state"]
    return changed(content, f"{OPTIMIZER}.state", state | {0: state[0] | changes})


def with_weights(content: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    return content | {"model": {name: change(value) for name, value in content["model"].items()}}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: with_weights(c, lambda weight: weight.int()),
        lambda c: with_weights(c, lambda weight: weight * complex("nan")),
        lambda c: with_weights(c, lambda weight: torch.full_like(weight, 1e300, dtype=torch.float64)),
        lambda c: changed(c, "tasks.steering", {"a": torch.zeros(2) * complex("nan")}),
        lambda c: in_moments(c, exp_avg=c["updates"]["groups"]["steering"]["optimizer"]["state"][0]["exp_avg"].int()),
        lambda c: in_moments(c, exp_avg_sq=torch.zeros(1)),
        lambda c: in_moments(c, step=torch.tensor(-1.0)),
        lambda c: in_moments(c, step=torch.tensor(1e30)),
        lambda c: in_moments(c, step=torch.ones(2)),
        lambda c: in_optimizer(c, maximize=True),
        lambda c: in_optimizer(c, amsgrad=True),
        lambda c: in_optimizer(c, capturable=True),
        lambda c: in_optimizer(c, differentiable=True),
        lambda c: in_optimizer(c, eps=0.0),
        lambda c: in_optimizer(c, eps=-1e-8),
        lambda c: in_optimizer(c, betas=(0.9, 1.0)),
        lambda c: in_optimizer(c, betas=(-0.1, 0.9)),
        lambda c: in_optimizer(c, betas=(0.9, 0.9, 0.9)),
        lambda c: in_optimizer(c, lr=float("inf")),
        lambda c: in_optimizer(c, lr=-1.0),
        lambda c: in_optimizer(c, weight_decay=float("inf")),
        lambda c: changed(c, "position.blocks", 10**9),
        lambda c: changed(c, "position.samples", 10**18),
        lambda c: changed(c, "position.epoch", 10**18),
        lambda c: changed(c, "updates.samples_seen", 10**18),
        lambda c: changed(c, "log.sums", {"balance": [1.0, 2.0]}),
    ],
)  # fmt: skip
def test_a_value_that_no_training_writes_is_refused(
    content: dict[str, Any], workplace: Workplace, call: Call, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    path = workplace.runs / "steering" / "last.pt"
    path.parent.mkdir(parents=True)
    torch.save(change(content), path)
    again = call(train_single_task.main, *workplace.flags("steering", "--resume", "auto"))
    assert_refused(again, "checkpoint")


def test_half_precision_and_what_torch_has_written_are_read(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(with_weights(content, lambda weight: weight.half()), tmp_path / "best.pt")
    load_checkpoint(tmp_path / "best.pt")
