"""What a training's dashboard shows by itself: which keys have a panel, over which axis, and which way is better.

docs/dashboard.md says the same in words. Everything else that is logged is there too, for panels that people make.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.base import Task

AXES = ("samples", "epoch")
BY_SAMPLES = ("train/*", "weight/*", "similarity/*", "speed/*")
HIDDEN_BY_SAMPLES = ("gradient_norm/*", "learning_rate/*", "samples/*", "fp16/*")


def definitions(tasks: Mapping[str, Task], groups: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Keywords of wandb's define_metric. groups: of parameters, the backbone or a single task's first."""
    for axis in AXES:
        yield {"name": axis, "hidden": True}
    for name in BY_SAMPLES:
        yield {"name": name, "step_metric": "samples"}
    for name in HIDDEN_BY_SAMPLES:
        yield {"name": name, "step_metric": "samples", "hidden": True}
    first = next(iter(groups))  # stands for the others, which are there to be added
    for name in (f"gradient_norm/{first}", f"learning_rate/{first}"):
        yield {"name": name, "step_metric": "samples"}
    yield {"name": "val/*", "step_metric": "epoch", "hidden": True}
    for name in ("val/score", "val/delta_m"):
        yield {"name": name, "step_metric": "epoch", "summary": "max"}
    for name, task in tasks.items():
        yield {"name": f"val/{name}/loss", "step_metric": "epoch", "summary": "min"}
        direction = "max" if task.deciding().higher_is_better else "min"
        yield {"name": f"val/{name}/{task.best_metric}", "step_metric": "epoch", "summary": direction}
