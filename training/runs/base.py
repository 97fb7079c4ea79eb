"""What all kinds of run share: a config with what it means."""

from abc import abstractmethod
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import PrivateAttr, field_validator, model_validator
from torch import nn
from torchvision.models import WeightsEnum

from datasets.labels import Labelled, frame_samples
from datasets.samples import Sample
from datasets.sampling import Sampling
from datasets.spec import LabelSpec
from errors import UserError
from models.base import TaskNetwork
from models.timm_encoder import TimmWeights
from strict import StrictModel
from tasks import TASKS
from tasks.base import Task
from training.config import GroupConfig, KindOfRun, TrainingConfig, with_task_settings
from training.data_config import AugmentationConfig, DataConfig, LabelsConfig, Seed
from training.methods.base import Balancing

Model = TypeVar("Model", bound=TaskNetwork)


@dataclass(frozen=True)
class Portions:
    """In which portions a run's samples are drawn and passed."""

    block_size: int  # samples between the borders at which groups may step
    micro_batch_size: int  # samples in one forward and backward pass
    sampling: Sampling = "proportional"


class RunConfig(KindOfRun, Generic[Model]):
    """What all runs share, and what a subclass must tell. `mode` is the value of --train-mode."""

    part: ClassVar[str]  # what a task's section chooses: its network or its head
    compares_tasks: ClassVar[bool]  # whether "best" is a mean over tasks, not one task's own metric
    steps_together: ClassVar[bool] = True  # all groups at every block's border; else each when it has its batch_size

    seed: Seed = 0
    """Of initial weights, order and augmentation."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig
    tasks: dict[str, Any]

    @field_validator("tasks", mode="before", check_fields=False)
    @classmethod
    def _known_tasks(cls, tasks: Any) -> Any:
        return with_task_settings(tasks, cls.part)

    _mode: str = PrivateAttr("")

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for mode in self.modes():
            portions = self.of_mode(mode).portions()
            check_block(portions.micro_batch_size, portions.block_size)
        return self

    @model_validator(mode="after")
    def _has_a_score_to_wait_for(self) -> Self:
        if self.training.patience and self.data.split.train_on_val:
            raise ValueError("training.patience needs validation frames; data.split.train_on_val leaves none")
        return self

    def of_mode(self, mode: str | None, source: object = "the config") -> Self:
        """The same run, bound to one of the modes that the file can train: what is asked of it is of this one.

        UserError, naming the source: it trains no such mode.
        """
        if mode not in self.modes():
            wrong = "--train-mode is needed" if mode is None else f"--train-mode {mode}"
            raise UserError(f"{wrong}: {source} trains {', '.join(self.modes())}")
        bound = self.model_copy()
        bound._mode = mode
        return bound

    @property
    def mode(self) -> str:
        """The value of --train-mode; only `of_mode` gives a run that has one."""
        if not self._mode:
            raise RuntimeError("the run's mode is not bound: call of_mode")
        return self._mode

    def without(self, tasks: Container[str]) -> Self:
        """The same run with these tasks left out of training."""
        return self.model_copy(update={"tasks": {name: task for name, task in self.tasks.items() if name not in tasks}})

    def with_labels(self, labels: LabelsConfig) -> Self:
        """The same run with another label regime."""
        return self.model_copy(update={"data": self.data.model_copy(update={"labels": labels})})

    def modes(self) -> list[str]:
        """The modes that the file can train."""
        return list(self.tasks)

    def task_names(self) -> list[str]:
        """The tasks that the mode trains."""
        return [self.mode]

    def kind_of(self, task: str) -> str:
        """The kind of the task's labels."""
        return self.tasks[task].label or task

    @abstractmethod
    def network_of(self, task: str) -> tuple[StrictModel, ...]:
        """The settings of all that computes the task's output: equal ones mean the same network."""

    def make_tasks(self, labels: Mapping[str, LabelSpec]) -> dict[str, Task]:
        """labels: task -> what its labels say."""
        return {
            name: TASKS[self.kind_of(name)](self.tasks[name].settings, labels[name], name) for name in self.task_names()
        }

    def make_samples(self, labelled: Labelled) -> list[Sample]:
        """The training samples, from the frames that keep each label."""
        return frame_samples(labelled, self.task_names())

    @abstractmethod
    def group_configs(self) -> dict[str, GroupConfig]:
        """Group of parameters -> its batch size and optimiser."""

    def learning_groups(self) -> dict[str, GroupConfig]:
        """Those that are not frozen."""
        return {name: group for name, group in self.group_configs().items() if name not in self.training.freeze}

    @abstractmethod
    def portions(self) -> Portions:
        """In which portions samples are drawn and passed."""

    @abstractmethod
    def make_model(self, tasks: Mapping[str, Task]) -> Model:
        """The network with random weights; the tasks have been fitted or restored."""

    @abstractmethod
    def load_pretrained(self, model: Model, tasks: Mapping[str, Task]) -> None:
        """Put the initial weights that the config names into a network from `make_model`."""

    @abstractmethod
    def pretrained_module(self, model: Model) -> nn.Module | None:
        """What of a network `pretrained` fills; None: it always starts from random weights."""

    @abstractmethod
    def imagenet_weights(self) -> list[WeightsEnum | TimmWeights]:
        """The published entries of the ImageNet weights that the file names."""

    def slowed(self, model: Model) -> tuple[list[nn.Parameter], float]:
        """Parameters whose learning rate is a factor of their group's, and this factor."""
        return [], 1.0

    @abstractmethod
    def make_balancing(self, model: Model, tasks: Mapping[str, Task]) -> Balancing:
        """How the tasks' losses are weighed; the network is on its device."""


def tasks_in_order(tasks: Mapping[str, Any]) -> list[str]:
    """By kind, in the order of TASKS, and name: a result must not depend on the order of a file's sections."""
    order = list(TASKS)
    return sorted(tasks, key=lambda name: (order.index(tasks[name].label or name), name))


def check_block(micro_batch_size: int, block_size: int) -> None:
    """ValueError unless micro-batches fill blocks."""
    if block_size % micro_batch_size:
        raise ValueError(f"micro_batch_size {micro_batch_size} does not divide the block of {block_size} samples")
