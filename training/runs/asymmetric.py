"""Asymmetric training: each frame brings the labels that it has, and groups of parameters step at their own pace.

- *Pools.* The frames that keep a task's label are its pool. `visit: frame` passes each frame of any pool once an epoch
  with all labels that it keeps; `visit: label` each of its labels by itself, and `sampling` says how often a pool is
  drawn from (datasets/sampling.py: `epoch_order`).
- *Blocks.* The epoch's order is cut into blocks of `block_size` samples, and these into micro-batches that the
  processes share. Losses of samples are summed, never averaged, over a block (training/step.py: `accumulate`); a label
  that a sample does not have adds nothing.
- *Groups and counts.* The backbone and each head are groups with their own optimiser. At a block's border each group
  adds the number of samples that reached it: all for the backbone, for a head those with a valid label of its task. One
  that has seen its `batch_size` divides its gradient by the count, clips, steps and starts again at 0; what is left at
  the end of an epoch steps with the count that it has (training/updates.py: `Updates.close`, `step_rest`).
"""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from datasets.labels import Labelled, label_samples
from datasets.samples import Sample
from datasets.sampling import Sampling
from models.multitask import BACKBONE
from training.config import ASYMMETRIC, BatchSize, GroupConfig
from training.methods import METHODS, MethodSettings
from training.runs.base import Portions, tasks_in_order
from training.runs.multi_task import HeadConfig, MultiTaskRun


class AsymmetricTaskConfig(GroupConfig, HeadConfig):
    """One task of train_asymmetric.py: its head's group and its weight."""


class AsymmetricRun(MultiTaskRun):
    """configs/asymmetric_conf.yaml: each frame brings the labels that it has; groups step at their own pace."""

    kind = "asymmetric"
    steps_together = False

    backbone: GroupConfig
    block_size: BatchSize | None = None
    """Samples between the borders at which groups may step; default: the smallest batch_size."""
    visit: Literal["frame", "label"] = "frame"
    """frame: each frame once an epoch with all labels that it keeps; label: each of its labels by itself. Per label, a
    frame with four labels gives four samples: the epoch is as much longer, and the backbone's gradient, divided by
    samples, has a fourth of the sum of the frame's losses (so `clip` and rates mean something else)."""
    sampling: Sampling = "proportional"
    """proportional: every sample once an epoch; uniform: as many of each task; or {task: weight} (visit: label)."""
    tasks: dict[str, AsymmetricTaskConfig]

    @field_validator("sampling")
    @classmethod
    def _known_pools(cls, sampling: Sampling) -> Sampling:
        if isinstance(sampling, str):
            return sampling
        if min(sampling.values(), default=0) < 0 or not any(sampling.values()):
            raise ValueError(f"weights {sampling} must not be negative, nor all 0")
        return sampling

    @field_validator("balancing")
    @classmethod
    def _works_at_each_pace(cls, balancing: MethodSettings) -> MethodSettings:
        if not METHODS[balancing.name].asymmetric:
            names = ", ".join(name for name, method in METHODS.items() if method.asymmetric)
            raise ValueError(
                f"{balancing.name} needs groups that step together; in asymmetric training there are {names}"
            )
        return balancing

    @model_validator(mode="after")
    def _draws_labels(self) -> Self:
        if not isinstance(self.sampling, str) and (unknown := sorted(set(self.sampling) - set(self.tasks))):
            raise ValueError(f"sampling: unknown task {', '.join(unknown)}; there are {', '.join(self.tasks)}")
        if self.sampling != "proportional" and self.visit != "label":
            raise ValueError("sampling other than proportional draws single labels: set visit: label")
        return self

    def modes(self) -> list[str]:
        return [ASYMMETRIC]

    def task_names(self) -> list[str]:
        return tasks_in_order(self.tasks)

    def make_samples(self, labelled: Labelled) -> list[Sample]:
        per_label = label_samples(labelled, self.task_names())
        return per_label if self.visit == "label" else super().make_samples(labelled)

    def group_configs(self) -> dict[str, GroupConfig]:
        return {BACKBONE: self.backbone, **{name: self.tasks[name] for name in self.task_names()}}

    def portions(self) -> Portions:
        smallest = min(group.batch_size for group in self.group_configs().values())
        return Portions(self.block_size or smallest, self.micro_batch_size, self.sampling)
