"""A network that has diverged is not saved: one line says so, and the files of before stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from tests.toy_task import KIND, BalanceTask
from tests.training.conftest import Printed, Workplace
from tests.training.test_loop import Lab, lab
from tests.training.test_train_multitask import settings, train
from tests.training.test_train_single_task import assert_refused
from training import checkpoint

__all__ = ["lab"]

Call = Callable[..., Printed]


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.pt")}


@pytest.mark.parametrize("mode", ["segmentation", "steering", "box", "depth"])
def test_an_absurd_learning_rate_writes_no_checkpoint_of_ruins(workplace: Workplace, call: Call, mode: str) -> None:
    """Whichever comes first: a loss, a gradient, a weight or a metric that is not finite."""
    flags = settings(f"tasks.{mode}.learning_rate=1e30", "training.epochs=4", "training.warmup=0")
    assert_refused(train(call, workplace, "single", "--train-mode", mode, *flags), "not finite", "learning rate")
    for name, content in contents(workplace.runs / mode).items():
        saved = torch.load(workplace.runs / mode / name, weights_only=True)
        assert checkpoint.first_not_finite(saved["model"].items()) is None, name
        assert content


@pytest.mark.parametrize("what", ["weight", "buffer", "moment"])
def test_nothing_is_saved_that_is_not_finite(lab: Lab, what: str) -> None:
    first = lab.trainer(epochs=1)
    first.train()
    before = contents(first.run.dir)
    second = lab.trainer(epochs=2)
    second.load_state(checkpoint.load(first.run.last))
    spoil_after_training(second, what)
    with pytest.raises(UserError, match=f"{NAMES[what]} is not finite in epoch 2; the checkpoints in .* from before"):
        second.train()
    assert contents(first.run.dir) == before


NAMES = {"weight": "network.0.hidden.weight", "buffer": "spoilt", "moment": f"exp_avg of {KIND}"}


def spoil_after_training(trainer: Any, what: str) -> None:
    """After the epoch's last step, where neither loss nor gradient would tell."""
    validate = trainer._validate
    if what == "buffer":
        trainer.model.register_buffer("spoilt", torch.zeros(1))

    def spoilt(stop: Any) -> Any:
        results = validate(stop)
        group = trainer.updates.groups[KIND]
        with torch.no_grad():
            {
                "weight": lambda: trainer.model.network[0].hidden.weight,
                "buffer": lambda: trainer.model.spoilt,
                "moment": lambda: next(iter(group.optimizer.state.values()))["exp_avg"],
            }[what]().view(-1)[0] = float("nan")
        return results

    trainer._validate = spoilt


@pytest.mark.parametrize(("value", "what"), [("mae", "the score"), ("loss", "the validation loss of balance")])
def test_a_validation_that_is_no_number_is_not_saved(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, value: str, what: str
) -> None:
    if value == "mae":
        monkeypatch.setattr("tests.toy_task.MeanAbsoluteError.compute", lambda self: {"mae": float("nan")})
    trainer = lab.trainer(epochs=1)
    if value == "loss":
        loss = BalanceTask.loss
        monkeypatch.setattr(
            BalanceTask,
            "loss",
            lambda self, output, target: (
                (loss(self, output, target)[0] * (1 if trainer.model.training else float("inf"))),
                target["valid"],
            ),
        )
    with pytest.raises(UserError, match=f"{what} is not finite in epoch 1"):
        trainer.train()
    assert contents(trainer.run.dir) == {}


# ---- metrics that can't be numbers -------------------------------------------------------------------------------


def test_validation_without_boxes_is_said_before_the_epoch(own_workplace: Workplace, call: Call) -> None:
    for path in own_workplace.processed.kind_dir("box").glob("*/*.json"):
        path.write_text('{"size": [1920, 1208], "boxes": []}')
    for script, mode in (("single", "box"), ("asymmetric", "asymmetric")):
        refused = train(call, own_workplace, script, "--train-mode", mode)
        assert_refused(refused, "box: mAP50 over the 4 validation frames would not be a number", "no label has a box")
    assert not own_workplace.runs.exists()


def test_a_cap_that_excludes_all_measurements_is_said_before_the_epoch(workplace: Workplace, call: Call) -> None:
    refused = train(call, workplace, "single", "--train-mode", "depth", *settings("tasks.depth.settings.cap=1.001"))
    assert_refused(refused, "depth: AbsRel over the 4 validation frames would not be a number", "within the range")
    assert not workplace.runs.exists()
