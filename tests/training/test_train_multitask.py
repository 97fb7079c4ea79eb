"""train_symmetric.py and train_asymmetric.py as a user meets them; evaluate.py on what they leave."""

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import evaluate
import train_asymmetric
import train_single_task
import train_symmetric
from datasets.frames import Frame
from datasets.samples import Sample
from tasks import TASKS
from tests.training.conftest import Printed, Workplace
from tests.training.plans import Plan, noting
from tests.training.test_train_single_task import assert_refused
from training import build, checkpoint, summary

Call = Callable[..., Printed]

SHARED = {
    "data": {
        "size": [64, 64],
        "split": {"mode": "time", "fractions": [0.7, 0.2, 0.1], "gap_seconds": 1.0},
        "workers": 0,
    },
    "training": {"epochs": 1, "log_every": 1},
}
NETWORK = {"encoder": "small", "pretrained": "none", "channels": 8, "layers": 1}
SETTINGS = {
    "segmentation": {},
    "steering": {},
    "box": {"grid": 2, "predictors": 2},
    "depth": {},
}
SINGLE = {"box": {"base_channels": 2, "pairs": [1]}, "depth": {"encoder": "small", "pretrained": "none"}}
CONFIGS: dict[str, dict[str, Any]] = {
    "single": SHARED
    | {
        "tasks": {
            task: {
                "batch_size": 8,
                "micro_batch_size": 4,
                "learning_rate": 0.001,
                "network": SINGLE.get(task, {}),
                "settings": settings,
            }
            for task, settings in (SETTINGS | {"box": {"grid": 4}}).items()
        }
    },
    "symmetric": SHARED
    | {
        "network": NETWORK,
        "batch_size": 8,
        "micro_batch_size": 4,
        "learning_rate": 0.001,
        "tasks": {task: {"weight": 1.0, "settings": settings} for task, settings in SETTINGS.items()},
    },
    "asymmetric": SHARED
    | {
        "network": NETWORK,
        "micro_batch_size": 4,
        "backbone": {"batch_size": 16, "learning_rate": 0.001},
        "tasks": {
            task: {"batch_size": 8, "learning_rate": 0.001, "weight": 1.0, "settings": settings}
            for task, settings in SETTINGS.items()
        },
    },
}
MAINS = {"single": train_single_task.main, "symmetric": train_symmetric.main, "asymmetric": train_asymmetric.main}
ONE = "data.labels={regime: one, seed: 3, proportions: {steering: 4}}"
SHARES = "data.labels={regime: fractions, seed: 3, fractions: {depth: 0.5, box: 0.2}}"


@pytest.fixture(autouse=True)
def _layout_of_rows() -> Iterator[None]:
    """autograd finds rows of aggregated gradients that are not channels-last slow, not wrong, and says so once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey")
        yield


def train(call: Call, place: Workplace, script: str, *flags: str) -> Printed:
    path = place.dir / f"{script}.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[script], sort_keys=False))
    where = ("--config", str(path), "--runs-root", str(place.runs), "--wandb", "disabled")
    return call(MAINS[script], *place.roots(), *where, *flags)


def settings(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def content_of(place: Workplace, name: str) -> dict[str, Any]:
    return checkpoint.load(place.runs / name / "last.pt")


def rows_of(place: Workplace, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place.runs / name / "metrics.jsonl").read_text().splitlines()]


def keys_of(place: Workplace, name: str) -> set[str]:
    return {key for row in rows_of(place, name) for key in row}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """What every training script has before its loop."""
    made: list[Plan] = []
    monkeypatch.setattr(summary, "describe", noting(made))
    return made


# ---- training and evaluating ----------------------------------------------------------------------------------

BY_LABEL = "visit=label"
PER_TASK_10 = "segmentation 10, steering 10, box 10, depth 10"
RUNS = [
    ("symmetric", (), (), PER_TASK_10, 10),
    ("symmetric", ("--train-mode", "depth"), (), "depth 10", 10),
    ("asymmetric", (), (), PER_TASK_10, 10),
    ("asymmetric", (), ("visit=label",), PER_TASK_10, 40),
    ("asymmetric", (), (BY_LABEL, SHARES), "segmentation 10, steering 10, box 2, depth 5", 27),
    ("asymmetric", (), ("visit=label", "sampling={steering: 3, depth: 1}"), PER_TASK_10, 40),
]


@pytest.mark.parametrize(("script", "mode", "changes", "samples", "total"), RUNS)
def test_dry_run_and_real_run(
    workplace: Workplace,
    call: Call,
    script: str,
    mode: tuple[str, ...],
    changes: tuple[str, ...],
    samples: str,
    total: int,
) -> None:
    flags = (*mode, *settings(*changes), "--name", "run")
    dry = train(call, workplace, script, *flags, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert not workplace.runs.exists()
    assert f"samples planned: {total}, in blocks of 8; " in dry.out

    printed = train(call, workplace, script, *flags)
    assert (printed.code, printed.err) == (0, "")
    plan, groups, _ = dry.out.partition("\ngroup ")  # the table of parameters
    assert groups
    assert printed.out.startswith(plan + "\n")
    content = content_of(workplace, "run")
    tasks = dict(part.split() for part in samples.split(", "))
    for task, count in tasks.items():
        assert f"{task} {count}" in printed.out.split("with a label of ")[1].split(";")[0]
    assert content["samples"] == {task: int(count) for task, count in tasks.items()}
    assert content["updates"]["samples_seen"] == total
    assert set(content["updates"]["seen"]) == {"backbone", *tasks}
    assert content["best"]["results"].keys() == tasks.keys()
    assert 0 <= content["best"]["score"] <= 1
    assert {path.name for path in (workplace.runs / "run").iterdir()} >= {"best.pt", "config.yaml", "split.json"}
    assert {f"val/{task}/loss" for task in tasks} <= keys_of(workplace, "run")


def seen(place: Workplace, name: str = "run") -> dict[str, int]:
    return content_of(place, name)["updates"]["seen"]


def test_what_was_seen_is_counted_by_group(workplace: Workplace, call: Call) -> None:
    for name, script, changes in (
        ("symmetric", "symmetric", ()),
        ("proportional", "asymmetric", ()),
        ("per_label", "asymmetric", ("visit=label",)),
        ("weighted", "asymmetric", ("visit=label", "sampling={steering: 3, depth: 1}", "training.epochs=2")),
    ):
        assert train(call, workplace, script, "--name", name, *settings(*changes)).code == 0
    ten = dict.fromkeys(TASKS, 10)
    assert seen(workplace, "symmetric") == {"backbone": 10, **ten}
    assert seen(workplace, "proportional") == {"backbone": 10, **ten}
    assert seen(workplace, "per_label") == {"backbone": 40, **ten}
    assert seen(workplace, "weighted") == {
        "backbone": 80,
        "segmentation": 0,
        "steering": 60,
        "box": 0,
        "depth": 20,
    }


def test_one_label_a_frame(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "asymmetric", *settings(ONE), "--name", "run").code == 0
    content = content_of(workplace, "run")
    assert sum(content["samples"].values()) == 10
    assert seen(workplace) == {"backbone": 10, **content["samples"]}


def test_frames_left_out_are_counted(own_workplace: Workplace, call: Call) -> None:
    """Symmetric training takes frames that carry all labels, or any; asymmetric training every label."""
    processed = own_workplace.processed
    train_frames = json.loads(split_of(call, own_workplace))["train"]
    for frame in train_frames[:3]:
        processed.path("box", Frame.parse(frame)).unlink()
    symmetric = train(call, own_workplace, "symmetric", "--dry-run")
    assert "segmentation 7, steering 7, box 7, depth 7; 3 frames left out" in symmetric.out
    for script, changes in (("symmetric", ("frames=any",)), ("asymmetric", ())):
        printed = train(call, own_workplace, script, *settings(*changes), "--dry-run")
        assert "10, of 10 frames; with a label of segmentation 10, steering 10, box 7, depth 10;" in printed.out
        assert "; 0 frames left out" in printed.out


def split_of(call: Call, place: Workplace) -> str:
    flags = ("--train-mode", "steering", "--name", "for_its_split")
    assert train(call, place, "single", *flags).code == 0
    return (place.runs / "for_its_split" / "split.json").read_text()


def test_the_three_kinds_are_evaluated_together(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "single", "--train-mode", "steering", "--name", "single").code == 0
    for script in ("symmetric", "asymmetric"):
        assert train(call, workplace, script, "--name", script).code == 0
    names = ("single", "symmetric", "asymmetric")
    best = [workplace.runs / name / "best.pt" for name in names]
    report = workplace.dir / "report.json"
    printed = call(evaluate.main, *best, *workplace.roots(), "--workers", "0", "--json", report)
    assert (printed.code, printed.err) == (0, "")
    numbers = json.loads(report.read_text())
    assert set(numbers["single"]) == {"steering"}
    for name in names:
        results = checkpoint.load(workplace.runs / name / "best.pt")["best"]["results"]
        for task in results:
            key = TASKS[task].best_metric
            assert numbers[name][task][key] == pytest.approx(results[task][key], rel=1e-5)
        assert name in printed.out
    assert set(numbers["constant"]) == set(TASKS)


def test_delta_m_against_the_same_network_on_one_label(workplace: Workplace, call: Call) -> None:
    two = settings("tasks.segmentation=null", "tasks.box=null")
    names = ("steering", "depth", "symmetric")
    for name in names:
        assert train(call, workplace, "symmetric", "--train-mode", name, "--name", name, *two).code == 0
    best, report = [workplace.runs / name / "best.pt" for name in names], workplace.dir / "report.json"
    assert call(evaluate.main, *best, *workplace.roots(), "--workers", "0", "--json", report).code == 0
    steering, depth, both = json.loads(report.read_text())["comparison"].values()
    gains = [1 - both["values"][task] / row["values"][task] for task, row in (("steering", steering), ("depth", depth))]
    assert both["delta_m"] == pytest.approx(sum(gains) / 2)  # both are errors: the lower the better
    assert both["baseline"] == "same-network"
    assert (steering["delta_m"], steering["why_not"]) == (None, "1 of 2 tasks")  # it does not compare with the others'


# ---- the same frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [ONE, SHARES, "data.labels={regime: every}"])
def test_the_same_labels_mean_the_same_frames_in_all_scripts(
    workplace: Workplace, call: Call, plans: list[Plan], labels: str
) -> None:
    def plan(script: str, *mode: str) -> Plan:
        assert train(call, workplace, script, *mode, *settings(labels), "--dry-run").code == 0
        return plans[-1]

    asymmetric = plan("asymmetric")
    by_task = {task: {s.frame for s in asymmetric.data.train.samples if task in s.tasks} for task in TASKS}
    for task in TASKS:
        for script in ("single", "symmetric"):
            if not by_task[task]:
                refused = train(call, workplace, script, "--train-mode", task, *settings(labels))
                assert_refused(refused, f"labels that {task} needs")
                continue
            other = plan(script, "--train-mode", task)
            assert other.labelled == {kind: asymmetric.labelled[kind] for kind in other.labelled}
            assert other.data.train.samples == [Sample(frame, (task,)) for frame in sorted(by_task[task])]
            validated = [sample.frame for sample in other.data.val.samples]
            assert validated == [sample.frame for sample in asymmetric.data.val.samples]
    if labels == ONE:
        assert_refused(train(call, workplace, "symmetric", *settings(labels)), "labels that symmetric needs")
    else:
        assert plan("symmetric", *settings("frames=any")).data.train.samples == asymmetric.data.train.samples
        everything = plan("symmetric")
        assert {sample.frame for sample in everything.data.train.samples} == set.intersection(*by_task.values())
        assert {sample.tasks for sample in everything.data.train.samples} == {tuple(SETTINGS)}


# ---- best -----------------------------------------------------------------------------------------------------


def test_best_is_the_mean_of_relative_scores(workplace: Workplace, call: Call, plans: list[Plan]) -> None:
    """mIoU and mAP50 as they are; of errors what is left beside the constant baseline, at least nothing."""
    train(call, workplace, "asymmetric", "--dry-run")
    train(call, workplace, "single", "--train-mode", "steering", "--dry-run")
    multi, single = plans
    constant = {"steering": {"mae": 20.0}, "depth": {"abs_rel": 0.4}}
    results = {
        "segmentation": {"miou": 0.3, "accuracy": 0.9},
        "steering": {"mae": 15.0},
        "box": {"map50": 0.1, "map": 0.9},
        "depth": {"abs_rel": 0.1},
    }
    assert multi.score(results, constant) == pytest.approx((0.3 + 0.25 + 0.1 + 0.75) / 4)
    worse = results | {"steering": {"mae": 1e6}}
    assert multi.score(worse, constant) == pytest.approx((0.3 + 0.0 + 0.1 + 0.75) / 4)
    assert math.isclose(single.score({"steering": {"mae": 15.0}}, {}), -15.0)


def test_best_pt_is_the_epoch_of_the_best_mean(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the errors that it is measured against are those of the training labels' constant baselines."""
    coming, baselines = iter([0.2, 0.5, 0.3]), []
    monkeypatch.setattr(build, "score", lambda results, constant, *_: baselines.append(constant) or next(coming))
    assert train(call, workplace, "asymmetric", *settings("training.epochs=3"), "--name", "run").code == 0
    best, last = (checkpoint.load(workplace.runs / "run" / name) for name in ("best.pt", "last.pt"))
    assert (best["position"]["epoch"], best["best"]["score"], last["position"]["epoch"]) == (2, 0.5, 3)
    report = workplace.dir / "report.json"
    path = workplace.runs / "run" / "best.pt"
    assert call(evaluate.main, path, *workplace.roots(), "--workers", "0", "--json", report).code == 0
    never_looks = json.loads(report.read_text())["constant"]
    assert set(baselines[0]) == {"steering", "depth"}
    assert baselines[0]["steering"]["mae"] == pytest.approx(never_looks["steering"]["mae"])
    assert baselines[0]["depth"]["abs_rel"] == pytest.approx(never_looks["depth"]["abs_rel"])


# ---- balancing and what is logged -----------------------------------------------------------------------------

PAIRS = {"segmentation/steering", "segmentation/box", "segmentation/depth", "steering/box", "steering/depth"}
PAIRS |= {"box/depth"}


def logged(place: Workplace, what: str) -> set[str]:
    return {key.removeprefix(f"{what}/") for key in keys_of(place, "run") if key.startswith(f"{what}/")}


@pytest.mark.parametrize(
    ("script", "balancing"),
    [
        ("symmetric", "fixed"),
        ("symmetric", "uncertainty"),
        ("symmetric", "pcgrad"),
        ("symmetric", "upgrad"),
        ("symmetric", "stch"),
        ("symmetric", "imtl_l"),
        ("asymmetric", "fixed"),
        ("asymmetric", "uncertainty"),
    ],
)
def test_balancing_runs_and_logs_weights_and_similarities(
    workplace: Workplace, call: Call, script: str, balancing: str
) -> None:
    changes = settings(f"balancing={balancing}", "training.similarity_every=1", "training.epochs=2")
    printed = train(call, workplace, script, *changes, "--name", "run")
    assert printed.code == 0
    rows = rows_of(workplace, "run")
    assert logged(workplace, "weight") == set(TASKS)
    assert {"/".join(sorted(pair.split("/"))) for pair in logged(workplace, "similarity")} == {
        "/".join(sorted(pair.split("/"))) for pair in PAIRS
    }
    values = [value for row in rows for key, value in row.items() if key.startswith("similarity/")]
    assert all(-1.000001 <= value <= 1.000001 for value in values)
    weights = [tuple(row[f"weight/{task}"] for task in TASKS) for row in rows if "weight/box" in row]
    assert all(weight >= 0 for some in weights for weight in some)
    assert (set(weights) == {(1.0, 1.0, 1.0, 1.0)}) == (balancing == "fixed")


def test_a_task_without_training_samples_is_named(workplace: Workplace, call: Call) -> None:
    none = settings("data.labels={regime: fractions, fractions: {box: 0}}")
    printed = train(call, workplace, "asymmetric", *none, "--dry-run")
    assert "box has no training sample: its head does not learn" in printed.out
    assert "depth has no training sample" not in printed.out
    fewer = "fewer samples than a batch: backbone 10 of 16, segmentation 2 of 8, steering 2 of 8, depth 2 of 8"
    assert fewer in printed.out


@pytest.mark.parametrize("balancing", ["fixed", "upgrad"])
def test_similarity_is_not_told_unless_asked_for(workplace: Workplace, call: Call, balancing: str) -> None:
    assert train(call, workplace, "symmetric", *settings(f"balancing={balancing}"), "--name", "run").code == 0
    assert logged(workplace, "similarity") == set()


def test_uncertainty_learns_a_weight_for_every_task(workplace: Workplace, call: Call) -> None:
    changes = settings("balancing=uncertainty", "training.warmup=0")
    assert train(call, workplace, "symmetric", *changes, "--name", "run").code == 0
    s = content_of(workplace, "run")["balancing"]["s"]
    assert set(s) == set(TASKS)
    assert all(value.abs() > 1e-5 for value in s.values())


# ---- wrong usage ----------------------------------------------------------------------------------------------

MISTAKES = [
    ("symmetric", ["balancing=pcgrad", "training.precision=fp16"], ["training.precision", "fp16", "bf16"]),
    ("symmetric", ["balancing=nashmtl"], ["symmetric.yaml", "balancing", "pcgrad"]),
    ("asymmetric", ["balancing=pcgrad"], ["asymmetric.yaml", "balancing", "uncertainty"]),
    ("symmetric", ["micro_batch_size=3"], ["symmetric.yaml", "micro_batch_size 3", "block of 8"]),
    ("asymmetric", ["micro_batch_size=3"], ["asymmetric.yaml", "micro_batch_size 3", "block of 8"]),
    ("asymmetric", ["block_size=6"], ["asymmetric.yaml", "micro_batch_size 4", "block of 6"]),
    ("asymmetric", ["sampling=uniform"], ["asymmetric.yaml", "sampling", "visit: label"]),
    ("asymmetric", ["visit=frame", "sampling={depth: 1}"], ["asymmetric.yaml", "sampling", "visit: label"]),
    ("asymmetric", ["visit=task"], ["asymmetric.yaml", "visit", "label"]),
    ("symmetric", ["frames=some"], ["symmetric.yaml", "frames", "complete"]),
    ("asymmetric", ["frames=any"], ["asymmetric.yaml", "frames", "there is no such key"]),
    (
        "symmetric",
        ["balancing={name: fixed, learning_rate: 0.01}"],
        [": balancing.learning_rate: ", "there is no such key"],
    ),
    (
        "symmetric",
        ["balancing={name: uncertainty, learning_rate: 0}"],
        [": balancing.learning_rate: ", "greater than 0"],
    ),
    ("symmetric", ["balancing={learning_rate: 0.01}"], [": balancing: must be one of fixed, uncertainty, upgrad"]),
    ("symmetric", ["balancing=[fixed]"], [": balancing: must be one of fixed, uncertainty, upgrad"]),
    ("symmetric", ["balancing=dwa", "frames=any"], ["balancing dwa needs frames: complete, not any"]),
    (
        "asymmetric",
        ["balancing={name: dwa}"],
        [": balancing: dwa needs groups that step together", "fixed, uncertainty"],
    ),
    ("symmetric", ["data.labels={kinds: [box]}"], ["data.labels", "kinds need regime: one or random"]),
    ("symmetric", ["data.labels={regime: one, kinds: [lanes]}"], ["data.labels.kinds", "lanes"]),
    ("symmetric", ["data.labels={regime: one, kinds: []}"], ["data.labels", "kinds"]),
    (
        "symmetric",
        ["data.labels={regime: one, kinds: [box], proportions: {depth: 2}}"],
        ["data.labels", "proportions", "depth"],
    ),
    ("symmetric", ["tasks={lanes: null}"], ["symmetric.yaml", "tasks", "one section a task"]),
    ("single", ["tasks.depth=null"], ["yaml trains segmentation, steering, box"]),
    ("symmetric", ["tasks.lanes=null"], ["--set tasks.lanes=null", "no task lanes; there are", "steering"]),
    ("asymmetric", ["sampling={lanes: 1}"], ["asymmetric.yaml", "sampling", "unknown task lanes"]),
    ("asymmetric", ["sampling={depth: 0}"], ["asymmetric.yaml", "sampling", "depth"]),
    ("asymmetric", ["sampling={depth: 2, box: -1}"], ["asymmetric.yaml", "sampling", "negative"]),
    ("asymmetric", ["sampling={}"], ["asymmetric.yaml", "sampling"]),
    ("asymmetric", ["sampling=often"], ["asymmetric.yaml", "sampling", "uniform"]),
    (
        "asymmetric",
        ["visit=label", "sampling={box: 1}", "data.labels={regime: fractions, fractions: {box: 0}}"],
        ["sampling", "no", "box"],
    ),
    (
        "symmetric",
        ["data.labels={regime: fractions, fractions: {lanes: 1}}"],
        ["symmetric.yaml", "data.labels.fractions", "lanes"],
    ),
    ("single", ["data.labels={regime: one, proportions: {lanes: 1}}"], ["data.labels.proportions", "lanes"]),
    ("asymmetric", ["data.labels={fractions: {box: 0.5}}"], ["data.labels", "fractions need regime: fractions"]),
    ("asymmetric", ["data.labels={regime: fractions, fractions: {box: 1.5}}"], ["data.labels.fractions.box", "1"]),
    ("asymmetric", ["data.labels.regime=some"], ["data.labels.regime", "fractions"]),
    ("asymmetric", ["tasks.depth.weight=0"], ["asymmetric.yaml", "tasks.depth.weight", "greater than 0"]),
    ("symmetric", ["tasks.depth.batch_size=8"], ["symmetric.yaml", "tasks.depth.batch_size", "there is no such key"]),
    ("asymmetric", ["backbone.rate=1"], ["asymmetric.yaml", "backbone.rate", "there is no such key"]),
    ("single", ["training.sync_bn=true", "tasks.depth.network.norm=train"], ["training.sync_bn", "GPUs only"]),
    ("asymmetric", ["training.sync_bn=true", "network.norm=train"], ["training.sync_bn", "GPUs only"]),
    ("symmetric", ["training.sync_bn=true", "balancing=pcgrad"], ["training.sync_bn", "balancing by a gradient"]),
    ("asymmetric", ["training.sync_bn=true", "training.similarity_every=2"], ["training.sync_bn", "similarity_every"]),
    ("asymmetric", ["training.sync_bn=true"], ["training.sync_bn", "needs norm: train"]),
    ("symmetric", ["training.sync_bn=true"], ["training.sync_bn", "needs norm: train"]),
    ("single", ["training.sync_bn=true"], ["training.sync_bn", "needs norm: train"]),
]


@pytest.mark.parametrize(("script", "changes", "words"), MISTAKES)
def test_mistakes_are_one_line(
    workplace: Workplace, call: Call, script: str, changes: list[str], words: list[str]
) -> None:
    mode = ("--train-mode", "depth") if script == "single" else ()
    assert_refused(train(call, workplace, script, *mode, *settings(*changes)), *words)
    assert not workplace.runs.exists()


@pytest.mark.parametrize("script", ["single", "symmetric"])
def test_a_mode_without_its_section(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    tasks = {task: section for task, section in CONFIGS[script]["tasks"].items() if task != "depth"}
    monkeypatch.setitem(CONFIGS, script, CONFIGS[script] | {"tasks": tasks})
    printed = train(call, workplace, script, "--train-mode", "depth")
    assert_refused(printed, f"{script}.yaml trains", "segmentation, steering, box")
    assert not workplace.runs.exists()


@pytest.mark.parametrize("script", ["symmetric", "asymmetric"])
def test_a_config_without_tasks(workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    without = {key: value for key, value in CONFIGS[script].items() if key != "tasks"}
    monkeypatch.setitem(CONFIGS, script, without)
    assert_refused(train(call, workplace, script), f"{script}.yaml", "tasks", "required")
    monkeypatch.setitem(CONFIGS, script, without | {"tasks": {}})
    assert_refused(train(call, workplace, script), f"{script}.yaml", "tasks")


@pytest.mark.parametrize("script", ["symmetric", "asymmetric"])
def test_a_subset_of_the_tasks_is_a_network_of_these(
    workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    tasks = {task: section for task, section in CONFIGS[script]["tasks"].items() if task in ("steering", "box")}
    monkeypatch.setitem(CONFIGS, script, CONFIGS[script] | {"tasks": tasks})
    assert train(call, workplace, script, "--name", "run").code == 0
    content = content_of(workplace, "run")
    assert content["samples"] == {"steering": 10, "box": 10}
    assert {name.split(".")[1] for name in content["model"] if name.startswith("heads.")} == {"steering", "box"}


def test_another_kind_of_run_is_not_resumed(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "symmetric", "--train-mode", "steering", "--name", "run").code == 0
    for script, mode in (("single", "steering"), ("symmetric", "symmetric"), ("asymmetric", "asymmetric")):
        printed = train(call, workplace, script, "--train-mode", mode, "--name", "run", "--resume", "auto")
        assert_refused(printed, "symmetric steering training")


@pytest.mark.parametrize("script", ["symmetric", "asymmetric"])
def test_a_run_is_not_resumed_with_other_tasks(
    script: str, workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(call, workplace, script, "--name", "run").code == 0
    tasks = {task: section for task, section in CONFIGS[script]["tasks"].items() if task != "box"}
    monkeypatch.setitem(CONFIGS, script, CONFIGS[script] | {"tasks": tasks})
    assert_refused(
        train(call, workplace, script, "--name", "run", "--resume", "auto"),
        "the checkpoint trains",
        "box",
        "tasks.NAME=null",
    )


def test_the_path_of_a_config_is_no_part_of_a_run(workplace: Workplace, call: Call) -> None:
    """Resuming compares keys, not files."""
    assert train(call, workplace, "asymmetric", "--name", "run").code == 0
    again = train(call, workplace, "asymmetric", "--name", "run", "--resume", "auto")
    assert again.code == 0
    assert "goes on after 10 samples" in again.out
    changed = train(call, workplace, "asymmetric", "--name", "run", "--resume", "auto", *settings("visit=label"))
    assert_refused(changed, "visit is label, the checkpoint has frame")
    assert Path(workplace.runs / "run" / "best.pt").exists()
