"""Moving average of weights, early stopping, frozen groups."""

import copy
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from models.single import SingleTask
from tests.toy_task import KIND
from tests.training.conftest import Printed, Workplace
from tests.training.test_asymmetric import make_plan
from tests.training.test_loop import Disturbed, Lab, assert_same_state, lab, metrics, signal_self
from tests.training.test_train_multitask import content_of, settings, train
from tests.training.test_train_single_task import assert_refused
from training import checkpoint
from training.averaging import MovingAverage
from training.build import train as train_to_the_end
from training.loop import Interrupted

__all__ = ["lab"]

Call = Callable[..., Printed]
DECAY = 0.7


# ---- the moving average ---------------------------------------------------------------------------------------


def test_it_follows_the_weights_after_each_step_and_is_the_result(lab: Lab) -> None:
    trainer, expected = lab.trainer(ema=DECAY), []
    update = trainer.average.update

    def by_hand() -> None:
        now = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        before = expected[-1] if expected else now
        expected.append([DECAY * a + (1 - DECAY) * w for a, w in zip(before, now, strict=True)])
        update()

    trainer.average.update = by_hand
    trainer.train()
    assert len(expected) == trainer.updates.steps > 5
    last = checkpoint.load(trainer.run.last)
    for name, average in zip(dict(trainer.model.named_parameters()), expected[-1], strict=True):
        assert torch.allclose(last["model"][name], average, atol=1e-6)
        assert not torch.equal(last["model"][name], last["average"]["trained"][name])

    best = checkpoint.load(trainer.run.best)  # its results are those of the average
    again = lab.trainer("again", ema=DECAY)
    again.load_state({**best, "position": {**best["position"], "validated": False}})
    results, _ = again._validate(NeverStops())
    assert results[KIND] == pytest.approx(best["best"]["results"][KIND])


class NeverStops:
    raised = False


@pytest.mark.parametrize("at", [2, 3, 6, 9])
def test_resumed_it_is_as_if_nothing_had_happened(lab: Lab, at: int) -> None:
    whole = lab.trainer("whole", ema=DECAY)
    whole.train()
    first = lab.trainer(task=Disturbed(at, signal_self(signal.SIGTERM)), ema=DECAY)
    with pytest.raises(Interrupted):
        first.train()
    second = lab.trainer(ema=DECAY)
    second.load_state(checkpoint.load(second.run.last))
    second.train()
    for one, other in ((second.run.last, whole.run.last), (second.run.best, whole.run.best)):
        assert_same_state(checkpoint.load(one), checkpoint.load(other))
    assert metrics(second.run) == metrics(whole.run)


def test_statistics_are_those_of_the_trained_network() -> None:
    """Where weights are averaged, batch norm's counts and means are copied, also between steps."""
    norm = nn.BatchNorm2d(3)
    network = SingleTask("a", norm)
    average = MovingAverage(network, copy.deepcopy(network), 0.9)
    average.update()
    norm(torch.randn(4, 3, 2, 2) + 5)
    average.copy_buffers()
    assert_same_state(dict(average.model.named_buffers()), dict(average.trained.named_buffers()))
    with torch.no_grad():
        norm.weight.add_(1)
    average.update()
    assert torch.allclose(average.model.network.weight, torch.full((3,), 1.1))


# ---- early stopping -------------------------------------------------------------------------------------------


def test_training_ends_where_the_score_gets_no_better(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    trainer = lab.trainer(epochs=30, validate_every=2, patience=2)
    trainer.score = lambda results: next(scores)
    trainer.train()
    assert (trainer.best["epoch"], trainer.position.epoch) == (4, 8)
    assert "stopped: no better score in 2 validations" in capsys.readouterr().out

    again = lab.trainer(epochs=30, validate_every=2, patience=2)
    again.load_state(checkpoint.load(again.run.last))
    again.train()
    assert again.position.epoch == 8


def test_patience_needs_a_score(workplace: Workplace, call: Call) -> None:
    both = settings("training.patience=2", "data.split.train_on_val=true")
    assert_refused(train(call, workplace, "symmetric", *both), "training.patience needs validation frames")


# ---- frozen groups --------------------------------------------------------------------------------------------


def test_frozen_groups_stay_as_they_are(workplace: Workplace) -> None:
    plan = make_plan(workplace, "training.freeze=[backbone, depth]", "training.epochs=1", "network.norm=train")
    trainer = plan.trainer()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    train_to_the_end(trainer)
    moved = {
        part_of(name) for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"heads.segmentation", "heads.steering", "heads.box"}  # statistics of batch norm stay too
    content = checkpoint.load(plan.run.last)
    assert set(content["updates"]["groups"]) == {"segmentation", "steering", "box"}
    assert content["updates"]["seen"]["depth"] == content["updates"]["seen"]["backbone"] == 10
    assert make_plan(
        workplace, "training.freeze=[backbone, depth]", "training.epochs=1", "network.norm=train", resume="auto"
    ).start.checkpoint  # which is whole


def part_of(name: str) -> str:
    return ".".join(name.split(".")[: 2 if name.startswith("heads.") else 1])


def test_micro_batches_of_frozen_tasks_alone_are_passed(workplace: Workplace) -> None:
    """Then no loss depends on what learns."""
    one = "data.labels={regime: one}"
    plan = make_plan(workplace, "training.freeze=[backbone, depth, box, steering]", one, "micro_batch_size=1")
    train_to_the_end(plan.trainer())
    assert checkpoint.load(plan.run.last)["updates"]["steps"] >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.freeze=[lanes]"], "no group lanes; there are backbone, segmentation"),
        (["training.freeze=[backbone, segmentation, steering, box, depth]"], "nothing would learn"),
        (["training.freeze=[backbone]", "training.similarity_every=2"], "nor, for the backbone, with"),
    ],
)
def test_what_can_not_be_frozen(workplace: Workplace, changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(workplace, *changes)


def test_a_dry_run_lists_the_groups(workplace: Workplace, call: Call) -> None:
    changes = settings("training.freeze=[depth]", "network.encoder_rate=0.1", "balancing=uncertainty")
    printed = train(call, workplace, "asymmetric", *changes, "--dry-run")
    lines = {" ".join(line.split()) for line in printed.out.splitlines()}
    rows = [line for line in lines if line.startswith(("backbone ", "box ", "depth "))]
    shown = {row.rsplit(" ", 1)[0]: int(row.rsplit(" ", 1)[1].replace(",", "")) for row in rows}
    assert set(shown) == {
        "backbone bifpn 16 0.001 0.01",
        "backbone bifpn: biases, norms 16 0.001 0",
        "backbone encoder 16 0.0001 0.01",
        "backbone encoder: biases, norms 16 0.0001 0",
        "box heads.box 8 0.001 0.01",
        "box heads.box: biases, norms 8 0.001 0",
        "box weights of losses 8 0.005 0",
        "depth heads.depth frozen",
    }
    assert shown["box weights of losses 8 0.005 0"] == 1
    assert train(call, workplace, "asymmetric", *changes, "--name", "run").code == 0
    model: dict[str, Tensor] = content_of(workplace, "run")["model"]
    assert (
        sum(v.numel() for name, v in model.items() if name.startswith("heads.depth."))
        == shown["depth heads.depth frozen"]
    )


def test_what_is_not_used_is_not_written(workplace: Workplace) -> None:
    """A study knows its runs by their configs; those from before these keys are the same."""
    config: dict[str, Any] = json.loads(make_plan(workplace).config.model_dump_json())
    assert not {"ema", "patience", "freeze"} & set(config["training"])
