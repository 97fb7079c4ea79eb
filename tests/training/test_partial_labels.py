"""Which labels a run trains on: the kinds that the regime draws from, tasks left out, kinds that the data lack."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from datasets.frames import Frame
from tests.training.conftest import Printed, Workplace
from tests.training.plans import Plan
from tests.training.test_train_multitask import content_of, plans, settings, train
from tests.training.test_train_single_task import assert_refused

__all__ = ["plans"]

Call = Callable[..., Printed]
ONE = "data.labels={regime: one, seed: 3}"
RESUME = ("--name", "run", "--resume", "auto")


def kept(plan: Plan) -> dict[str, list[Frame]]:
    """Task -> the training frames whose label is trained on."""
    return {task: [sample.frame for sample in plan.data.train.samples if task in sample.tasks] for task in plan.tasks}


def saved_config(place: Workplace) -> dict[str, Any]:
    return yaml.safe_load((place.runs / "run" / "config.yaml").read_text())


# ---- one label a frame ------------------------------------------------------------------------------------------


def test_a_baseline_of_one_task_keeps_the_labels_of_the_multi_task_row(
    workplace: Workplace, call: Call, plans: list[Plan]
) -> None:
    """And of a row without box: the kinds of the race are not the tasks that are trained."""
    whole = train(call, workplace, "asymmetric", *settings(ONE), "--dry-run")
    assert "fell to kinds" not in whole.out
    everything = kept(plans[-1])
    assert sum(map(len, everything.values())) == 10
    without = train(call, workplace, "asymmetric", *settings(ONE, "tasks.box=null"), "--dry-run")
    assert kept(plans[-1]) == {task: frames for task, frames in everything.items() if task != "box"}
    assert f"fell to kinds that this run does not train: box {len(everything['box'])}" in without.out
    for task in everything:
        for script in ("single", "symmetric"):
            train(call, workplace, script, "--train-mode", task, *settings(ONE), "--dry-run")
            assert kept(plans[-1]) == {task: everything[task]}


def test_random_labels_of_a_baseline_are_those_of_the_multi_task_row(
    workplace: Workplace, call: Call, plans: list[Plan]
) -> None:
    random = "data.labels={regime: random, seed: 3}"
    train(call, workplace, "asymmetric", *settings(random), "--dry-run")
    everything = kept(plans[-1])
    assert 10 < sum(map(len, everything.values())) < 40
    for script in ("single", "symmetric"):
        train(call, workplace, script, "--train-mode", "depth", *settings(random), "--dry-run")
        assert kept(plans[-1]) == {"depth": everything["depth"]}


def test_kinds_named_in_the_config_are_the_whole_race(workplace: Workplace, call: Call, plans: list[Plan]) -> None:
    labels = "data.labels={regime: one, seed: 3, kinds: [segmentation, depth]}"
    printed = train(call, workplace, "symmetric", *settings(labels, "frames=any"), "--dry-run")
    assert printed.code == 0
    found = kept(plans[-1])
    assert {task for task, frames in found.items() if frames} <= {"segmentation", "depth"}
    assert sum(map(len, found.values())) == 10


def test_a_kind_preprocessed_later_changes_no_older_run(own_workplace: Workplace, call: Call) -> None:
    """The race's kinds are resolved at the start, and kept in config.yaml and the checkpoint."""
    box = own_workplace.processed.kind_dir("box")
    aside = own_workplace.dir / "later"
    shutil.move(box, aside)
    flags = settings(ONE, "tasks.box=null", "training.epochs=2")
    assert train(call, own_workplace, "asymmetric", *flags, "--name", "run").code == 0
    kinds = ["segmentation", "depth", "steering"]
    assert sorted(saved_config(own_workplace)["data"]["labels"]["kinds"]) == sorted(kinds)
    samples = content_of(own_workplace, "run")["sample_lists"]
    shutil.move(aside, box)
    assert train(call, own_workplace, "asymmetric", *flags, *RESUME).code == 0
    assert content_of(own_workplace, "run")["sample_lists"] == samples
    new = train(call, own_workplace, "asymmetric", *flags, "--name", "new", "--dry-run")
    assert "fell to kinds that this run does not train: box" in new.out


# ---- tasks and kinds that are not there -------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["symmetric", "asymmetric"])
def test_a_task_set_to_null_is_left_out(workplace: Workplace, call: Call, script: str) -> None:
    printed = train(call, workplace, script, *settings("tasks.box=null"), "--name", "run")
    assert printed.code == 0
    content = content_of(workplace, "run")
    assert set(content["samples"]) == {"segmentation", "steering", "depth"}
    assert not any(name.startswith("heads.box") for name in content["model"])
    assert set(saved_config(workplace)["tasks"]) == {"segmentation", "steering", "depth"}


@pytest.mark.parametrize("script", ["symmetric", "asymmetric"])
def test_a_kind_without_a_folder_is_left_out_with_one_line(own_workplace: Workplace, call: Call, script: str) -> None:
    depth = own_workplace.processed.kind_dir("depth")
    aside = own_workplace.dir / "later"
    shutil.move(depth, aside)
    printed = train(call, own_workplace, script, *settings("training.epochs=2"), "--name", "run")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.count(f"no depth labels below {depth.parent}: the run leaves depth out\n") == 1
    assert set(content_of(own_workplace, "run")["samples"]) == {"segmentation", "steering", "box"}
    # the list is kept: the run goes on without depth, also where there are depth labels by now, if that is said
    assert train(call, own_workplace, script, *settings("training.epochs=2"), *RESUME).code == 0
    shutil.move(aside, depth)
    again = train(call, own_workplace, script, *settings("training.epochs=2"), *RESUME)
    assert_refused(again, "the checkpoint trains", "depth", "tasks.NAME=null")
    assert train(call, own_workplace, script, *settings("training.epochs=2", "tasks.depth=null"), *RESUME).code == 0


def test_no_kind_at_all_is_an_error(own_workplace: Workplace, call: Call) -> None:
    for kind in own_workplace.processed.kinds():
        shutil.rmtree(own_workplace.processed.kind_dir(kind))
    refused = train(call, own_workplace, "asymmetric")
    assert_refused(refused, "no segmentation, steering, box, depth labels", "preprocessing script")
    assert not own_workplace.runs.exists()


# ---- symmetric training from partial labels -----------------------------------------------------------------------


@pytest.mark.parametrize("balancing", ["fixed", "uncertainty", "upgrad", "pcgrad"])
def test_symmetric_training_takes_frames_with_one_label_each(workplace: Workplace, call: Call, balancing: str) -> None:
    """The standard baseline: joint training from partial labels."""
    flags = settings(ONE, "frames=any", f"balancing={balancing}")
    printed = train(call, workplace, "symmetric", *flags, "--name", "run")
    assert printed.code == 0
    assert "training samples: 10, of 10 frames" in printed.out
    assert "; 0 frames left out" in printed.out
    content = content_of(workplace, "run")
    assert content["updates"]["seen"] == {"backbone": 10, **content["samples"]}
    assert sum(content["samples"].values()) == 10


def test_complete_frames_are_none_where_each_has_one_label(workplace: Workplace, call: Call) -> None:
    refused = train(call, workplace, "symmetric", *settings(ONE))
    assert_refused(refused, "labels that symmetric needs")


def test_the_start_says_at_which_counts_the_groups_step(workplace: Workplace, call: Call) -> None:
    """10 frames in blocks of 8: the backbone waits for 16, which never come."""
    printed = train(call, workplace, "asymmetric", "--dry-run")
    paces = printed.out.split("an epoch has ")[1].splitlines()[0].split(", ")
    assert paces == [
        "backbone 1 steps of 10",
        *(f"{task} 2 steps of 5" for task in ("segmentation", "steering", "box", "depth")),
    ]
    uneven = train(call, workplace, "asymmetric", *settings("block_size=4", "tasks.box.batch_size=6"), "--dry-run")
    assert "box 2 steps of 5" in uneven.out  # 8, then 2


def test_paces_are_those_of_the_run(workplace: Workplace, call: Call, plans: list[Plan]) -> None:
    printed = train(call, workplace, "asymmetric", *settings("visit=label", "block_size=4"), "--name", "run")
    assert printed.code == 0
    content = content_of(workplace, "run")
    steps = sum(int(pace.split()[1]) for pace in plans[-1].paces())
    assert content["updates"]["steps"] == steps
    rows = [json.loads(line) for line in (workplace.runs / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("weight/box" in row for row in rows)
