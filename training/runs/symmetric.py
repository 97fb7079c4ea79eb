"""Symmetric training: all groups step together."""

from typing import Literal, Self

from pydantic import model_validator

from datasets.labels import Labelled
from datasets.samples import Sample
from models.multitask import BACKBONE
from training.config import SYMMETRIC, GroupConfig
from training.methods import METHODS
from training.runs.base import Portions, tasks_in_order
from training.runs.multi_task import HeadConfig, MultiTaskRun


class SymmetricRun(GroupConfig, MultiTaskRun):
    """configs/symmetric_conf.yaml: all groups step together, after `batch_size` frames.

    A head divides its gradient by the frames that have its label, the backbone by all frames.
    """

    kind = "symmetric"

    frames: Literal["complete", "any"] = "complete"
    """complete: frames that carry the labels of all tasks; any: also those that lack some, by the losses that exist."""
    tasks: dict[str, HeadConfig]

    @model_validator(mode="after")
    def _has_the_frames_that_balancing_needs(self) -> Self:
        if METHODS[self.balancing.name].complete and self.frames != "complete":
            raise ValueError(f"balancing {self.balancing.name} needs frames: complete, not {self.frames}")
        return self

    def modes(self) -> list[str]:
        return [SYMMETRIC, *self.tasks]

    def task_names(self) -> list[str]:
        return tasks_in_order(self.tasks) if self.mode == SYMMETRIC else super().task_names()

    def make_samples(self, labelled: Labelled) -> list[Sample]:
        tasks, samples = tuple(self.task_names()), super().make_samples(labelled)
        return samples if self.frames == "any" else [sample for sample in samples if sample.tasks == tasks]

    def group_configs(self) -> dict[str, GroupConfig]:
        return dict.fromkeys((BACKBONE, *self.task_names()), self)

    def portions(self) -> Portions:
        return Portions(self.batch_size, self.micro_batch_size)
