"""A run that goes on finds the samples of before, or is told that it may go on with others."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from datasets.frames import Frame
from tests.training.conftest import Printed, Workplace
from tests.training.test_train_multitask import content_of, rows_of, settings, train
from tests.training.test_train_single_task import assert_refused
from training import checkpoint
from training.loop import Trainer
from training.step import Sums

Call = Callable[..., Printed]
FLAGS = ("--name", "run", "--train-mode", "steering", *settings("training.epochs=3", "tasks.steering.batch_size=4"))


@pytest.fixture
def interrupted(own_workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Stopped in the second of three epochs, after the first of its three blocks of 4, 4 and 2."""
    accumulate, calls = Trainer._accumulate, []

    def disturbed(self: Trainer, batch: object) -> Sums:
        calls.append(batch)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_accumulate", disturbed)
        assert train(call, own_workplace, "single", *FLAGS).code == 0
    position = content_of(own_workplace, "run")["position"]
    assert (position["epoch"], position["samples"], position["blocks"]) == (1, 10, 1)
    return own_workplace


def frames_of(place: Workplace, part: str) -> list[Frame]:
    return [Frame.parse(name) for name in content_of(place, "run")["split"][part]]


def remove(place: Workplace, part: str, count: int) -> None:
    for frame in frames_of(place, part)[:count]:
        place.processed.path("steering", frame).unlink()


@pytest.mark.parametrize("part", ["train", "val"])
def test_other_samples_are_refused(interrupted: Workplace, call: Call, part: str) -> None:
    before = (interrupted.runs / "run" / "last.pt").read_bytes()
    remove(interrupted, part, 2)
    refused = train(call, interrupted, "single", *FLAGS, "--resume", "auto")
    assert_refused(refused, f"other {part} frames", "--accept-new-labels", "--name")
    assert (interrupted.runs / "run" / "last.pt").read_bytes() == before


def test_the_same_samples_go_on(interrupted: Workplace, call: Call) -> None:
    assert train(call, interrupted, "single", *FLAGS, "--resume", "auto").code == 0
    assert content_of(interrupted, "run")["updates"]["samples_seen"] == 30


def test_accepted_they_start_the_epoch_in_hand_again(interrupted: Workplace, call: Call) -> None:
    """10 samples were seen in the first epoch; 6 remain for each of the other two."""
    factor = checkpoint.load(interrupted.runs / "run" / "last.pt")["updates"]["schedule"]
    remove(interrupted, "train", 4)
    printed = train(call, interrupted, "single", *FLAGS, "--resume", "auto", "--accept-new-labels")
    assert (printed.code, printed.err) == (0, "")
    assert "goes on after 10 samples, epoch 2" in printed.out
    content = content_of(interrupted, "run")
    assert content["position"]["epoch"] == 3
    assert content["updates"]["samples_seen"] == 10 + 2 * 6
    schedule = content["updates"]["schedule"]
    assert (schedule["start"], schedule["end"]) == (10, 22)
    assert 0 < schedule["peak"] < 1 == factor["peak"]
    rates = {
        row["samples"]: row["learning_rate/steering"]
        for row in rows_of(interrupted, "run")
        if "learning_rate/steering" in row
    }
    assert rates[22] > 0
    assert list(rates) == sorted(rates)  # lines of the epoch that was begun are gone
    # and from there on it resumes like any other
    again = train(call, interrupted, "single", *FLAGS, "--resume", "auto")
    assert again.code == 0


def test_accepted_validation_frames_start_the_search_for_the_best_anew(interrupted: Workplace, call: Call) -> None:
    remove(interrupted, "val", 2)
    assert train(call, interrupted, "single", *FLAGS, "--resume", "auto", "--accept-new-labels").code == 0
    content = content_of(interrupted, "run")
    assert content["updates"]["samples_seen"] == 30  # the training samples are the same: the epoch goes on
    assert content["best"]["epoch"] in (2, 3)


def test_the_flag_needs_resume(workplace: Workplace, call: Call) -> None:
    refused = train(call, workplace, "single", *FLAGS, "--accept-new-labels")
    assert refused.code == 2
    assert "--accept-new-labels needs --resume" in refused.err


def test_pending_gradients_are_dropped(own_workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In asymmetric training a stop leaves groups half full; of the new list they must know nothing."""
    flags = ("--name", "run", *settings("training.epochs=2", "block_size=4"))
    calls: list[Any] = []
    accumulate = Trainer._accumulate

    def disturbed(self: Trainer, batch: object) -> Sums:
        calls.append(batch)
        sums = accumulate(self, batch)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return sums

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_accumulate", disturbed)
        assert train(call, own_workplace, "asymmetric", *flags).code == 0
    saved = content_of(own_workplace, "run")
    assert saved["updates"]["groups"]["backbone"]["count"] == 4
    remove(own_workplace, "train", 3)
    restarted: list[dict[str, int]] = []
    start = Trainer.accept_new_samples

    def watched(self: Trainer) -> None:
        start(self)
        restarted.append({name: group.count for name, group in self.updates.groups.items()})
        assert all(p.grad is None for group in self.updates.groups.values() for p in group.parameters)
        assert self.position.blocks == self.updates.samples_seen == 0

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "accept_new_samples", watched)
        assert train(call, own_workplace, "asymmetric", *flags, "--resume", "auto", "--accept-new-labels").code == 0
    assert restarted == [dict.fromkeys(saved["updates"]["groups"], 0)]


# ---- format -----------------------------------------------------------------------------------------------------


def test_an_older_format_is_refused_in_one_line(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "single", *FLAGS).code == 0
    path = workplace.runs / "run" / "last.pt"
    torch.save(torch.load(path, weights_only=True) | {"format": 1}, path)
    refused = train(call, workplace, "single", *FLAGS, "--resume", "auto")
    assert_refused(refused, "last.pt", "format 3", "older version", "train again")


def test_the_checkpoint_names_the_data_set(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "single", *FLAGS).code == 0
    lists = content_of(workplace, "run")["sample_lists"]
    assert lists["data_set"] == "a2d2"
    assert len({lists["train"], lists["val"]}) == 2
