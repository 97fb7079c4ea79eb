"""One task with a network of its own."""

from collections.abc import Mapping
from typing import Self

from pydantic import SerializeAsAny, model_validator
from torch import nn
from torchvision.models import WeightsEnum

from models.pretrained import load_pretrained
from models.registry import make_network
from models.settings import PartSettings, PretrainedSettings
from models.single import SingleTask
from models.timm_encoder import TimmWeights
from strict import StrictModel
from tasks.base import Task
from training.config import BatchSize, GroupConfig, TaskSettings
from training.methods.base import Balancing
from training.methods.fixed import Fixed
from training.runs.base import Portions, RunConfig, check_block


class SingleTaskConfig(GroupConfig, TaskSettings):
    """One task of train_single_task.py."""

    network: SerializeAsAny[PartSettings]
    """Its name and parameters (models/registry.py: NETWORKS); the name may be left out for the task's own."""
    micro_batch_size: BatchSize
    """Samples in one forward and backward pass; divides batch_size. Decides the memory, and with norm: train the result
    too; with other norms the result depends on it by rounding only."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_block(self.micro_batch_size, self.batch_size)
        return self


class SingleTaskRun(RunConfig[SingleTask]):
    """configs/single_task_conf.yaml: what all single-task networks share, and one section a task."""

    kind, part = "single_task", "network"
    compares_tasks = False

    tasks: dict[str, SingleTaskConfig]

    @model_validator(mode="after")
    def _has_one_gradient(self) -> Self:
        if self.training.similarity_every:
            raise ValueError("training.similarity_every compares the gradients of tasks; a single-task run has one")
        return self

    def group_configs(self) -> dict[str, GroupConfig]:
        return {self.mode: self.tasks[self.mode]}

    def portions(self) -> Portions:
        task = self.tasks[self.mode]
        return Portions(task.batch_size, task.micro_batch_size)

    def network_of(self, task: str) -> tuple[StrictModel, ...]:
        return (self.tasks[task].network,)

    def make_model(self, tasks: Mapping[str, Task]) -> SingleTask:
        return SingleTask(self.mode, make_network(self.tasks[self.mode].network, tasks[self.mode].outputs()))

    def imagenet_weights(self) -> list[WeightsEnum | TimmWeights]:
        networks = [task.network for task in self.tasks.values() if isinstance(task.network, PretrainedSettings)]
        return [weights for network in networks if (weights := network.imagenet_weights()) is not None]

    def load_pretrained(self, model: SingleTask, tasks: Mapping[str, Task]) -> None:
        network = self.tasks[model.task].network
        if isinstance(network, PretrainedSettings):
            encoder, what = self.pretrained_module(model), f"{model.task}, {network.encoder}"
            assert encoder is not None
            load_pretrained(encoder, network.pretrained, network.imagenet_weights(), what)

    def pretrained_module(self, model: SingleTask) -> nn.Module | None:
        if not isinstance(self.tasks[model.task].network, PretrainedSettings):
            return None
        encoder = model.network.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def make_balancing(self, model: SingleTask, tasks: Mapping[str, Task]) -> Balancing:
        return Fixed({self.mode: 1.0})
