"""What asymmetric training means, against a loop written out by hand. In float64."""

import argparse
import copy
import json
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datasets.a2d2.raw import RawData, seconds_of
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.samples import Batch, Collate, Sample
from datasets.sampling import epoch_order
from datasets.splits import split_by_time
from datasets.transforms import Augmentation
from errors import UserError
from tasks import TASKS
from tests.training.conftest import Workplace
from tests.training.plans import Plan
from tests.training.test_loop import assert_same_state
from training import checkpoint
from training.build import train
from training.config import load_config
from training.loop import Trainer
from training.runs import RUN_CONFIGS
from training.step import Sums
from training.updates import StepReport

BACKBONE = "backbone"
BLOCK, EPOCHS, WARMUP, CLIP, DECAY = 8, 2, 0.1, 0.4, 0.01
BATCH_SIZES = {BACKBONE: 16, "segmentation": 16, "steering": 8, "box": 8, "depth": 8}
RATES = {BACKBONE: 0.003, "segmentation": 0.002, "steering": 0.004, "box": 0.001, "depth": 0.003}
WEIGHTS = {"segmentation": 1.0, "steering": 3.0, "box": 0.05, "depth": 2.0}
SETTINGS = {"box": {"grid": 2, "predictors": 2}}

SHARED = {
    "data": {
        "size": [64, 64],
        "split": {"mode": "time", "fractions": [0.7, 0.2, 0.1], "gap_seconds": 1.0},
        "workers": 0,
    },
    "training": {
        "epochs": EPOCHS,
        "log_every": 1,
        "warmup": WARMUP,
        "clip": CLIP,
        "precision": "fp32",
        "images": 0,
    },
    "network": {"encoder": "small", "pretrained": "none", "channels": 8, "layers": 1},
    "micro_batch_size": 4,
}
ASYMMETRIC = SHARED | {
    "backbone": {"batch_size": BATCH_SIZES[BACKBONE], "learning_rate": RATES[BACKBONE]},
    "tasks": {
        task: {
            "batch_size": BATCH_SIZES[task],
            "learning_rate": RATES[task],
            "weight": WEIGHTS[task],
            "settings": SETTINGS.get(task, {}),
        }
        for task in TASKS
    },
}
SYMMETRIC = SHARED | {
    "batch_size": 8,
    "micro_batch_size": 2,
    "learning_rate": 0.002,
    "tasks": {task: {"weight": WEIGHTS[task], "settings": SETTINGS.get(task, {})} for task in TASKS},
}
CONFIGS = {"asymmetric": ASYMMETRIC, "symmetric": SYMMETRIC}


def make_plan(
    place: Workplace,
    *changes: str,
    kind: str = "asymmetric",
    name: str = "run",
    resume: Any = None,
    accept: bool = False,
) -> Plan:
    """As the training scripts make it; `changes` are of the form KEY=VALUE."""
    path = place.config(json.dumps(CONFIGS[kind]))  # JSON is YAML
    args = argparse.Namespace(
        train_mode=kind,
        config=path,
        name=name,
        runs_root=place.runs,
        data_root=place.raw.root,
        processed_root=[place.processed.root],
        device="cpu",
        resume=resume,
        wandb="disabled",
        dry_run=False,
        stage_to=None,
        accept_new_labels=accept,
        force_trained_norms=False,
        wandb_group=None,
        wandb_project=None,
        extend=None,
        init_from=None,
        baseline=[],
        wandb_best=False,
        only=[],
        wandb_tags=None,
    )
    return Plan.make(args, load_config(RUN_CONFIGS[kind], path, list(changes)).of_mode(kind))


def training_frames(raw: RawData) -> tuple[Frame, ...]:
    frames = raw.frames("camera")
    return split_by_time(frames, {frame: seconds_of(frame) for frame in frames}, (0.7, 0.2, 0.1), 2, 1.0).train


@pytest.fixture(scope="module")
def uneven_data(
    small_data: tuple[RawData, ProcessedData], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RawData, ProcessedData]:
    """10 training frames: 7 with steering, and one depth map without a measurement, one class map without a class."""
    raw, processed = small_data[0], ProcessedData(tmp_path_factory.mktemp("uneven") / "processed")
    shutil.copytree(small_data[1].root, processed.root)
    train = training_frames(raw)
    for frame in train[::4]:
        processed.path("steering", frame).unlink()
    for kind, nothing in (("depth", 0), ("segmentation", 255)):
        path = processed.path(kind, train[5])
        np.save(path, np.full_like(np.load(path, allow_pickle=False), nothing))
    return raw, processed


@pytest.fixture
def place(uneven_data: tuple[RawData, ProcessedData], tmp_path: Path) -> Workplace:
    return Workplace(*uneven_data, tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---- the loop by hand -----------------------------------------------------------------------------------------


@dataclass
class HandGroup:
    """Parameters, their AdamW and what has come since their last step."""

    parameters: list[nn.Parameter]
    rate: float
    batch_size: int
    count: int = 0
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.parameters if p.requires_grad]
        decayed, others = ([p for p in self.parameters if (p.ndim > 1) is many] for many in (True, False))
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups)

    def step(self, factor: float) -> None:
        for p in self.parameters:
            if p.grad is not None:
                p.grad /= self.count
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count = 0


@dataclass
class ByHand:
    """What training comes to: the weights, and at each border of a block which groups step with which count."""

    weights: dict[str, Tensor]
    borders: list[dict[str, int]]


def schedule(seen: int, planned: int) -> float:
    done = seen / planned
    return done / WARMUP if done < WARMUP else 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))


def train_by_hand(
    plan: Plan, rates: Mapping[str, float] = RATES, batch_sizes: Mapping[str, int] = BATCH_SIZES
) -> ByHand:
    """One sample after the other; each group steps at the first border at which its own count is full."""
    model = copy.deepcopy(plan.model).train()
    shared = [*model.encoder.parameters(), *model.bifpn.parameters()]
    groups = {BACKBONE: HandGroup(shared, rates[BACKBONE], batch_sizes[BACKBONE])}
    for task, head in model.heads.items():
        groups[task] = HandGroup(list(head.parameters()), rates[task], batch_sizes[task])
    augmentation = Augmentation(hflip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, seed=0)
    dataset, seen, borders = plan.data.train, 0, []
    for epoch in range(EPOCHS):
        for block in epoch_order(dataset.samples, BLOCK, 0, epoch):
            for visit in block:
                tasks = dataset.samples[visit.place].tasks
                batch = augmentation(Collate(plan.tasks)([dataset[visit]]), plan.tasks, epoch)
                reached = set()
                for task in tasks:
                    output = model(batch.images, {task: None})[task]
                    (loss,), (valid,) = plan.tasks[task].loss(output, batch.targets[task])
                    if valid:
                        (WEIGHTS[task] * loss).backward()
                        reached |= {task, BACKBONE}
                for name in reached:
                    groups[name].count += 1
            middle = seen + len(block) / 2
            seen += len(block)
            borders.append(step_where(groups, lambda group: group.count >= group.batch_size, middle, dataset.samples))
        borders.append(step_where(groups, lambda group: group.count > 0, middle, dataset.samples))
    return ByHand({name: value.detach() for name, value in model.state_dict().items()}, borders)


def step_where(
    groups: Mapping[str, HandGroup], is_due: Callable[[HandGroup], bool], seen: float, samples: list[Sample]
) -> dict[str, int]:
    due = {name: group.count for name, group in groups.items() if is_due(group)}
    for name in due:
        groups[name].step(schedule(seen, EPOCHS * len(samples)))
    return due


@pytest.fixture(scope="module", params=["frame", "label"])
def visit(request: pytest.FixtureRequest) -> str:
    """`visit=...`: the two ways to make samples of frames and their labels."""
    return f"visit={request.param}"


@pytest.fixture(scope="module")
def by_hand(visit: str, uneven_data: tuple[RawData, ProcessedData], tmp_path_factory: pytest.TempPathFactory) -> ByHand:
    torch.set_num_threads(1)
    return train_by_hand(make_plan(Workplace(*uneven_data, tmp_path_factory.mktemp("hand")), visit))


def snapshot(trainer: Trainer) -> dict[str, list[Tensor]]:
    """Group -> copies of its parameters."""
    return {name: [p.detach().clone() for p in group.parameters] for name, group in trainer.updates.groups.items()}


def changed(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> set[str]:
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


@dataclass
class Watched:
    """Who stepped with which count, and whose parameters differ, at each border and between borders."""

    reported: list[dict[str, int]]
    moved: list[set[str]]
    moved_between: set[str]


def watch(trainer: Trainer) -> Watched:
    """Look at the parameters before and after whatever may step."""
    seen, last = Watched([], [], set()), [snapshot(trainer)]

    def watched(step: Callable[[], list[StepReport]]) -> Callable[[], list[StepReport]]:
        def call() -> list[StepReport]:
            before = snapshot(trainer)
            seen.moved_between.update(changed(last[0], before))
            reports = step()
            last[0] = snapshot(trainer)
            seen.moved.append(changed(before, last[0]))
            seen.reported.append({report.group: report.samples for report in reports})
            return reports

        return call

    updates = trainer.updates
    updates.step_full_groups, updates.step_rest = watched(updates.step_full_groups), watched(updates.step_rest)
    return seen


# ---- (a) and (b) ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 8])
def test_updates_are_those_of_the_loop_by_hand_for_every_micro_batch_size(
    place: Workplace, visit: str, by_hand: ByHand, micro_batch_size: int
) -> None:
    trainer = make_plan(place, visit, f"micro_batch_size={micro_batch_size}").trainer()
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert trainer.data.micro_batch_size == micro_batch_size
    trained = trainer.model.state_dict()
    assert trained["encoder.resnet.conv1.weight"].dtype == torch.float64
    for name, value in by_hand.weights.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-9)
    moved = {name.split(".")[0] for name, value in trained.items() if (value - start[name]).abs().max() > 1e-4}
    assert moved == {"encoder", "bifpn", "heads"}


def test_a_group_changes_exactly_when_its_own_count_is_full(place: Workplace, visit: str, by_hand: ByHand) -> None:
    trainer = make_plan(place, visit).trainer()
    watched = watch(trainer)
    trainer.train()
    assert watched.reported == by_hand.borders
    assert watched.moved_between == set()
    assert watched.moved == [set(due) for due in by_hand.borders]
    # and the data are such that groups fill at their own pace
    full = [frozenset(due) for due in by_hand.borders]
    assert len(set(full)) > 2
    assert any(due and BACKBONE not in due for due in full)


def test_samples_without_a_valid_label_fill_no_group(place: Workplace, visit: str, by_hand: ByHand) -> None:
    """10 frames; 7 steering labels, 10 depth and 10 class maps of which one each is empty."""
    sums = Counter()
    for due in by_hand.borders:
        sums.update(due)
    valid = {"segmentation": 9, "steering": 7, "box": 10, "depth": 9}
    backbone, samples = (10, 10) if visit == "visit=frame" else (sum(valid.values()), 37)
    assert sums == {name: EPOCHS * count for name, count in {**valid, BACKBONE: backbone}.items()}
    trainer = make_plan(place, visit).trainer()
    trainer.train()
    assert trainer.updates.seen == sums
    assert trainer.updates.samples_seen == EPOCHS * samples


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_symmetric_training_from_partial_labels_is_that_of_the_loop_by_hand(
    place: Workplace, micro_batch_size: int
) -> None:
    """`frames: any`: every group steps after each block; heads divide by their own counts, the backbone by frames."""
    plan = make_plan(place, "frames=any", f"micro_batch_size={micro_batch_size}", kind="symmetric")
    assert [len(sample.tasks) for sample in plan.data.train.samples].count(3) == 3  # 3 of 10 lack steering
    by_hand = train_by_hand(plan, dict.fromkeys(RATES, 0.002), dict.fromkeys(BATCH_SIZES, 1))
    trainer = plan.trainer()
    watched = watch(trainer)
    trainer.train()
    # the loop by hand has two looks at each epoch's end, and nothing is left for the second
    assert watched.reported == by_hand.borders
    assert [due[BACKBONE] for due in watched.reported if due] == [8, 2] * EPOCHS
    assert sum(due.get("steering", 0) for due in watched.reported) == EPOCHS * 7
    for name, value in by_hand.weights.items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=0, atol=1e-9)


# ---- (c) ------------------------------------------------------------------------------------------------------


def visits_of(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Frame, str]]:
    """What the loop trains on, counted while it runs."""
    visits: Counter[tuple[Frame, str]] = Counter()
    accumulate = trainer._accumulate

    def counted(batch: Batch) -> Sums:
        visits.update((sample.frame, task) for sample in batch.samples for task in sample.tasks)
        return accumulate(batch)

    monkeypatch.setattr(trainer, "_accumulate", counted)
    return visits


def test_an_epoch_visits_each_label_once(place: Workplace, visit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_plan(place, visit, "training.epochs=1").trainer()
    visits = visits_of(trainer, monkeypatch)
    trainer.train()
    files = {
        (frame, task)
        for frame in training_frames(place.raw)
        for task in TASKS
        if place.processed.path(task, frame).exists()
    }
    assert len(files) == 37
    assert visits == Counter(files)


def test_the_remainder_steps_with_its_true_count(place: Workplace) -> None:
    """10 frames in a block of 8 and one of 2. Box: 10 labels in batches of 8; steering: 7; classes: 9 valid of 16."""
    trainer = make_plan(place, "training.epochs=1").trainer()
    watched = watch(trainer)
    trainer.train()
    for group, counts in {"box": [8, 2], "steering": [7], "segmentation": [9], BACKBONE: [10]}.items():
        assert [due[group] for due in watched.reported if group in due] == counts
    assert all(group.count == 0 for group in trainer.updates.groups.values())
    assert all(p.grad is None for group in trainer.updates.groups.values() for p in group.parameters)


def test_uniform_sampling_repeats_the_small_pool(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_plan(place, "training.epochs=1", "visit=label", "sampling=uniform").trainer()
    visits = visits_of(trainer, monkeypatch)
    trainer.train()
    by_task = Counter()
    for (_, task), times in visits.items():
        by_task[task] += times
    assert sum(by_task.values()) == 37
    assert set(by_task.values()) <= {9, 10}
    assert {times for (_, task), times in visits.items() if task == "steering"} == {1, 2}


# ---- (d) ------------------------------------------------------------------------------------------------------


def head_of(trainer: Trainer, task: str) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.heads[task].state_dict().items()}


def assert_left_alone(trainer: Trainer, before: dict[str, Tensor], task: str) -> None:
    assert_same_state(head_of(trainer, task), before)
    assert trainer.updates.seen[task] == 0
    assert not trainer.updates.groups[task].optimizer.state
    for row in map(json.loads, trainer.run.metrics.read_text().splitlines()):
        assert all(value is not None for name, value in row.items() if name.startswith(("train", "gradient", "weight")))
        assert f"train/{task}/loss" not in row
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    assert math.isfinite(trainer.best["score"])


@pytest.mark.parametrize(
    ("task", "more"),
    [("segmentation", ()), ("box", ("visit=label", "sampling=uniform")), ("steering", ("balancing=uncertainty",))],
)
def test_a_task_without_training_labels_leaves_its_head_untouched(
    place: Workplace, task: str, more: tuple[str, ...]
) -> None:
    labels = f"data.labels={{regime: fractions, fractions: {{{task}: 0}}}}"
    plan = make_plan(place, labels, *more)
    assert f"{task} 0" in plan.describe()
    trainer = plan.trainer()
    before, others = head_of(trainer, task), [name for name in TASKS if name != task]
    untrained = {name: head_of(trainer, name) for name in others}
    trainer.train()
    assert_left_alone(trainer, before, task)
    for name in others:
        assert not all(torch.equal(value, untrained[name][key]) for key, value in head_of(trainer, name).items())
    # it is validated like the others, but decides nothing
    results, constant = trainer.best["results"], trainer.constants["constant"]
    assert set(results) == set(TASKS)
    scores = [plan.tasks[name].relative_score(results[name], constant.get(name, {})) for name in others]
    assert trainer.best["score"] == pytest.approx(sum(scores) / 3)


def test_a_kind_whose_files_are_all_missing(place: Workplace, tmp_path: Path) -> None:
    """The preprocessing script has run and found nothing: neither training nor validation frames have the label."""
    processed = ProcessedData(tmp_path / "processed")
    shutil.copytree(place.processed.root, processed.root)
    for frame in processed.frames("steering"):
        processed.path("steering", frame).unlink()
    trainer = make_plan(Workplace(place.raw, processed, tmp_path), "training.epochs=1").trainer()
    before = head_of(trainer, "steering")
    trainer.train()
    assert_left_alone(trainer, before, "steering")
    assert set(trainer.best["results"]) == {"segmentation", "box", "depth"}


def test_a_network_fitted_to_labels_does_without(place: Workplace) -> None:
    """DenseDepth's head starts at the median of the training labels."""
    trainer = make_plan(place, "training.epochs=1", "data.labels={regime: fractions, fractions: {depth: 0}}").trainer()
    before = head_of(trainer, "depth")
    trainer.train()
    assert_left_alone(trainer, before, "depth")


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # the constant baseline's
def test_a_trained_task_must_be_validated(place: Workplace, tmp_path: Path) -> None:
    processed = ProcessedData(tmp_path / "processed")
    shutil.copytree(place.processed.root, processed.root)
    for frame in set(processed.frames("steering")) - set(training_frames(place.raw)):
        processed.path("steering", frame).unlink()
    with pytest.raises(
        UserError, match="steering: MAE over the 4 validation frames would not be a number: none has a label"
    ):
        make_plan(Workplace(place.raw, processed, tmp_path), "training.epochs=1").trainer().train()


# ---- (e) ------------------------------------------------------------------------------------------------------


def interrupt_at(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, micro_batch: int) -> None:
    """The process gets SIGTERM while the n-th micro-batch is in hand."""
    accumulate, calls = trainer._accumulate, []

    def disturbed(batch: Batch) -> Sums:
        calls.append(batch)
        if len(calls) == micro_batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(batch)

    monkeypatch.setattr(trainer, "_accumulate", disturbed)


def run_to_end(plan: Plan) -> None:
    train(plan.trainer())


def saved(plan: Plan, name: str) -> dict[str, Any]:
    """A checkpoint without what tells runs apart."""
    content = checkpoint.load(plan.run.dir / name)
    del content["wandb_id"]
    return content


def rows_of(plan: Plan) -> list[dict[str, Any]]:
    rows = map(json.loads, plan.run.metrics.read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "speed/samples_per_second"} for row in rows]


RESUMED = [
    ("asymmetric", ("training.epochs=1", "training.similarity_every=2", "visit=label"), 1),
    ("asymmetric", ("training.epochs=1", "visit=label", "sampling=uniform", "balancing=uncertainty"), 5),
    ("asymmetric", ("block_size=4",), 1),
]


@pytest.mark.parametrize(("kind", "changes", "at"), RESUMED)
def test_resumed_with_half_full_groups_is_as_if_nothing_had_happened(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, kind: str, changes: tuple[str, ...], at: int
) -> None:
    whole = make_plan(place, *changes, kind=kind, name="whole")
    run_to_end(whole)

    first = make_plan(place, *changes, kind=kind, name="parts")
    trainer = first.trainer()
    interrupt_at(trainer, monkeypatch, at)
    train(trainer)
    assert first.run.interrupted.exists()
    assert_half_full(saved(first, "last.pt"))

    torch.manual_seed(99)  # another process
    second = make_plan(place, *changes, kind=kind, name="parts", resume="auto")
    run_to_end(second)
    for name in ("last.pt", "best.pt"):
        assert_same_state(saved(second, name), saved(whole, name))
    assert rows_of(second) == rows_of(whole)


@pytest.mark.parametrize("method", ["dwa", "imtl_l"])
def test_a_scalarization_resumes_in_the_midst_of_an_epoch(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    changes = ("training.epochs=4", f"balancing={method}", "batch_size=4", "micro_batch_size=2")
    whole = make_plan(place, *changes, kind="symmetric", name="whole")
    run_to_end(whole)
    first = make_plan(place, *changes, kind="symmetric", name="parts")
    trainer = first.trainer()
    interrupt_at(trainer, monkeypatch, 6)
    train(trainer)
    assert saved(first, "last.pt")["position"]["blocks"] > 0
    torch.manual_seed(99)  # another process
    second = make_plan(place, *changes, kind="symmetric", name="parts", resume="auto")
    run_to_end(second)
    assert_same_state(saved(second, "last.pt"), saved(whole, "last.pt"))
    assert rows_of(second) == rows_of(whole)


def assert_half_full(content: dict[str, Any]) -> None:
    """The checkpoint lies within an epoch and holds pending gradients."""
    groups = content["updates"]["groups"]
    counts = {name: group["count"] for name, group in groups.items()}
    assert content["position"]["blocks"] > 0
    assert counts[BACKBONE] > 0
    assert any(0 < count < BATCH_SIZES[name] for name, count in counts.items())
    for name, group in groups.items():
        pending = any(gradient is not None and gradient.any() for gradient in group["gradients"])
        rows = content["balancing"].get("pending", [])  # of aggregated gradients
        assert (pending or (name == BACKBONE and any(row.any() for row in rows))) == (counts[name] > 0)


# ---- (f) ------------------------------------------------------------------------------------------------------


def flops(module: nn.Module, *arguments: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        module(*arguments)
    return counter.get_total_flops()


def forward_costs(trainer: Trainer) -> list[tuple[dict[str, int], int, int]]:
    """Of an epoch, by micro-batch: task -> images that its head sees, images in all, FLOP."""
    model, forward, costs = trainer.model, trainer.model.forward, []

    def counted(images: Tensor, places: dict[str, Tensor | None]) -> dict[str, Any]:
        with FlopCounterMode(display=False) as counter:
            outputs = forward(images, places)
        if model.training:
            seen = {task: len(images if where is None else where) for task, where in places.items()}
            costs.append((seen, len(images), counter.get_total_flops()))
        return outputs

    model.forward = counted
    trainer.train()
    return costs


def test_a_micro_batch_costs_the_backbone_once_and_each_head_its_own_images(place: Workplace, visit: str) -> None:
    trainer = make_plan(place, visit, "training.epochs=1").trainer()
    model = trainer.model
    costs = forward_costs(trainer)
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    levels = model.encoder(image)
    fused = model.bifpn(levels)
    shared = flops(model.encoder, image) + flops(model.bifpn, levels)
    heads = {task: flops(head, fused) for task, head in model.heads.items()}
    assert min(heads.values()) > 0
    assert any(0 < seen.get("steering", 0) < samples for seen, samples, _ in costs)
    for seen, samples, cost in costs:
        assert cost == samples * shared + sum(count * heads[task] for task, count in seen.items())


def test_frames_with_all_labels_cost_what_symmetric_training_costs(small_data: Any, tmp_path: Path) -> None:
    """And, visited label by label, the backbone once for each label."""
    place = Workplace(*small_data, tmp_path)
    totals = {}
    for name, kind, changes in (
        ("symmetric", "symmetric", ()),
        ("frame", "asymmetric", ("visit=frame",)),
        ("label", "asymmetric", ("visit=label",)),
    ):
        trainer = make_plan(place, "training.epochs=1", *changes, kind=kind, name=name).trainer()
        totals[name] = sum(cost for _, _, cost in forward_costs(trainer))
    assert totals["frame"] == totals["symmetric"]
    assert totals["label"] > 2 * totals["frame"]
