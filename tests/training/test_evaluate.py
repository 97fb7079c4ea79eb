"""evaluate.py: columns that may be compared, and an error rather than a wrong number."""

import copy
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import evaluate
import train_single_task
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.labels import keep_fractions
from datasets.processed import ProcessedData
from models.encoder import Encoder
from models.multitask import MultiTask
from models.pilotnet import PilotNet
from models.settings import PartSettings
from strict import StrictModel
from tasks import TASKS
from tasks.steering import SteeringTask
from tests.conftest import ROOT
from tests.parts import head_of
from tests.training.conftest import Printed, Workplace, after_camera_warning
from training import checkpoint
from training.comparison import (
    BASELINES,
    Row,
    baseline_values,
    compared_tasks,
    comparison_json,
    comparison_rows,
    delta_m,
    why_no_delta_m,
)
from training.config import NetworkConfig
from training.data_config import LabelsConfig
from training.report import regime_of
from training.restore import Restored
from training.tables import LAYOUTS, aligned, as_json, comma_separated, latex, markdown, metric_tables

Call = Callable[..., Printed]


@pytest.fixture
def trained(workplace: Workplace, call: Call) -> Path:
    """The folder of a steering network's run."""
    assert call(train_single_task.main, *workplace.flags("steering")).code == 0
    return workplace.runs / "steering"


def run(call: Call, place: Workplace, *arguments: Any) -> Printed:
    return call(evaluate.main, *map(str, arguments), *place.roots(), "--workers", "0")


def numbers_of(call: Call, place: Workplace, *arguments: Any) -> dict[str, Any]:
    report = place.dir / "report.json"
    printed = run(call, place, *arguments, "--json", report)
    assert (printed.code, printed.err) == (0, "")
    return json.loads(report.read_text(), parse_constant=pytest.fail)


def changed(trained: Path, name: str, **changes: Any) -> Path:
    """A copy of the best checkpoint with other content, as the best.pt of a run of this name."""
    path = trained.parent / name / "best.pt"
    content = checkpoint.load(trained / "best.pt")
    del content["format"]
    checkpoint.save(path, content | changes)
    return path


REGIME = ("--set", "data.labels.regime=fractions", "data.labels.fractions.depth=0.5")


def assert_refused(printed: Printed, *words: str) -> None:
    assert printed.code == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err
    assert not printed.out


# ---- columns --------------------------------------------------------------------------------------------------


def labels(place: Workplace, frames: list[str]) -> list[Any]:
    files = [place.processed.root / "steering" / f"{Frame.parse(frame).in_dataset}.json" for frame in frames]
    return [json.loads(file.read_text())["angles"][-10:] for file in files]


def test_the_constant_column_knows_the_training_labels_alone(workplace: Workplace, call: Call, trained: Path) -> None:
    numbers = numbers_of(call, workplace, trained / "best.pt")
    split = json.loads((trained / "split.json").read_text())
    seen = [angle for angles in labels(workplace, split["train"]) for angle in angles]
    mean = sum(seen) / len(seen)
    errors = [abs(angle - mean) for angles in labels(workplace, split["val"]) for angle in angles]
    assert numbers["constant"]["steering"]["mae"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_the_constant_column_knows_the_labels_that_the_regime_keeps(
    workplace: Workplace, call: Call, trained: Path
) -> None:
    config = copy.deepcopy(checkpoint.load(trained / "best.pt")["config"])
    config["data"]["labels"] |= {"regime": "fractions", "fractions": {"steering": 0.3}}
    fewer = changed(trained, "fewer", config=config)
    split = json.loads((trained / "split.json").read_text())
    everyone = {"steering": [Frame.parse(frame) for frame in split["train"]]}
    kept = keep_fractions(everyone, {"steering": 0.3}, 0)["steering"]
    assert 0 < len(kept) < len(split["train"])
    mean = np.mean(labels(workplace, [str(frame) for frame in kept]))
    expected = np.abs(np.array(labels(workplace, split["val"])) - mean).mean()
    assert numbers_of(call, workplace, fewer)["constant"]["steering"]["mae"] == pytest.approx(expected, rel=1e-5)
    first = numbers_of(call, workplace, fewer, trained / "best.pt")
    assert first["constant"]["steering"]["mae"] == pytest.approx(expected, rel=1e-5)
    network = Restored.load(fewer, workplace.raw, [workplace.processed])
    of_all = numbers_of(call, workplace, trained / "best.pt")["constant"]
    assert (
        network.evaluate_constant("val", every_label=True)["steering"]["mae"] == of_all["steering"]["mae"] != expected
    )


def test_the_test_part(workplace: Workplace, call: Call, trained: Path) -> None:
    val = numbers_of(call, workplace, trained / "best.pt")
    test = numbers_of(call, workplace, trained / "best.pt", "--split", "test")
    assert val["steering"]["steering"]["mae"] != test["steering"]["steering"]["mae"]


def test_the_batch_size_does_not_matter(workplace: Workplace, call: Call, trained: Path) -> None:
    one, four = (numbers_of(call, workplace, trained / "best.pt", "--batch-size", size) for size in (1, 4))
    assert one["steering"]["steering"]["mae"] == pytest.approx(four["steering"]["steering"]["mae"], rel=1e-5)


def test_two_checkpoints_are_two_columns(workplace: Workplace, call: Call, trained: Path) -> None:
    weights = checkpoint.load(trained / "best.pt")["model"]
    other = changed(trained, "other", model={key: torch.zeros_like(value) for key, value in weights.items()})
    numbers = numbers_of(call, workplace, trained / "best.pt", other)
    assert list(numbers) == ["constant", "steering", "other", "runs", "comparison"]
    assert numbers["other"]["steering"]["mae"] != numbers["steering"]["steering"]["mae"]
    alone = [numbers_of(call, workplace, path) for path in (other, trained / "best.pt")]
    runs = alone[0].pop("runs") | alone[1].pop("runs")
    del numbers["comparison"]
    assert numbers.pop("runs") == runs
    assert numbers == {**alone[0], **alone[1]}


def test_networks_of_different_tasks_stand_side_by_side(workplace: Workplace, call: Call, trained: Path) -> None:
    assert call(train_single_task.main, *workplace.flags("box")).code == 0
    numbers = numbers_of(call, workplace, trained / "best.pt", workplace.runs / "box" / "best.pt")
    assert set(numbers["steering"]) == {"steering"}
    assert set(numbers["box"]) == {"box"}
    assert set(numbers["constant"]) == {"steering", "box"}


def test_best_and_last_of_one_run_are_told_apart(workplace: Workplace, call: Call, trained: Path) -> None:
    numbers = numbers_of(call, workplace, trained / "best.pt", trained / "last.pt")
    assert list(numbers)[1:-2] == [str(trained / "best.pt"), str(trained / "last.pt")]


def test_a_run_named_as_a_key_of_the_json(workplace: Workplace, call: Call, trained: Path) -> None:
    path = changed(trained, "comparison")
    assert list(numbers_of(call, workplace, path)) == ["constant", str(path), "runs"]


# ---- comparison -----------------------------------------------------------------------------------------------

TASK_OBJECTS = {
    name: TASKS[name](spec=LABELS.get(name)) for name in ("segmentation", "depth")
}  # mIoU: higher is better; AbsRel: lower


@pytest.mark.parametrize(
    ("network", "single", "expected"),
    [
        ({"segmentation": 0.6, "depth": 0.2}, {"segmentation": 0.5, "depth": 0.25}, (0.2 + 0.2) / 2),
        ({"segmentation": 0.4, "depth": 0.2}, {"segmentation": 0.5, "depth": 0.1}, (-0.2 - 1.0) / 2),
        ({"depth": 0.3}, {"segmentation": 0.5, "depth": 0.2}, -0.5),  # its own tasks alone
        ({"segmentation": 0.5}, {"segmentation": 0.5}, 0.0),
        ({"segmentation": 0.6, "depth": 0.2}, {"segmentation": 0.0, "depth": 0.25}, math.nan),
        ({"segmentation": 0.6, "depth": 0.2}, {"depth": 0.25}, math.nan),
        ({"segmentation": 0.6, "depth": 0.2}, {}, math.nan),
        ({"segmentation": math.nan, "depth": 0.2}, {"segmentation": 0.5, "depth": 0.25}, math.nan),
    ],
)
def test_delta_m(network: dict[str, float], single: dict[str, float], expected: float) -> None:
    assert delta_m(network, single, TASK_OBJECTS) == pytest.approx(expected, nan_ok=True)


def test_the_comparison_of_single_task_networks(workplace: Workplace, call: Call, trained: Path) -> None:
    weights = checkpoint.load(trained / "best.pt")["model"]
    other = changed(trained, "other", model={key: torch.zeros_like(value) for key, value in weights.items()})
    numbers = numbers_of(call, workplace, trained / "best.pt", other, "--baseline", "single-task")
    first, second = numbers["comparison"].values()
    mae, other_mae = (numbers[name]["steering"]["mae"] for name in ("steering", "other"))
    assert first["values"] == {"steering": mae}
    assert first["delta_m"] == 0
    assert second["delta_m"] == pytest.approx(-(other_mae - mae) / mae)  # the first network is the baseline
    seen = checkpoint.load(trained / "best.pt")["updates"]["seen"]
    assert first["samples_seen"] == seen
    assert seen["steering"] > 0
    assert first["parameters"] == sum(p.numel() for p in PilotNet().parameters())
    assert (first["kind"], first["mode"], first["baseline"]) == ("single_task", "steering", "single-task")


def test_gflop_is_that_of_all_heads_at_the_runs_size(workplace: Workplace, call: Call, trained: Path) -> None:
    network = Restored.load(trained / "best.pt", workplace.raw, [workplace.processed])
    with FlopCounterMode(display=False) as counter:
        network.model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), {"steering": None})
    assert network.gflop() == counter.get_total_flops() / 1e9 > 0


def test_the_comparison_is_printed_for_several_checkpoints(workplace: Workplace, call: Call, trained: Path) -> None:
    other = changed(trained, "other")
    alone = run(call, workplace, other)
    both = run(call, workplace, trained / "best.pt", other, "--baseline", "single-task")
    assert "Delta-m" not in alone.out
    head, first, second = both.out.strip().split("\n\n")[-1].splitlines()
    assert head.split()[:5] == ["network", "steering:", "MAE,", "degrees", "↓"]
    assert first.startswith("steering (single_task/steering)")
    assert second.startswith("other (single_task/steering)")
    assert second.split()[3:5] == ["+0.0", "single-task"]


@dataclass
class Made:
    """What a baseline is chosen by: a network of this kind and mode, and the settings of what computes each task."""

    kind: str
    mode: str
    networks: dict[str, tuple[StrictModel, ...]]


SMALL, LARGE = NetworkConfig(encoder="small", pretrained="none"), NetworkConfig(encoder="resnet18", pretrained="none")
DENSE, OTHER = PartSettings(name="dense"), PartSettings(name="depth")
BOTH = {"segmentation": (SMALL, DENSE), "depth": (SMALL, OTHER)}
MADE = {
    "symmetric": Made("symmetric", "symmetric", BOTH),
    "asymmetric": Made("asymmetric", "asymmetric", BOTH),
    "one": Made("symmetric", "segmentation", {"segmentation": (SMALL, DENSE)}),
    "again": Made("symmetric", "segmentation", {"segmentation": (SMALL, DENSE)}),
    "large": Made("symmetric", "depth", {"depth": (LARGE, OTHER)}),
    "head": Made("symmetric", "depth", {"depth": (SMALL, DENSE)}),
    "unet": Made("single_task", "segmentation", {"segmentation": (DENSE,)}),
}
VALUES = {name: {task: float(number) for task in made.networks} for number, (name, made) in enumerate(MADE.items())}


@pytest.mark.parametrize("name", ["symmetric", "asymmetric"])
def test_the_same_network_is_the_baseline(name: str) -> None:
    """Not one with another encoder, nor another head; of two that are the same the first."""
    found = baseline_values(MADE[name], MADE, VALUES, "same-network")
    assert found == {"segmentation": VALUES["one"]["segmentation"]}
    same_with_defaults = NetworkConfig.model_validate(SMALL.model_dump())
    depth = Made("symmetric", "depth", {"depth": (same_with_defaults, OTHER)})
    found = baseline_values(MADE[name], MADE | {"depth": depth}, VALUES | {"depth": {"depth": 9.0}}, "same-network")
    assert found == {"segmentation": VALUES["one"]["segmentation"], "depth": 9.0}


def test_networks_of_one_task_have_baselines_too() -> None:
    assert baseline_values(MADE["large"], MADE, VALUES, "same-network") == VALUES["large"]  # itself
    assert baseline_values(MADE["again"], MADE, VALUES, "same-network") == VALUES["one"]
    assert baseline_values(MADE["unet"], MADE, VALUES, "same-network") == {}  # another network


@pytest.mark.parametrize("name", ["symmetric", "one", "unet"])
def test_single_task_networks_are_the_baseline_where_asked(name: str) -> None:
    assert baseline_values(MADE[name], MADE, VALUES, "single-task") == VALUES["unet"]


def test_single_task_networks_are_no_baseline_unasked(workplace: Workplace, call: Call, trained: Path) -> None:
    rows = numbers_of(call, workplace, trained / "best.pt", trained / "last.pt")["comparison"].values()
    found = [(row["delta_m"], row["why_not"], row["baseline"]) for row in rows]
    assert found == [(None, "no baseline given", "same-network")] * 2


def test_comparison_rows() -> None:
    single = {"values": {"segmentation": 0.5}, "samples_seen": {"segmentation": 9}, "baseline": "single-task"}
    symmetric = {"values": {"segmentation": 0.6, "depth": 0.2}, "samples_seen": {"segmentation": 80, "depth": 70}}
    symmetric["baseline"] = "single-task"
    rows = {
        "unet": Row(
            "single_task", "segmentation", delta_m=0.0, why_not="", parameters=31_000_000, gflop=1546.3, **single
        ),
        "both": Row(
            "symmetric",
            "symmetric",
            delta_m=math.nan,
            why_not="no baseline for depth",
            parameters=2_500_000,
            gflop=0.125,
            **symmetric,
        ),
    }
    head, unet, both = comparison_rows(rows, TASK_OBJECTS)
    assert head[:4] == ["network", "segmentation: mIoU, % ↑", "depth: AbsRel ↓", "Delta-m, % ↑"]
    assert unet == ["unet (single_task/segmentation)", "50.0", "-", "+0.0", "single-task", "31.00", "1546.30"]
    assert both[1:] == ["60.0", "0.200", "n/a: no baseline for depth", "single-task", "2.50", "0.12"]
    assert comparison_json(rows)["both"]["delta_m"] is None


# ---- an error, not a wrong number -----------------------------------------------------------------------------


def test_different_splits_are_refused(workplace: Workplace, call: Call, trained: Path) -> None:
    split = checkpoint.load(trained / "best.pt")["split"]
    other = changed(trained, "other", split=split | {"val": split["val"][1:]})
    assert_refused(run(call, workplace, trained / "best.pt", other), "different splits", str(other))


def test_labels_that_say_something_else_are_refused(workplace: Workplace, call: Call, trained: Path) -> None:
    saved = checkpoint.load(trained / "best.pt")["datasets"]["a2d2"]
    labels = {**saved["labels"], "steering": {"classes": ["left", "right"], "colours": ["#000000", "#ffffff"]}}
    other = changed(trained, "other", datasets={"a2d2": {**saved, "labels": labels}})
    words = "other steering labels of a2d2: class 0 is left, and none"
    assert_refused(run(call, workplace, other), str(other), words)


def test_labels_of_other_kinds_may_say_what_they_like(workplace: Workplace, call: Call, trained: Path) -> None:
    saved = checkpoint.load(trained / "best.pt")["datasets"]["a2d2"]
    labels = {**saved["labels"], "depth": {"range": [1.0, 2.0]}}
    assert run(call, workplace, changed(trained, "other", datasets={"a2d2": {**saved, "labels": labels}})).code == 0


def test_another_calibration_is_refused(
    own_workplace: Workplace, workplace: Workplace, call: Call, trained: Path
) -> None:
    path = own_workplace.raw.calibration_path
    path.write_text(path.read_text().replace("-0.26", "-0.2"))
    printed = after_camera_warning(run(call, own_workplace, trained / "best.pt"))
    assert_refused(printed, "another calibration", str(own_workplace.raw.root))


def test_labels_of_another_size_are_refused(workplace: Workplace, call: Call, tmp_path: Path) -> None:
    assert call(train_single_task.main, *workplace.flags("segmentation")).code == 0
    processed = ProcessedData(tmp_path / "other")
    shutil.copytree(workplace.processed.root, processed.root)
    settings = processed.settings_path("segmentation")
    settings.write_text(settings.read_text().replace("64", "32"))
    place = Workplace(workplace.raw, processed, tmp_path)
    assert_refused(run(call, place, workplace.runs / "segmentation" / "best.pt"), "[32, 32]", "[64, 64]")


def test_a_file_that_is_no_checkpoint(workplace: Workplace, call: Call) -> None:
    path = workplace.config()
    assert_refused(run(call, workplace, path), str(path), "not a checkpoint")
    assert_refused(run(call, workplace, workplace.dir / "no.pt"), "no.pt does not exist")


def test_no_labelled_frame_in_the_part(workplace: Workplace, call: Call, tmp_path: Path, trained: Path) -> None:
    empty = changed(trained, "empty", split=checkpoint.load(trained / "best.pt")["split"] | {"test": []})
    assert_refused(run(call, workplace, empty, "--split", "test"), "none of its test frames", "steering")


def test_unreadable_frames_are_named(own_workplace: Workplace, workplace: Workplace, call: Call, trained: Path) -> None:
    frame = json.loads((trained / "split.json").read_text())["val"][0]
    (own_workplace.processed.root / "camera" / f"{Frame.parse(frame).in_dataset}.npy").write_bytes(b"")
    printed = run(call, own_workplace, trained / "best.pt")
    assert printed.code == 0
    assert f"left out: {frame}: " in printed.err


# ---- numbers --------------------------------------------------------------------------------------------------


def test_not_a_number_is_null(workplace: Workplace, call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = SteeringTask().metric()
    compute = type(metric).compute
    odd = {"rmse": math.nan, "rmse_turn": math.inf}
    monkeypatch.setattr(type(metric), "compute", lambda self: {**compute(self), **odd})
    numbers = numbers_of(call, workplace, trained / "best.pt")
    assert numbers["steering"]["steering"]["rmse"] is None
    assert numbers["steering"]["steering"]["rmse_turn"] is None
    assert numbers["steering"]["steering"]["mae"] > 0


def test_tables() -> None:
    columns = {
        "constant": {
            "segmentation": {"miou": 0.3894, "iou/Car": 0.5, "iou/Sky": 0.25, "share/Car": 0.1, "share/Sky": 0.7}
        },
        "night": {
            "segmentation": {"miou": math.nan, "loss": 1.25, "miou@rooms": 0.5, "iou/Sky": 0.0, "share/Sky": 0.7}
        },
        "far": {"depth": {"abs_rel": 0.12345, "rmse": 4.5}},
    }
    tables = metric_tables(columns, TASK_OBJECTS)
    assert tables["segmentation"] == [
        ["segmentation", "constant", "night"],
        ["mIoU, % ↑", "38.9", "-"],
        ["loss ↓", "-", "1.2500"],
        ["mIoU@rooms, % ↑", "-", "50.0"],
    ]
    assert tables["segmentation/iou"] == [
        [
            "segmentation: IoU, % ↑; classes by share of the pixels in the evaluated labels",
            "share of the pixels, %",
            "constant",
            "night",
        ],
        ["Sky", "70.00", "25.0", "0.0"],
        ["Car", "10.00", "50.0", "-"],
    ]
    assert tables["depth"][1:] == [["AbsRel ↓", "0.123"], ["RMSE, m ↓", "4.500"]]
    assert list(tables) == ["segmentation", "segmentation/iou", "depth"]
    assert as_json(columns)["night"]["segmentation"]["miou"] is None
    assert as_json(columns)["constant"]["segmentation"]["miou"] == 0.3894  # results stay fractions


def test_classes_of_boxes_are_sorted_by_their_number() -> None:
    values = {"ap/Car": 0.5, "ap/Bus": 0.125, "ap50/Car": 0.75, "ap50/Bus": 0.25, "objects/Car": 3, "objects/Bus": 20}
    tables = metric_tables({"ours": {"box": values}}, {"box": TASKS["box"](spec=LABELS["box"])})
    assert tables["box/ap50"][1:] == [["Bus", "20", "25.0"], ["Car", "3", "75.0"]]
    assert tables["box/ap"][0] == ["box: AP, % ↑; classes by objects in the evaluated labels", "objects", "ours"]


def test_every_layout_says_the_same() -> None:
    rows = [["a", "constant", "ours"], ["mIoU, % ↑", "-", "38.9"]]
    cells = {cell for row in rows for cell in row}
    for name, layout in LAYOUTS.items():
        text = layout(rows).replace(r"\%", "%").replace(r"$\uparrow$", "↑")
        assert all(cell in text for cell in cells), name
    assert len({len(line) for line in aligned(rows).splitlines()}) == 1


def test_what_the_networks_were_trained_on(workplace: Workplace, call: Call, trained: Path) -> None:
    assert call(train_single_task.main, *workplace.flags("depth", "--set", "seed=3", *REGIME)).code == 0
    report = workplace.dir / "report.json"
    printed = run(call, workplace, trained / "best.pt", workplace.runs / "depth" / "best.pt", "--json", report)
    split = json.loads((trained / "split.json").read_text())
    seen = [checkpoint.load(workplace.runs / name / "best.pt") for name in ("steering", "depth")]
    facts = {row[:34].strip(): row[34:].split() for row in printed.out.split("\n\n")[0].splitlines()}
    assert facts["split val"] == ["steering", "depth"]
    assert facts["mode"] == ["steering", "depth"]
    assert facts["seed"] == ["0", "3"]
    assert facts["frames of val"] == [str(len(split["val"]))] * 2
    assert facts["steering: val frames evaluated"] == [str(len(split["val"])), "-"]
    assert facts["depth: samples seen"] == ["-", str(seen[1]["updates"]["seen"]["depth"])]
    assert facts["depth: training samples"] == ["-", str(seen[1]["samples"]["depth"])]
    assert "fractions: depth 50 % (seed 0)" in printed.out
    runs = json.loads(report.read_text())["runs"]
    assert runs["depth"]["labels"]["fractions"] == {"depth": 0.5}
    assert runs["steering"]["split"] == "val"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({}, "every"),
        ({"regime": "one", "kinds": ["depth", "box"]}, "one of depth, box (seed 0)"),
        (
            {"regime": "one", "kinds": ["depth", "box"], "proportions": {"box": 3}, "seed": 4},
            "one of depth 1, box 3 (seed 4)",
        ),
        ({"regime": "random", "kinds": ["depth", "box"]}, "one or more of depth, box (seed 0)"),
        ({"regime": "fractions", "fractions": {"box": 0.125}}, "fractions: box 12.5 % (seed 0)"),
    ],
)
def test_label_regimes_in_words(labels: dict[str, Any], text: str) -> None:
    assert regime_of(LabelsConfig(**labels)) == text


@pytest.mark.parametrize(
    ("values", "baselines", "baseline", "reason"),
    [
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, "single-task", ""),
        ({"a": 1.0}, {"a": 1.0}, "single-task", "1 of 2 tasks"),
        ({"a": 1.0, "b": 1.0}, {"b": 1.0}, "single-task", "no baseline for a"),
        ({"a": 1.0, "b": 1.0}, {}, "single-task", "no baseline given"),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, "none", "no baseline asked for"),
        ({"a": 1.0, "b": math.nan}, {"a": 1.0, "b": 1.0}, "same-network", "no value of b"),
        ({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, "same-network", "the baseline is 0 in a"),
    ],
)
def test_why_there_is_no_delta_m(
    values: dict[str, float], baselines: dict[str, float], baseline: str, reason: str
) -> None:
    assert why_no_delta_m(values, baselines, {"a", "b"}, baseline) == reason


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (["ab", "abc", "a"], "abc"),
        (["ab", "c"], "ab"),  # a network of one task is a baseline, not what is compared
        (["ab", "cd"], "abcd"),  # neither mean compares with the other
        (["a", "a"], "a"),
    ],
)
def test_the_tasks_that_a_delta_m_is_over(tasks: list[str], expected: str) -> None:
    assert compared_tasks({name: dict.fromkeys(name, 1.0) for name in tasks}) == set(expected)


def test_evaluation_needs_the_roots_of_the_data(
    workplace: Workplace, call: Call, trained: Path, tmp_path: Path
) -> None:
    nowhere = Workplace(RawData(workplace.raw.root), ProcessedData(tmp_path / "nothing"), tmp_path)
    assert_refused(run(call, nowhere, trained / "best.pt"), "no steering labels")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number from 1 to 65536"),
        (["--workers", "-1"], "argument --workers: '-1' is not a whole number from 0 to 1024"),
        (["--json", "FOLDER"], "error: FOLDER is a folder; name a file"),
        (["--json", "FOLDER/file/report.json"], "FOLDER/file is not a folder that you may write to"),
        (["--json", "FOLDER/no.pt"], "error: FOLDER/no.pt is read from, and would be written over"),
    ],
)
def test_options_are_checked_before_any_work(tmp_path: Path, call: Call, flags: list[str], words: str) -> None:
    (tmp_path / "file").write_text("")
    flags = [flag.replace("FOLDER", str(tmp_path)) for flag in flags]
    printed = call(evaluate.main, str(tmp_path / "no.pt"), *flags)
    assert (printed.code, printed.out) == (2, "")
    assert words.replace("FOLDER", str(tmp_path)) in printed.err


ROWS = [["depth", "a_b", "ours"], ["abs_rel", "0.1000", "3 ± 1 %"], ["x, y", "-", "1"]]


def test_tables_for_spreadsheets_and_papers() -> None:
    assert comma_separated(ROWS) == 'depth,a_b,ours\nabs_rel,0.1000,3 ± 1 %\n"x, y",-,1'
    assert markdown(ROWS).splitlines()[:2] == ["| depth | a_b | ours |", "| --- | --- | --- |"]
    assert latex(ROWS).splitlines()[2:5] == [
        r"depth & a\_b & ours \\",
        r"\midrule",
        r"abs\_rel & 0.1000 & 3 $\pm$ 1 \% \\",
    ]


@pytest.mark.parametrize(
    ("flag", "words"), [("--csv", "steering,"), ("--markdown", "| MAE, degrees ↓ |"), ("--latex", r"\toprule")]
)
def test_evaluate_prints_other_tables(trained: Path, workplace: Workplace, call: Call, flag: str, words: str) -> None:
    assert words in run(call, workplace, trained / "best.pt", flag).out


def test_the_baselines_that_can_be_asked_for() -> None:
    assert tuple(BASELINES) == evaluate.BASELINES


def test_cost_counts_the_heads_that_were_trained(workplace: Workplace, call: Call, trained: Path) -> None:
    """Those without any sample are in the checkpoint all the same."""
    tasks = {name: TASKS[name](spec=LABELS[name]) for name in ("segmentation", "steering")}
    heads = {name: head_of(task, 8) for name, task in tasks.items()}
    both, one = (
        MultiTask(encoder=Encoder(name="small"), channels=8, layers=1, heads={name: heads[name] for name in names})
        for names in (tasks, ["steering"])
    )
    network = Restored.load(trained / "best.pt", workplace.raw, [workplace.processed])
    costs = [(replaced.parameters(), replaced.gflop()) for replaced in (replace(network, model=m) for m in (both, one))]
    assert costs[0] == costs[1]
    assert costs[0][0] < sum(parameter.numel() for parameter in both.parameters())


# ---- the dashboard ----------------------------------------------------------------------------------------------


def test_tables_go_to_the_dashboard(
    workplace: Workplace, call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    logged: dict[str, Any] = {}
    started: dict[str, Any] = {}

    def init(**settings: Any) -> SimpleNamespace:
        started.update(settings)
        return SimpleNamespace(log=lambda row, step: logged.update(row), summary={}, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    before = (trained / "metrics.jsonl").read_bytes()
    printed = run(call, workplace, trained / "best.pt", "--wandb", "offline", "--wandb-group", "paper", "--csv")
    assert (printed.code, printed.err) == (0, "")
    assert (started["mode"], started["job_type"], started["group"]) == ("offline", "evaluate", "paper")
    assert started["config"]["runs"]["steering"]["seed"] == 0
    assert list(logged) == ["runs", "steering"]
    table = logged["steering"]
    assert comma_separated([table.columns, *table.data]) == printed.out.strip().split("\n\n")[1]
    assert (trained / "metrics.jsonl").read_bytes() == before  # of the training alone


@pytest.mark.usefixtures("_offline_machine")
def test_an_offline_run_lies_below_the_first_checkpoint(workplace: Workplace, call: Call, trained: Path) -> None:
    pytest.importorskip("wandb")
    assert run(call, workplace, trained / "best.pt", "--wandb", "auto").code == 0
    (folder,) = (trained / "wandb").glob("offline-run-*")
    assert list(folder.glob("run-*.wandb"))


# ---- docs/evaluation.md -----------------------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("kind", TASKS)
def test_the_page_defines_every_tasks_deciding_metric(kind: str) -> None:
    task = TASKS[kind]
    assert re.search(rf"\b{re.escape(task.deciding().title)}\b", DOCUMENT)
    titles = {task.written(metric).title.split()[0] for metric in task.metrics if task.written(metric).better}
    assert not [title for title in titles if title not in DOCUMENT]


def test_the_pages_flags_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--help"])
    with pytest.raises(SystemExit):
        evaluate.main()
    known, named = capsys.readouterr().out, set(re.findall(r"`(--[a-z-]+)", DOCUMENT))
    assert {"--full-resolution", "--json", "--wandb"} <= named
    assert not [flag for flag in named if flag not in known]
