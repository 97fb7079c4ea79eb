"""What an offline run's file holds: the keys that docs/dashboard.md lists, with their axes, panels and sections."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from datasets.layout import RunDir
from tasks import TASKS
from tests.conftest import ROOT
from tests.training.conftest import Printed, Workplace, no_account
from tests.training.test_tracking import records
from tests.training.test_train_multitask import CONFIGS, MAINS, settings, train
from tests.training.test_train_single_task import assert_refused
from training.panels import classes_table

pytest.importorskip("wandb")
Call = Callable[..., Printed]
PAGE = (ROOT / "docs" / "dashboard.md").read_text()
GPUS = {"speed/gpu_memory_gb", "fp16/loss_scale", "fp16/overflows"}


@pytest.fixture(scope="module")
def found(small_data: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Records of an asymmetric run of all tasks with everything that can be logged on a CPU."""
    place = Workplace(*small_data, tmp_path_factory.mktemp("dashboard"))
    with pytest.MonkeyPatch.context() as patch:
        no_account(place.dir, patch)
        patch.setenv("SLURM_JOB_ID", "77")
        for task in TASKS:
            assert run(place, patch, "symmetric", "--train-mode", task, "--name", task, "--wandb", "disabled") is None
        baselines = [str(place.runs / task / "best.pt") for task in TASKS]
        changes = settings("balancing=uncertainty", "training.epochs=2", "training.similarity_every=1")
        shown = ["--wandb", "offline", "--wandb-best", "--wandb-tags", "a", "b", "a", "--baseline", *baselines]
        run(place, patch, "asymmetric", "--name", "run", *changes, *shown)
    return records(RunDir(place.runs, "run"))


def run(place: Workplace, patch: pytest.MonkeyPatch, script: str, *flags: str) -> None:
    path = place.dir / f"{script}.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[script]))
    where = ["--config", str(path), "--runs-root", str(place.runs), *place.roots(), "--set", "training.images=1"]
    patch.setattr("sys.argv", ["script.py", *where, *flags])
    MAINS[script]()


def metrics(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Key, or pattern of keys -> how it is defined."""
    defined = [record["metric"] for record in found if record["type"] == "metric"]
    return {metric.get("name") or metric["glob_name"]: metric for metric in defined}


def keys_of(found: list[dict[str, Any]]) -> set[str]:
    """Of pictures and tables without what wandb adds."""
    items = (key for record in found if record["type"] == "history" for key in record["history"]["item"])
    return {key.partition("._")[0].partition(".")[0] for key in items if not key.startswith("_")}


def definition(key: str, defined: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An exact one comes first."""
    return defined.get(key) or defined.get(f"{key.partition('/')[0]}/*") or {}


def pattern(key: str) -> str:
    """A key as the page writes it."""
    first, *rest = key.split("/")
    if first in ("train", "val", "images", "weight", "samples", "similarity") and rest:
        rest = ["TASK" if part in TASKS else part for part in rest]
    if first in ("gradient_norm", "learning_rate"):
        rest = ["GROUP"]
    if first == "plots":
        rest = ["TASK-NAME"]
    if rest[:1] == ["TASK"] and first == "val" and rest[1] != "loss":
        rest = ["TASK", "METRIC"]
    return "/".join([first, *rest])


def test_the_page_lists_the_keys_of_a_runs_file(found: list[dict[str, Any]]) -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert listed - GPUS == {pattern(key) for key in keys_of(found)} - {"samples", "epoch"}


def test_panels_are_few_and_those_that_the_page_says(found: list[dict[str, Any]]) -> None:
    defined = metrics(found)
    panels = {key for key in keys_of(found) if not definition(key, defined).get("options", {}).get("hidden")}
    panels |= {"speed/gpu_memory_gb"}
    assert len(panels) < 40
    assert f"at most {len(panels)} panels" in PAGE
    shown = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", PAGE, re.MULTILINE))
    assert {pattern(key) for key in panels} == {key for key, panel in shown.items() if panel != "no"}
    assert {key for key in panels if "/" not in key} == {"classes"}  # all others are in named sections


def test_axes_and_directions(found: list[dict[str, Any]]) -> None:
    defined = metrics(found)
    for key in keys_of(found) - {"samples", "epoch", "classes"}:
        axis = {"val": "epoch", "images": None, "plots": None}.get(key.partition("/")[0], "samples")
        assert definition(key, defined).get("step_metric") == axis, key
    best = {"val/score": "max", "val/depth/abs_rel": "min", "val/segmentation/miou": "max", "val/box/loss": "min"}
    assert {key: [*defined[key]["summary"]] for key in best} == {key: [way] for key, way in best.items()}
    summary: dict[str, Any] = {}
    for record in found:
        summary |= record.get("summary", {}).get("update", {})
    scores = [row["val/score"] for row in rows_of(found) if "val/score" in row]
    assert summary["best/score"] == max(scores)
    assert not [key for key in summary if key.count("/") > 2]


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in found if record["type"] == "history"]


def test_what_a_table_of_runs_is_sorted_by(found: list[dict[str, Any]]) -> None:
    (about,) = (record["run"] for record in found if record["type"] == "run")
    assert (about["tags"], about["job_type"], about["display_name"]) == (["a", "b"], "train", "run")
    facts = about["config"]["update"]["run"]
    named = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("under `run`:") :].partition("\n\n")[0])) - {
        "SLURM_JOB_ID",
        "run",
    }
    assert set(facts) == named
    assert (facts["script"], facts["mode"], facts["job"]) == ("train_asymmetric.py", "asymmetric", "77")
    assert facts["split"] == {"train": 10, "val": 4, "test": 2, "unused": 8}
    assert facts["samples"] == {"train": 10, "val": 4} | dict.fromkeys(TASKS, 10)
    assert facts["parameters"] > 100_000


def test_one_table_a_run_and_best_pt_where_it_was_asked_for(found: list[dict[str, Any]]) -> None:
    artifacts = [record["artifact"] for record in found if record["type"] == "artifact"]
    assert sorted(artifact["type"] for artifact in artifacts) == ["model", "run_table"]
    (model,) = (artifact for artifact in artifacts if artifact["type"] == "model")
    assert [content["path"] for content in model["manifest"]["contents"]] == ["best.pt"]


def test_classes_of_all_tasks_are_one_table() -> None:
    results = {"a": {"miou": 0.5, "iou/Car": 0.6, "iou/Sky": 0.4}, "b": {"ap/Car": 0.1}, "c": {"mae": 1.0}}
    columns = ["task", "class", "iou", "ap"]
    rows = [["a", "Car", 0.6, None], ["a", "Sky", 0.4, None], ["b", "Car", None, 0.1]]
    assert classes_table(results) == (columns, rows)


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        (["a"], ["learnt segmentation, steering, box, depth", "one network for each task"]),
        (["depth"], ["none of the networks learnt segmentation"]),
    ],
)
def test_baselines_that_do_not_fit_are_refused(
    workplace: Workplace, call: Call, baseline: list[str], words: list[str]
) -> None:
    mode = "symmetric" if baseline == ["a"] else baseline[0]
    assert train(call, workplace, "symmetric", "--train-mode", mode, "--name", baseline[0]).code == 0
    paths = [str(workplace.runs / name / "best.pt") for name in baseline]
    assert_refused(train(call, workplace, "asymmetric", "--name", "run", "--baseline", *paths), *words)
    assert not (workplace.runs / "run").exists()
