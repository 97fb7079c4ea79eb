"""The loop: what may be interrupted, cut and resumed without a trace, and what must stop it."""

import json
import math
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.a2d2.raw import RawData
from datasets.layout import RunDir
from datasets.processed import OTHER_SUFFIXES, ProcessedData
from datasets.roots import Root, Roots
from datasets.samples import LabelledFrames, Sample
from datasets.transforms import Augmentation
from errors import UserError
from models.single import SingleTask
from signals import ENDING
from tasks.base import Target
from tasks.written import Written
from tests.raw_files import frames, random_picture, small_raw_data, write_png
from tests.toy_task import KIND, SUFFIXES, BalanceNet, BalanceTask, balance_of, write_balances
from tests.training.checkpoints import CONSTANTS
from training import checkpoint
from training.config import GroupConfig, TrainingConfig
from training.data import Data
from training.evaluation import Precision, make_loader
from training.loop import Interrupted, Trainer
from training.methods.fixed import Fixed
from training.stopping import StopFlag
from training.tracking import Tracker
from training.updates import Group, LossScale, Schedule, Updates

CPU = torch.device("cpu")
SIZE = (24, 16)
TRAIN, VALIDATION = frames(13)[:10], frames(13)[10:]
EPOCHS = 3


@dataclass
class Lab:
    """Data on disk and a folder for runs; `trainer` starts afresh each time, as a new process would."""

    raw: RawData
    processed: ProcessedData
    runs: Path

    def run(self, name: str = "run") -> RunDir:
        return RunDir(self.runs, name)

    def trainer(
        self,
        name: str = "run",
        *,
        task: BalanceTask | None = None,
        micro_batch_size: int = 2,
        workers: int = 0,
        dropout: float = 0.0,
        wandb_run: Any = None,
        **config: Any,
    ) -> Trainer:
        torch.manual_seed(0)
        task = task or BalanceTask()
        tasks = {KIND: task}
        camera = Roots([Root.open(self.raw, self.processed, SIZE)])
        train, val = (LabelledFrames(camera, tasks, [Sample(f, (KIND,)) for f in part]) for part in (TRAIN, VALIDATION))
        model = SingleTask(KIND, nn.Sequential(BalanceNet(**task.outputs()), nn.Dropout(dropout)))
        settings = TrainingConfig(**{"epochs": EPOCHS, "log_every": 1, "warmup": 0.1} | config)
        updates = Updates(
            [Group(KIND, model.parameters(), GroupConfig(batch_size=4, learning_rate=0.05), settings.clip)],
            schedule=Schedule.over(settings.epochs * len(TRAIN), settings.warmup),
            loss_scale=LossScale(enabled=False),
        )
        run = self.run(name)
        run.dir.mkdir(parents=True, exist_ok=True)
        return Trainer(
            model=model,
            tasks=tasks,
            balancing=Fixed({KIND: 1.0}),
            updates=updates,
            augmentation=Augmentation(hflip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, seed=0),
            score=lambda results: task.score(results[KIND]),
            data=Data(
                train, val, block_size=4, micro_batch_size=micro_batch_size, sampling="proportional", workers=workers
            ),
            config=settings,
            precision=Precision("fp32", CPU),
            seed=0,
            run=run,
            tracker=Tracker(run, wandb_run),
            constants=CONSTANTS,
        )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setitem(OTHER_SUFFIXES, KIND, SUFFIXES)
    raw, processed = small_raw_data(tmp_path / "raw"), ProcessedData(tmp_path / "processed")
    processed.describe("a2d2")
    rng, balances = np.random.default_rng(0), {}
    for frame in TRAIN + VALIDATION:
        picture = random_picture(rng)
        picture[:, :48] //= rng.integers(1, 4, dtype=np.uint8)
        write_png(raw.path("camera", frame), picture)
        balances[frame] = balance_of(picture)
    processed.kind_dir(KIND).mkdir(parents=True)
    write_balances(processed, balances)
    return Lab(raw, processed, tmp_path / "runs")


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "speed/samples_per_second"} for row in rows]


def weights(source: Trainer | RunDir) -> dict[str, Tensor]:
    return source.model.state_dict() if isinstance(source, Trainer) else checkpoint.load(source.last)["model"]


def assert_same_state(a: Any, b: Any, where: str = "") -> None:
    """Bit for bit, however deep."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same_state(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same_state(one, other, f"{where}.{i}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), where  # NaN is like NaN


class Disturbed(BalanceTask):
    """Does something at the n-th call of `loss` (training and validation alike)."""

    def __init__(self, at: int, what: Callable[[], None]):
        super().__init__()
        self.at, self.what, self.calls = at, what, 0

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            self.what()
        return super().loss(output, target)


def signal_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


# ---- learning -------------------------------------------------------------------------------------------------


def test_it_learns(lab: Lab) -> None:
    trainer = lab.trainer(epochs=30)
    trainer.train()
    maes = [row[f"val/{KIND}/mae"] for row in metrics(trainer.run) if f"val/{KIND}/mae" in row]
    assert len(maes) == 30
    assert min(maes) < 0.5 * maes[0]


@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_weights_do_not_depend_on_the_micro_batch_size(lab: Lab, micro_batch_size: int) -> None:
    trainers = [lab.trainer("two", micro_batch_size=2), lab.trainer("other", micro_batch_size=micro_batch_size)]
    for trainer in trainers:
        trainer.train()
    for name, value in weights(trainers[0]).items():
        torch.testing.assert_close(weights(trainers[1])[name], value, rtol=0, atol=1e-9)
    assert not torch.equal(
        weights(lab.trainer("new"))["network.0.hidden.weight"], weights(trainers[0])["network.0.hidden.weight"]
    )


def test_weights_do_not_depend_on_workers(lab: Lab) -> None:
    trainers = [lab.trainer("none"), lab.trainer("some", workers=2)]
    for trainer in trainers:
        trainer.train()
    assert_same_state(weights(trainers[0]), weights(trainers[1]))


def test_every_sample_counts_in_every_epoch(lab: Lab) -> None:
    """10 samples in groups of 4: what is left over steps too, and nothing is pending between epochs."""
    trainer = lab.trainer()
    trainer.train()
    assert trainer.updates.samples_seen == EPOCHS * len(TRAIN)
    assert trainer.updates.groups[KIND].count == 0
    seen = [row["samples"] for row in metrics(trainer.run) if f"train/{KIND}/loss" in row]
    assert {10, 20, 30} <= set(seen)


def test_samples_without_label_add_nothing(lab: Lab) -> None:
    for frame in TRAIN[::2]:
        lab.processed.path(KIND, frame).unlink()
    counted: list[int] = []
    trainer = lab.trainer(epochs=1, micro_batch_size=1)
    add = trainer.updates.add
    trainer.updates.add = lambda samples, counts: counted.append(counts[KIND]) or add(samples, counts)
    trainer.train()
    assert sum(counted) == 5
    assert trainer.updates.samples_seen == 10
    assert not trainer.unreadable


def test_validation_is_due_every_so_often_and_at_the_end(lab: Lab) -> None:
    trainer = lab.trainer(epochs=5, validate_every=2)
    trainer.train()
    assert [row["epoch"] for row in metrics(trainer.run) if "epoch" in row] == [2, 4, 5]


# ---- interrupted and resumed ----------------------------------------------------------------------------------

# an epoch: 3 blocks of 4, 4 and 2 samples = 5 micro-batches; then 2 batches of validation
CALLS_OF_AN_EPOCH = 7


@pytest.fixture
def whole(lab: Lab) -> RunDir:
    """A run that nobody disturbs; with dropout, so that random states matter."""
    trainer = lab.trainer("whole", dropout=0.3)
    trainer.train()
    return trainer.run


@pytest.mark.parametrize("number", ENDING)
def test_each_signal_asks_for_a_stop(number: int) -> None:
    with StopFlag() as stop:
        assert not stop.raised
        os.kill(os.getpid(), number)
        assert stop.raised


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, CALLS_OF_AN_EPOCH + 4, 3 * CALLS_OF_AN_EPOCH - 1])
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(lab: Lab, whole: RunDir, number: int, at: int) -> None:
    """At every kind of moment: within a block, at its border, at an epoch's last micro-batch, during validation."""
    first = lab.trainer(task=Disturbed(at, signal_self(number)), dropout=0.3)
    with pytest.raises(Interrupted):
        first.train()
    assert first.tasks[KIND].calls - at <= 2  # it finishes the block in hand, and goes one step into a validation
    torch.manual_seed(99)  # another process
    second = lab.trainer(dropout=0.3)
    torch.rand(3)
    second.load_state(checkpoint.load(second.run.last))
    second.train()
    assert_same_state(checkpoint.load(second.run.last), checkpoint.load(whole.last))
    assert_same_state(checkpoint.load(second.run.best), checkpoint.load(whole.best))
    assert metrics(second.run) == metrics(whole)


def test_interrupted_again_and_again(lab: Lab, whole: RunDir) -> None:
    for start in range(100):
        trainer = lab.trainer(task=Disturbed(3, signal_self(signal.SIGTERM)), dropout=0.3)
        if start:
            trainer.load_state(checkpoint.load(trainer.run.last))
        try:
            trainer.train()
        except Interrupted:
            continue
        break
    assert start > 3
    assert_same_state(checkpoint.load(trainer.run.last), checkpoint.load(whole.last))
    assert metrics(trainer.run) == metrics(whole)


def test_killed_and_resumed_repeats_what_was_lost(lab: Lab, whole: RunDir) -> None:
    """Without a signal that could be caught: goes on from the last epoch's checkpoint, without duplicate lines."""

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    trainer = lab.trainer(task=Disturbed(2 * CALLS_OF_AN_EPOCH + 3, kill), dropout=0.3)
    with pytest.raises(Killed):
        trainer.train()
    resumed = lab.trainer(dropout=0.3)
    resumed.load_state(checkpoint.load(resumed.run.last))
    assert resumed.position.epoch == 2
    resumed.train()
    assert_same_state(checkpoint.load(resumed.run.last), checkpoint.load(whole.last))
    assert metrics(resumed.run) == metrics(whole)


def test_going_on_from_the_best_checkpoint_does_not_validate_again(lab: Lab) -> None:
    trainer = lab.trainer(epochs=1)
    trainer.train()
    again = lab.trainer(epochs=2)
    again.load_state(checkpoint.load(again.run.best))
    again.train()
    assert [row["epoch"] for row in metrics(again.run) if "epoch" in row] == [1, 2]


def test_a_finished_run_has_nothing_left_to_do(lab: Lab, whole: RunDir) -> None:
    before = whole.last.read_bytes()
    trainer = lab.trainer("whole", task=Disturbed(1, lambda: pytest.fail("trained")), dropout=0.3)
    trainer.load_state(checkpoint.load(whole.last))
    trainer.train()
    assert whole.last.read_bytes() == before


def test_loaders_consume_no_random_numbers(lab: Lab) -> None:
    camera = Roots([Root.open(lab.raw, lab.processed, SIZE)])
    tasks = {KIND: BalanceTask()}
    data = LabelledFrames(camera, tasks, [Sample(frame, (KIND,)) for frame in TRAIN])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for workers in (0, 1):
        loader = make_loader(data, tasks, workers, CPU, batch_size=2)
        assert len(list(loader)) == len(list(loader)) == 5
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


# ---- what stops a run, and what does not ----------------------------------------------------------------------


class Poisoned(BalanceTask):
    """Not finite where the label is: the loss, or only its gradient."""

    def __init__(self, frame_balance: float, gradient_only: bool):
        super().__init__()
        self.balance, self.gradient_only = frame_balance, gradient_only

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        losses, valid = super().loss(output, target)
        hit = target["balance"].abs() == abs(self.balance)
        if self.gradient_only:  # the root's slope at 0 is infinite
            return losses + torch.where(hit, (output - output.detach()).sqrt(), 0), valid
        return torch.where(hit, math.nan, losses), valid


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_loss_that_is_not_finite_stops_and_names_the_frames(lab: Lab, gradient_only: bool) -> None:
    first = lab.trainer(epochs=1)
    first.train()
    kept, trained = first.run.last.read_bytes(), weights(first)
    poisoned = Poisoned(BalanceTask().read(lab.processed, TRAIN[4]).item(), gradient_only)
    trainer = lab.trainer(task=poisoned, epochs=2, micro_batch_size=4)
    trainer.load_state(checkpoint.load(first.run.last))
    with pytest.raises(UserError) as error:
        trainer.train()
    text = str(error.value)
    assert "not finite in epoch 2" in text
    assert gradient_only or str(TRAIN[4]) in text  # a gradient has come from several batches
    assert "\n" not in text
    assert text.count("20180807_145028/") <= 4  # of that batch only
    assert first.run.last.read_bytes() == kept
    assert_same_state(checkpoint.load(first.run.last)["model"], trained)


def test_an_unreadable_frame_is_counted_and_named(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    lab.raw.path("camera", TRAIN[3]).write_bytes(b"no PNG")
    lab.raw.path("camera", VALIDATION[1]).write_bytes(b"")
    trainer = lab.trainer()
    trainer.train()
    err = capfd.readouterr().err
    for frame in (TRAIN[3], VALIDATION[1]):
        assert err.count(f"{frame}: ") == 1  # once, not in every epoch
    assert "2 so far" in err
    assert len(trainer.unreadable) == 2
    assert len(checkpoint.load(trainer.run.last)["unreadable"]) == 2


def test_a_micro_batch_without_anything_readable_is_passed_over(lab: Lab) -> None:
    for frame in TRAIN[:7]:
        lab.raw.path("camera", frame).write_bytes(b"no PNG")
    trainer = lab.trainer(micro_batch_size=1)
    trainer.train()
    assert trainer.position.epoch == EPOCHS


def test_no_readable_validation_frame_is_the_users_to_mend(lab: Lab) -> None:
    for frame in VALIDATION:
        lab.raw.path("camera", frame).write_bytes(b"no PNG")
    with pytest.raises(UserError, match=f"no validation frame has a readable .* label of {KIND}"):
        lab.trainer().train()


@pytest.mark.parametrize(
    ("higher", "scores", "best"),
    [
        (True, [1.0, 3.0, 2.0], 2),
        (False, [3.0, 1.0, 2.0], 2),
        (True, [3.0, 1.0, 3.0], 1),  # the first of equals
    ],
)
def test_best_is_the_best_by_the_tasks_metric(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, higher: bool, scores: list[float], best: int
) -> None:
    pytest.importorskip("wandb", reason="tables on the dashboard are wandb's; without it nothing is logged")
    coming = iter(scores)
    monkeypatch.setattr("tests.toy_task.MeanAbsoluteError.compute", lambda self: {"mae": next(coming)})
    monkeypatch.setattr(BalanceTask, "metrics", {"mae": Written("MAE", better="higher" if higher else "lower")})
    summary: dict[str, Any] = {}

    class Run:
        def __init__(self) -> None:
            self.summary = summary

        def log(self, row: dict[str, Any], step: int) -> None: ...

    trainer = lab.trainer(wandb_run=Run())
    trainer.train()
    kept = checkpoint.load(trainer.run.best)
    assert kept["position"]["epoch"] == kept["best"]["epoch"] == best
    assert kept["best"]["results"][KIND]["mae"] == scores[best - 1]
    assert checkpoint.load(trainer.run.last)["position"]["epoch"] == EPOCHS
    assert (summary["best/epoch"], summary[f"best/{KIND}/mae"]) == (best, scores[best - 1])
