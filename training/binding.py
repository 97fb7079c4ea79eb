"""Which data sets a run's tasks draw their labels from, and what its config becomes with these."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.labels import frame_samples
from datasets.roots import Roots, agreed_label, stage_all
from datasets.samples import Sample
from datasets.spec import LabelSpec
from datasets.staging import copied_bytes
from errors import UserError
from tasks.base import Task
from training import distributed
from training.compatibility import check_fits, check_same_run
from training.data_config import DRAWN
from training.runs import RunConfig
from training.start import Start

Run = TypeVar("Run", bound=RunConfig)


def open_roots(start: Start, config: RunConfig) -> Roots:
    """The data sets, staged where --stage-to says so."""
    args = start.args
    processed = stage_all(args.processed_root, None if args.dry_run else args.stage_to)
    if args.dry_run and args.stage_to:
        print(f"--stage-to: a copy of the processed data takes {copied_bytes(processed) / 1e9:.2f} GB")
    encoded = config.data.decode == "device"
    return Roots.open(processed, RawData(args.data_root), config.data.image_size, encoded=encoded)


def resolved(config: Run, roots: Roots, start: Start) -> tuple[Run, dict[str, list[str]]]:
    """The config with what the data sets decide, the kinds that its label regime draws from and the tasks with labels;
    and task -> the data sets that its labels are from.

    UserError: no task has labels, or a checkpoint to go on from is of another run or of other data.
    """
    config = with_regime_kinds(config, distributed.from_main(roots.kinds), start.checkpoint)
    bound = bound_roots(config, roots)
    config = without_absent_tasks(config, bound, roots)
    if start.checkpoint is not None:
        check_fits(start.checkpoint, roots, "--resume: the checkpoint")
        check_same_run(start.checkpoint, config, extend=start.args.extend is not None)
    return config, {task: names for task, names in bound.items() if names}


def with_regime_kinds(config: Run, there: list[str], loaded: dict[str, Any] | None) -> Run:
    """The config with the kinds that its regime draws from: those of the checkpoint, else all that there are."""
    regime = config.data.labels
    if regime.regime not in DRAWN or regime.kinds is not None:
        return config
    saved = loaded["config"]["data"]["labels"]["kinds"] if loaded else None
    return config.with_labels(regime.model_copy(update={"kinds": saved or there}))


def without_absent_tasks(config: Run, bound: Mapping[str, list[str]], roots: Roots) -> Run:
    """The config without the tasks whose kind of label no data set has, each named; UserError where none is left."""
    absent = [name for name, names in bound.items() if not names]
    where = " or ".join(str(root.processed.root) for root in roots.values())
    if len(absent) == len(bound):
        raise UserError(f"no {', '.join(absent)} labels below {where}; run the preprocessing script first")
    for name in absent:
        print(f"no {config.kind_of(name)} labels below {where}: the run leaves {name} out")
    return config.without(absent)


def bound_roots(config: RunConfig, roots: Roots) -> dict[str, list[str]]:
    """Task -> the data sets that its labels are from: those that the config names, else all that have the kind.

    The first process looks for all. UserError: a data set that the config names is not there or lacks the kind.
    """
    return distributed.from_main(lambda: {name: _bound(name, config, roots) for name in config.task_names()})


def _bound(task: str, config: RunConfig, roots: Roots) -> list[str]:
    kind, named = config.kind_of(task), config.tasks[task].roots
    having = [root.name for root in roots.values() if kind in root.processed.kinds()]
    if unknown := [root for root in named or () if root not in roots]:
        raise UserError(
            f"tasks.{task}.from: no data set {', '.join(unknown)} here; --processed-root gives {', '.join(roots)}"
        )
    if lacking := [root for root in named or () if root not in having]:
        raise UserError(f"tasks.{task}.from: {', '.join(lacking)} has no {kind} labels")
    return named or having


def agreed_labels(config: RunConfig, bound: Mapping[str, list[str]], roots: Roots) -> dict[str, LabelSpec]:
    """Task -> what its labels say. UserError: they do not lie on the images, or data sets disagree."""
    labels = {}
    for task, names in bound.items():
        kind = config.kind_of(task)
        for name in names:
            roots[name].check_labels([kind])
        labels[task] = agreed_label(kind, [roots[name] for name in names], task)
    return labels


def labelled_samples(
    roots: Roots, bound: Mapping[str, Iterable[str]], frames: Iterable[Frame], tasks: Mapping[str, Task]
) -> list[Sample]:
    """The frames that have a label of at least one of the tasks, each with those that it has.

    bound: task -> the data sets that its labels are from.
    """
    frames = list(frames)
    labelled = {
        name: {frame for root in bound[name] for frame in roots[root].processed.frames(task.kind)}
        for name, task in tasks.items()
    }
    return frame_samples({name: [frame for frame in frames if frame in labelled[name]] for name in tasks}, list(tasks))
