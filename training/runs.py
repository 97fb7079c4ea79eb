"""The three kinds of run, each a config with what it means: tasks, samples, network, groups, balancing.

The training scripts and evaluate.py know only `RunConfig`.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import nn
from torchvision.models import WeightsEnum

from datasets.a2d2 import Sample
from datasets.labels import Labelled
from datasets.sampling import Sampling
from models.encoder import Encoder
from models.multitask import BACKBONE, MultiTask
from models.pretrained import load_pretrained
from models.single import SingleTask
from tasks import TASKS
from tasks.base import StrictModel, Task
from training.balancing import AGGREGATORS, Aggregated, Balancing, Fixed, Uncertainty
from training.config import (
    AugmentationConfig,
    DataConfig,
    GroupConfig,
    NetworkConfig,
    TaskSettings,
    TrainingConfig,
    check_known_tasks,
    with_task_settings,
)

SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"  # modes beside the tasks' own


class RunConfig(StrictModel):
    """What all runs share, and what a subclass must tell. `mode` is the value of --train-mode."""

    kind: ClassVar[str]  # the name in checkpoints
    compares_tasks: ClassVar[bool]  # whether "best" is a mean over tasks, not one task's own metric

    seed: NonNegativeInt = 0
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig
    tasks: dict[str, Any]

    @field_validator("tasks", mode="before", check_fields=False)
    @classmethod
    def _known_tasks(cls, tasks: Any) -> Any:
        return with_task_settings(tasks)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for mode in self.modes():
            check_block(self.micro_batch_size_of(mode), self.block_size_of(mode), self.groups_of(mode))
        return self

    def modes(self) -> list[str]:
        """The modes that the file can train."""
        return list(self.tasks)

    def task_names(self, mode: str) -> list[str]:
        """The tasks that a mode trains."""
        return [mode]

    def make_tasks(self, mode: str) -> dict[str, Task]:
        return {name: TASKS[name](self.tasks[name].settings) for name in self.task_names(mode)}

    def make_samples(self, mode: str, labelled: Labelled) -> list[Sample]:
        """The training samples, from the frames that keep each label."""
        return [Sample(frame, (task,)) for task in self.task_names(mode) for frame in labelled[task]]

    def sampling_of(self, mode: str) -> Sampling:
        return "proportional"

    @abstractmethod
    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        """Group of parameters -> its batch size and optimiser."""

    @abstractmethod
    def micro_batch_size_of(self, mode: str) -> int:
        """Samples in one forward and backward pass."""

    def block_size_of(self, mode: str) -> int:
        """Samples of one kind between borders at which groups may step: the batch sizes' greatest common divisor."""
        return math.gcd(*(group.batch_size for group in self.groups_of(mode).values()))

    @abstractmethod
    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> nn.Module:
        """The network with random weights; the tasks have been fitted or restored."""

    @abstractmethod
    def load_pretrained(self, model: nn.Module, tasks: Mapping[str, Task]) -> None:
        """Put the initial weights that the config names into a network from `make_model`."""

    @abstractmethod
    def imagenet_weights(self) -> list[WeightsEnum]:
        """torchvision's entries of the ImageNet weights that the file names."""

    @abstractmethod
    def make_balancing(self, mode: str, model: nn.Module, tasks: Mapping[str, Task]) -> Balancing:
        """How the tasks' losses are weighed; the network is on its device."""


class SingleTaskConfig(GroupConfig, TaskSettings):
    """One task of train_single_task.py."""

    micro_batch_size: PositiveInt
    """Samples in one forward and backward pass; divides batch_size. Decides the memory, and with norm: train the result
    too; with other norms the result depends on it by rounding only."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_block(self.micro_batch_size, self.batch_size, {})
        return self


class SingleTaskRun(RunConfig):
    """configs/single_task_conf.yaml: what all single-task networks share, and one section a task."""

    kind = "single_task"
    compares_tasks = False

    tasks: dict[str, SingleTaskConfig]

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return {mode: self.tasks[mode]}

    def micro_batch_size_of(self, mode: str) -> int:
        return self.tasks[mode].micro_batch_size

    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> SingleTask:
        return SingleTask(mode, tasks[mode].network())

    def imagenet_weights(self) -> list[WeightsEnum]:
        found = (task.imagenet_weights() for mode in self.modes() for task in self.make_tasks(mode).values())
        return [weights for weights in found if weights is not None]

    def load_pretrained(self, model: SingleTask, tasks: Mapping[str, Task]) -> None:
        tasks[model.task].load_pretrained(model.network)

    def make_balancing(self, mode: str, model: nn.Module, tasks: Mapping[str, Task]) -> Balancing:
        return Fixed({mode: 1.0})


class MultiTaskRun(RunConfig):
    """The multi-task network: what its symmetric and its asymmetric training share."""

    compares_tasks = True

    network: NetworkConfig = NetworkConfig()
    micro_batch_size: PositiveInt
    """Samples in one forward and backward pass. Decides the memory, and with norm: train the result too; with other
    norms the result depends on it by rounding only."""

    def micro_batch_size_of(self, mode: str) -> int:
        return self.micro_batch_size

    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> MultiTask:
        return MultiTask(
            encoder=Encoder(name=self.network.encoder, norm=self.network.norm),
            channels=self.network.channels,
            layers=self.network.layers,
            heads={name: task.head(self.network.channels) for name, task in tasks.items()},
        )

    def imagenet_weights(self) -> list[WeightsEnum]:
        weights = self.network.imagenet_weights()
        return [] if weights is None else [weights]

    def load_pretrained(self, model: MultiTask, tasks: Mapping[str, Task]) -> None:
        network = self.network
        load_pretrained(model.encoder.resnet, network.pretrained, network.imagenet_weights(), network.encoder)

    def make_balancing(self, mode: str, model: MultiTask, tasks: Mapping[str, Task]) -> Balancing:
        if self.balancing == "uncertainty":
            parameter = next(model.parameters())
            likelihoods = {name: task.likelihood for name, task in tasks.items()}
            return Uncertainty(likelihoods, device=parameter.device, dtype=parameter.dtype)
        weights = {name: self.tasks[name].weight for name in tasks}
        if self.balancing == "fixed":
            return Fixed(weights)
        return Aggregated(self.balancing, weights, model.groups()[BACKBONE], seed=self.seed)


class SymmetricTaskConfig(TaskSettings):
    """One task of train_symmetric.py."""

    weight: PositiveFloat = 1.0
    """Factor of the task's loss (balancing fixed, and of the gradients that are aggregated)."""


class SymmetricRun(GroupConfig, MultiTaskRun):
    """configs/symmetric_conf.yaml: all groups step together, after `batch_size` frames that carry all labels."""

    kind = "symmetric"

    balancing: Literal["fixed", "uncertainty", *AGGREGATORS] = "fixed"
    """How the tasks' losses are weighed (training/balancing.py)."""
    tasks: dict[str, SymmetricTaskConfig]

    def modes(self) -> list[str]:
        return [SYMMETRIC, *self.tasks]

    def task_names(self, mode: str) -> list[str]:
        return tasks_in_order(self.tasks) if mode == SYMMETRIC else super().task_names(mode)

    def make_samples(self, mode: str, labelled: Labelled) -> list[Sample]:
        """Frames that carry the labels of all the mode's tasks."""
        tasks = tuple(self.task_names(mode))
        return [Sample(frame, tasks) for frame in sorted(set.intersection(*(set(labelled[task]) for task in tasks)))]

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return dict.fromkeys((BACKBONE, *self.task_names(mode)), self)


class AsymmetricTaskConfig(GroupConfig, SymmetricTaskConfig):
    """One task of train_asymmetric.py: its head's group and its weight."""


class AsymmetricRun(MultiTaskRun):
    """configs/asymmetric_conf.yaml: each sample carries one label; groups fill and step at their own pace."""

    kind = "asymmetric"

    backbone: GroupConfig
    block_size: PositiveInt | None = None
    """Samples of one task in a row; default: the greatest common divisor of the batch sizes."""
    sampling: Sampling = "proportional"
    """proportional: every label once an epoch; uniform: as many of each task; or {task: weight}."""
    balancing: Literal["fixed", "uncertainty"] = "fixed"
    """How the tasks' losses are weighed (training/balancing.py)."""
    tasks: dict[str, AsymmetricTaskConfig]

    @field_validator("sampling")
    @classmethod
    def _known_pools(cls, sampling: Sampling) -> Sampling:
        if not isinstance(sampling, str):
            check_known_tasks(sampling)
            if min(sampling.values(), default=0) < 0 or not any(sampling.values()):
                raise ValueError(f"weights {sampling} must not be negative, nor all 0")
        return sampling

    def modes(self) -> list[str]:
        return [ASYMMETRIC]

    def task_names(self, mode: str) -> list[str]:
        return tasks_in_order(self.tasks)

    def sampling_of(self, mode: str) -> Sampling:
        return self.sampling

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return {BACKBONE: self.backbone, **{name: self.tasks[name] for name in self.task_names(mode)}}

    def block_size_of(self, mode: str) -> int:
        return self.block_size or super().block_size_of(mode)


# the name that checkpoints give their kind of run -> its class
RUN_CONFIGS: dict[str, type[RunConfig]] = {run.kind: run for run in (SingleTaskRun, SymmetricRun, AsymmetricRun)}


def tasks_in_order(tasks: Mapping[str, Any]) -> list[str]:
    """In the order of TASKS: a result must not depend on the order of a file's sections."""
    return [name for name in TASKS if name in tasks]


def check_block(micro_batch_size: int, block_size: int, groups: Mapping[str, GroupConfig]) -> None:
    """ValueError unless micro-batches fill blocks, and blocks every group's batch."""
    if block_size % micro_batch_size:
        raise ValueError(f"micro_batch_size {micro_batch_size} does not divide the block of {block_size}")
    for name, group in groups.items():
        if group.batch_size % block_size:
            raise ValueError(f"block_size {block_size} does not divide the batch_size {group.batch_size} of {name}")
