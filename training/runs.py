"""The three kinds of run, each a config with what it means: tasks, samples, network, groups, balancing.

The training scripts and evaluate.py know only `RunConfig`.
"""

from abc import abstractmethod
from collections.abc import Container, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, SerializeAsAny, field_validator, model_validator
from torch import nn
from torchvision.models import WeightsEnum

from datasets.labels import Labelled, frame_samples, label_samples
from datasets.samples import Sample
from datasets.sampling import Sampling
from datasets.spec import LabelSpec
from models.encoder import make_encoder
from models.multitask import BACKBONE, MultiTask
from models.pretrained import load_pretrained
from models.registry import make_head, make_network
from models.settings import EncoderSettings, PartSettings
from models.single import SingleTask
from strict import StrictModel
from tasks import TASKS
from tasks.base import Task
from training.config import (
    AugmentationConfig,
    DataConfig,
    GroupConfig,
    NetworkConfig,
    TaskSettings,
    TrainingConfig,
    method_settings,
    with_task_settings,
)
from training.methods import METHODS, Context, MethodSettings
from training.methods.base import Balancing
from training.methods.fixed import Fixed
from training.methods.rows import Rows
from training.methods.similarity import GradientSimilarity

SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"  # modes beside the tasks' own


class RunConfig(StrictModel):
    """What all runs share, and what a subclass must tell. `mode` is the value of --train-mode."""

    kind: ClassVar[str]  # the name in checkpoints
    part: ClassVar[str]  # what a task's section chooses: its network or its head
    compares_tasks: ClassVar[bool]  # whether "best" is a mean over tasks, not one task's own metric
    steps_together: ClassVar[bool] = True  # all groups at every block's border; else each when it has its batch_size

    seed: NonNegativeInt = 0
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig
    tasks: dict[str, Any]

    @field_validator("tasks", mode="before", check_fields=False)
    @classmethod
    def _known_tasks(cls, tasks: Any) -> Any:
        return with_task_settings(tasks, cls.part)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for mode in self.modes():
            check_block(self.micro_batch_size_of(mode), self.block_size_of(mode))
        return self

    def without(self, tasks: Container[str]) -> Self:
        """The same run with these tasks left out of training."""
        return self.model_copy(update={"tasks": {name: task for name, task in self.tasks.items() if name not in tasks}})

    def with_kinds(self, kinds: list[str]) -> Self:
        """The same run whose label regime draws from these kinds."""
        labels = self.data.labels.model_copy(update={"kinds": kinds})
        return self.model_copy(update={"data": self.data.model_copy(update={"labels": labels})})

    def modes(self) -> list[str]:
        """The modes that the file can train."""
        return list(self.tasks)

    def task_names(self, mode: str) -> list[str]:
        """The tasks that a mode trains."""
        return [mode]

    def kind_of(self, task: str) -> str:
        """The kind of the task's labels."""
        return self.tasks[task].label or task

    @abstractmethod
    def network_of(self, task: str) -> tuple[StrictModel, ...]:
        """The settings of all that computes the task's output: equal ones mean the same network."""

    def make_tasks(self, mode: str, labels: Mapping[str, LabelSpec]) -> dict[str, Task]:
        """labels: task -> what its labels say."""
        return {
            name: TASKS[self.kind_of(name)](self.tasks[name].settings, labels[name], name)
            for name in self.task_names(mode)
        }

    def make_samples(self, mode: str, labelled: Labelled) -> list[Sample]:
        """The training samples, from the frames that keep each label."""
        return frame_samples(labelled, self.task_names(mode))

    def sampling_of(self, mode: str) -> Sampling:
        return "proportional"

    @abstractmethod
    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        """Group of parameters -> its batch size and optimiser."""

    @abstractmethod
    def micro_batch_size_of(self, mode: str) -> int:
        """Samples in one forward and backward pass."""

    def block_size_of(self, mode: str) -> int:
        """Samples between the borders at which groups may step: the smallest batch size."""
        return min(group.batch_size for group in self.groups_of(mode).values())

    @abstractmethod
    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> nn.Module:
        """The network with random weights; the tasks have been fitted or restored."""

    @abstractmethod
    def load_pretrained(self, model: nn.Module, tasks: Mapping[str, Task]) -> None:
        """Put the initial weights that the config names into a network from `make_model`."""

    @abstractmethod
    def imagenet_weights(self) -> list[WeightsEnum]:
        """torchvision's entries of the ImageNet weights that the file names."""

    def slowed(self, model: nn.Module) -> tuple[list[nn.Parameter], float]:
        """Parameters whose learning rate is a factor of their group's, and this factor."""
        return [], 1.0

    @abstractmethod
    def make_balancing(self, mode: str, model: nn.Module, tasks: Mapping[str, Task]) -> Balancing:
        """How the tasks' losses are weighed; the network is on its device."""


class SingleTaskConfig(GroupConfig, TaskSettings):
    """One task of train_single_task.py."""

    network: SerializeAsAny[PartSettings]
    """Its name and parameters (models/registry.py: NETWORKS); the name may be left out for the task's own."""
    micro_batch_size: PositiveInt
    """Samples in one forward and backward pass; divides batch_size. Decides the memory, and with norm: train the result
    too; with other norms the result depends on it by rounding only."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_block(self.micro_batch_size, self.batch_size)
        return self


class SingleTaskRun(RunConfig):
    """configs/single_task_conf.yaml: what all single-task networks share, and one section a task."""

    kind, part = "single_task", "network"
    compares_tasks = False

    tasks: dict[str, SingleTaskConfig]

    @model_validator(mode="after")
    def _has_one_gradient(self) -> Self:
        if self.training.similarity_every:
            raise ValueError("training.similarity_every compares the gradients of tasks; a single-task run has one")
        return self

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return {mode: self.tasks[mode]}

    def network_of(self, task: str) -> tuple[StrictModel, ...]:
        return (self.tasks[task].network,)

    def micro_batch_size_of(self, mode: str) -> int:
        return self.tasks[mode].micro_batch_size

    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> SingleTask:
        return SingleTask(mode, make_network(self.tasks[mode].network, tasks[mode].outputs()))

    def imagenet_weights(self) -> list[WeightsEnum]:
        networks = [task.network for task in self.tasks.values() if isinstance(task.network, EncoderSettings)]
        return [weights for network in networks if (weights := network.imagenet_weights()) is not None]

    def load_pretrained(self, model: SingleTask, tasks: Mapping[str, Task]) -> None:
        network = self.tasks[model.task].network
        if isinstance(network, EncoderSettings):
            what = f"{model.task}, {network.encoder}"
            load_pretrained(model.network.encoder, network.pretrained, network.imagenet_weights(), what)

    def make_balancing(self, mode: str, model: nn.Module, tasks: Mapping[str, Task]) -> Balancing:
        return Fixed({mode: 1.0})


class MultiTaskRun(RunConfig):
    """The multi-task network: what its symmetric and its asymmetric training share."""

    part = "head"
    compares_tasks = True

    network: NetworkConfig = NetworkConfig()
    micro_batch_size: PositiveInt
    """Samples in one forward and backward pass. Decides the memory, and with norm: train the result too; with other
    norms the result depends on it by rounding only."""
    balancing: SerializeAsAny[MethodSettings] = MethodSettings(name="fixed")
    """How the tasks' losses are weighed (training/methods): the name of a method, or {name: NAME, PARAMETER: VALUE}."""

    @field_validator("balancing", mode="before")
    @classmethod
    def _known_method(cls, balancing: Any) -> MethodSettings:
        return method_settings(balancing)

    def network_of(self, task: str) -> tuple[StrictModel, ...]:
        return self.network, self.tasks[task].head

    def micro_batch_size_of(self, mode: str) -> int:
        return self.micro_batch_size

    def make_model(self, mode: str, tasks: Mapping[str, Task]) -> MultiTask:
        return MultiTask(
            encoder=make_encoder(self.network.encoder, self.network.norm),
            channels=self.network.channels,
            layers=self.network.layers,
            heads={
                name: make_head(self.tasks[name].head, task.outputs(), self.network.channels)
                for name, task in tasks.items()
            },
        )

    def imagenet_weights(self) -> list[WeightsEnum]:
        weights = self.network.imagenet_weights()
        return [] if weights is None else [weights]

    def load_pretrained(self, model: MultiTask, tasks: Mapping[str, Task]) -> None:
        network = self.network
        load_pretrained(
            model.encoder.pretrained_part(), network.pretrained, network.imagenet_weights(), network.encoder
        )

    def slowed(self, model: MultiTask) -> tuple[list[nn.Parameter], float]:
        rate = self.network.encoder_rate
        return ([], rate) if rate == 1 else (list(model.encoder.parameters()), rate)

    def make_balancing(self, mode: str, model: MultiTask, tasks: Mapping[str, Task]) -> Balancing:
        context = Context(
            weights={name: self.tasks[name].weight for name in tasks},
            likelihoods={name: task.likelihood for name, task in tasks.items()},
            groups=model.groups(),
            seed=self.seed,
        )
        balancing = METHODS[self.balancing.name].make(self.balancing, context)
        every = self.training.similarity_every
        if every and not isinstance(balancing, Rows):  # which has the similarity of every step
            balancing.similarity = GradientSimilarity(model.groups()[BACKBONE], list(tasks), every)
        return balancing


class SymmetricTaskConfig(TaskSettings):
    """One task of train_symmetric.py."""

    head: SerializeAsAny[PartSettings]
    """Its name and parameters (models/registry.py: HEADS); the name may be left out for the task's own."""
    weight: PositiveFloat = 1.0
    """Factor of the task's loss (balancing fixed, and of the gradients that are aggregated)."""


class SymmetricRun(GroupConfig, MultiTaskRun):
    """configs/symmetric_conf.yaml: all groups step together, after `batch_size` frames.

    A head divides its gradient by the frames that have its label, the backbone by all frames.
    """

    kind = "symmetric"

    frames: Literal["complete", "any"] = "complete"
    """complete: frames that carry the labels of all tasks; any: also those that lack some, by the losses that exist."""
    tasks: dict[str, SymmetricTaskConfig]

    @model_validator(mode="after")
    def _has_the_frames_that_balancing_needs(self) -> Self:
        if METHODS[self.balancing.name].complete and self.frames != "complete":
            raise ValueError(f"balancing {self.balancing.name} needs frames: complete, not {self.frames}")
        return self

    def modes(self) -> list[str]:
        return [SYMMETRIC, *self.tasks]

    def task_names(self, mode: str) -> list[str]:
        return tasks_in_order(self.tasks) if mode == SYMMETRIC else super().task_names(mode)

    def make_samples(self, mode: str, labelled: Labelled) -> list[Sample]:
        tasks, samples = tuple(self.task_names(mode)), super().make_samples(mode, labelled)
        return samples if self.frames == "any" else [sample for sample in samples if sample.tasks == tasks]

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return dict.fromkeys((BACKBONE, *self.task_names(mode)), self)


class AsymmetricTaskConfig(GroupConfig, SymmetricTaskConfig):
    """One task of train_asymmetric.py: its head's group and its weight."""


class AsymmetricRun(MultiTaskRun):
    """configs/asymmetric_conf.yaml: each frame brings the labels that it has; groups step at their own pace."""

    kind = "asymmetric"
    steps_together = False

    backbone: GroupConfig
    block_size: PositiveInt | None = None
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

    def task_names(self, mode: str) -> list[str]:
        return tasks_in_order(self.tasks)

    def make_samples(self, mode: str, labelled: Labelled) -> list[Sample]:
        per_label = label_samples(labelled, self.task_names(mode))
        return per_label if self.visit == "label" else super().make_samples(mode, labelled)

    def sampling_of(self, mode: str) -> Sampling:
        return self.sampling

    def groups_of(self, mode: str) -> dict[str, GroupConfig]:
        return {BACKBONE: self.backbone, **{name: self.tasks[name] for name in self.task_names(mode)}}

    def block_size_of(self, mode: str) -> int:
        return self.block_size or super().block_size_of(mode)


# the name that checkpoints give their kind of run -> its class
RUN_CONFIGS: dict[str, type[RunConfig]] = {run.kind: run for run in (SingleTaskRun, SymmetricRun, AsymmetricRun)}


def kind_of(content: Container[str]) -> type[RunConfig]:
    """Which script's a config is, by the keys of the file that only that one has."""
    if "backbone" in content:
        return AsymmetricRun
    multi_task = any(key in content for key in ("network", "micro_batch_size", "batch_size"))
    return SymmetricRun if multi_task else SingleTaskRun


def tasks_in_order(tasks: Mapping[str, Any]) -> list[str]:
    """By kind, in the order of TASKS, and name: a result must not depend on the order of a file's sections."""
    order = list(TASKS)
    return sorted(tasks, key=lambda name: (order.index(tasks[name].label or name), name))


def check_block(micro_batch_size: int, block_size: int) -> None:
    """ValueError unless micro-batches fill blocks."""
    if block_size % micro_batch_size:
        raise ValueError(f"micro_batch_size {micro_batch_size} does not divide the block of {block_size} samples")
