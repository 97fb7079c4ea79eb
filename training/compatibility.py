"""Whether a checkpoint and what it is to be used with belong together: one line says what does not."""

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.roots import Roots
from datasets.spec import LabelSpec
from errors import UserError
from progress import warn
from strict_yaml import validated
from tasks import TASKS
from training import checkpoint
from training.runs import RUN_CONFIGS, RunConfig

ROUNDING = "training.precision"
"""Whoever resumes may change it, and is warned: it changes weights by rounding."""
FREE = ("data.workers", "training.images", "training.keep_images", "training.log_every", ROUNDING)
"""Whoever resumes may change them: the others decide no weight."""


def load_checkpoint(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """A checkpoint whose parts belong together, and its config, bound to its mode. UserError: there is none."""
    content = checkpoint.load(path)
    config = validated(RUN_CONFIGS[content["kind"]], content["config"], f"{path}: config")
    if content["mode"] not in config.modes():
        raise UserError(
            f"{path} is no whole checkpoint: mode {content['mode']!r} is none of its config's; use another one"
        )
    config = config.of_mode(content["mode"])
    if what := next(disagreements(content, config), None):
        raise UserError(f"{path} is no whole checkpoint: {what}; use another one")
    return {**content, "config": config.model_dump(mode="json")}, config


def disagreements(content: Mapping[str, Any], config: RunConfig) -> Iterator[str]:
    """What in a checkpoint contradicts its own config."""
    tasks, updates = config.task_names(), content["updates"]
    for entry, names, found in (
        ("bound", tasks, content["bound"]),
        ("tasks", tasks, content["tasks"]),
        ("samples", tasks, content["samples"]),
        ("updates.groups", config.learning_groups(), updates["groups"]),
        ("updates.seen", config.group_configs(), updates["seen"]),
    ):
        if set(found) != set(names):
            yield f"{entry} is of {', '.join(found) or 'nothing'}, its config of {', '.join(names)}"
            return
    validates = bool(content["split"]["val"])  # else nothing is judged: neither best nor constant baselines
    for name in tasks:
        kind, task = config.kind_of(name), TASKS[config.kind_of(name)]
        if unknown := [root for root in content["bound"][name] if kind not in labels_of(content, root)]:
            yield f"datasets.{unknown[0]} says nothing of {kind} labels"
        is_error = config.compares_tasks and not task.deciding().higher_is_better
        needed = validates and is_error and content["samples"][name]
        if needed and task.best_metric not in content["constant"].get(name, {}):
            yield f"constant.{name} has no {task.best_metric}"
    if unknown := sorted({*content["log"]["sums"]} - {*tasks}):
        yield f"log.sums is of {unknown[0]}, its config of {', '.join(tasks)}"
    position, epochs = content["position"], config.training.epochs
    if position["samples"] + position["blocks"] > updates["samples_seen"]:  # a block has a sample at least
        yield f"position is beyond the {updates['samples_seen']} samples seen"
    if position["epoch"] > epochs:
        yield f"position.epoch is {position['epoch']} of {epochs}"
    if position["epoch"] == epochs and position["validated"] and validates and not content["best"]:
        yield "best is empty after the last epoch"


def labels_of(content: Mapping[str, Any], root: str) -> dict[str, Any]:
    """What the labels of a data set said, by kind; empty where the checkpoint does not know the data set."""
    return content["datasets"][root]["labels"] if root in content["datasets"] else {}


def check_same_run(loaded: Mapping[str, Any], config: RunConfig, *, extend: bool = False) -> None:
    """UserError unless the checkpoint is of the same kind of training, with the same tasks and the same config.

    extend: more epochs are meant.
    """
    found, asked = (loaded["kind"], loaded["mode"]), (config.kind, config.mode)
    if found != asked:
        raise UserError(f"--resume: the checkpoint is of {' '.join(found)} training, not {' '.join(asked)}")
    saved, names = list(loaded["tasks"]), config.task_names()
    if sorted(saved) != sorted(names):
        raise UserError(
            f"--resume: the checkpoint trains {', '.join(saved)}; now it would be {', '.join(names)}: set "
            "tasks.NAME=null for what it does not train, or start a new run with --name"
        )
    saved_config, asked_config = of_tasks(loaded["config"], names), of_tasks(config.model_dump(mode="json"), names)
    if extend:
        planned = saved_config["training"]["epochs"]
        if config.training.epochs < planned:
            raise UserError(f"--extend {config.training.epochs}: the run has {planned} epochs already; name more")
        asked_config["training"]["epochs"] = planned
    check_same_config(saved_config, asked_config)


def of_tasks(config: Mapping[str, Any], tasks: Container[str]) -> dict[str, Any]:
    """A run's config without the sections of other tasks: they decide nothing of it."""
    return {**config, "tasks": {name: section for name, section in config["tasks"].items() if name in tasks}}


def check_same_config(saved: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> None:
    """UserError naming the first key that differs and is not FREE to."""
    for key in sorted({*saved, *asked}):
        ours, theirs, name = asked.get(key), saved.get(key), f"{prefix}{key}"
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            check_same_config(theirs, ours, f"{name}.")
        elif ours != theirs and name not in FREE:
            advice = f" (longer: --extend {ours})" if name == "training.epochs" else ""
            raise UserError(
                f"--resume: {name} is {ours}, the checkpoint has {theirs}; without --config and --set the run goes on "
                f"with its own config.yaml, a new run needs --name{advice}"
            )
        elif ours != theirs and name == ROUNDING:
            warn(f"warning: {name} is {ours}, was {theirs}: weights differ by rounding from those of one precision")


def check_fits(content: Mapping[str, Any], roots: Roots, source: str) -> None:
    """UserError where what a checkpoint's data sets said is not what those of the same names say here."""
    for name in content["datasets"]:
        if name not in roots:
            raise UserError(f"{source} was trained on {name}; add its --processed-root")
        saved, root = content["datasets"][name], roots[name]
        if saved["geometry"] != root.geometry:
            raise UserError(f"{source} was trained with another calibration than that of {name} in {root.where}")
    for task, names in content["bound"].items():
        kind = content["config"]["tasks"][task]["label"] or task
        for name in names:
            if roots[name].processed.settings(kind) is None:  # the network can still be looked at
                continue
            ours = roots[name].processed.label_spec(kind)
            if difference := LabelSpec.of(content["datasets"][name]["labels"][kind], source).difference(ours):
                raise UserError(f"{source} was trained with other {kind} labels of {name}: {difference}")
