"""The networks that a training's Delta-m compares with (--baseline): each learnt one of its tasks."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets.splits import Split
from errors import UserError
from tasks.base import Task
from training.compatibility import load_checkpoint
from training.evaluation import Results


def read_baselines(paths: Iterable[Path], tasks: Mapping[str, Task], split: Split) -> dict[str, float]:
    """Task -> the deciding metric of its baseline's best validation.

    UserError: a network learnt several tasks or was validated on other frames; a task has no baseline.
    """
    found: dict[str, float] = {}
    for path in paths:
        content, config = load_checkpoint(path)
        results: Results = content["best"].get("results", {})
        (name, *others) = config.task_names()
        if others or name not in tasks:
            raise UserError(
                f"--baseline {path} learnt {', '.join(config.task_names())}; name one network for each task"
            )
        if Split.from_json(content["split"]).val != split.val:
            raise UserError(f"--baseline {path} was validated on other frames: its numbers don't compare")
        if name not in results:
            raise UserError(f"--baseline {path} holds no validation; name a best.pt")
        found[name] = results[name][tasks[name].best_metric]
    if missing := [name for name in tasks if name not in found]:
        raise UserError(f"--baseline: none of the networks learnt {', '.join(missing)}")
    return found
