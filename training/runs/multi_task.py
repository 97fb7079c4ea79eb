"""The network with one encoder for all tasks, however it is trained."""

from collections.abc import Mapping
from typing import Any

from pydantic import PositiveFloat, SerializeAsAny, field_validator
from torch import nn
from torchvision.models import WeightsEnum

from errors import UserError
from models.encoder import make_encoder
from models.multitask import BACKBONE, MultiTask
from models.norms import training_batch_norms
from models.pretrained import load_pretrained
from models.registry import make_head
from models.settings import PartSettings
from models.timm_encoder import TimmWeights
from strict import StrictModel
from tasks.base import Task
from training.config import BatchSize, NetworkConfig, TaskSettings, method_settings
from training.methods import METHODS, Context, MethodSettings
from training.methods.base import Balancing
from training.methods.rows import Rows
from training.methods.similarity import GradientSimilarity
from training.runs.base import RunConfig


class HeadConfig(TaskSettings):
    """One task of the multi-task network."""

    head: SerializeAsAny[PartSettings]
    """Its name and parameters (models/registry.py: HEADS); the name may be left out for the task's own."""
    weight: PositiveFloat = 1.0
    """Factor of the task's loss, of its gradient or value where these are balanced. With balancing uncertainty, which
    learns its own, it is not used, as the start says."""


class MultiTaskRun(RunConfig[MultiTask]):
    """The multi-task network: what its symmetric and its asymmetric training share."""

    part = "head"
    compares_tasks = True

    network: NetworkConfig = NetworkConfig()
    micro_batch_size: BatchSize
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

    def make_model(self, tasks: Mapping[str, Task]) -> MultiTask:
        encoder = make_encoder(self.network.encoder, self.network.norm)
        if self.network.norm == "train" and not training_batch_norms(encoder):
            raise UserError(f"network.norm: train: {self.network.encoder} has no batch norm; leave norm out")
        return MultiTask(
            encoder=encoder,
            channels=self.network.channels,
            layers=self.network.layers,
            heads={
                name: make_head(self.tasks[name].head, task.outputs(), self.network.channels)
                for name, task in tasks.items()
            },
        )

    def imagenet_weights(self) -> list[WeightsEnum | TimmWeights]:
        weights = self.network.imagenet_weights()
        return [] if weights is None else [weights]

    def load_pretrained(self, model: MultiTask, tasks: Mapping[str, Task]) -> None:
        network = self.network
        load_pretrained(self.pretrained_module(model), network.pretrained, network.imagenet_weights(), network.encoder)

    def pretrained_module(self, model: MultiTask) -> nn.Module:
        return model.encoder.pretrained_part()

    def slowed(self, model: MultiTask) -> tuple[list[nn.Parameter], float]:
        rate = self.network.encoder_rate
        return ([], rate) if rate == 1 else (list(model.encoder.parameters()), rate)

    def make_balancing(self, model: MultiTask, tasks: Mapping[str, Task]) -> Balancing:
        context = Context(
            weights={name: self.tasks[name].weight for name in tasks},
            likelihoods={name: task.likelihood for name, task in tasks.items()},
            groups=model.groups(),
            seed=self.seed,
        )
        balancing = METHODS[self.balancing.name].make(self.balancing, context)
        every = self.training.similarity_every if len(tasks) > 1 else 0  # one task's gradient is like no other's
        if isinstance(balancing, Rows):
            balancing.similarity_every = every
        elif every:
            balancing.similarity = GradientSimilarity(model.groups()[BACKBONE], list(tasks), every)
        return balancing
