"""What a training script has before its loop, for tests that look at it or take the loop into their own hands."""

import argparse
from dataclasses import dataclass
from typing import Any

from torch import nn

from datasets.labels import Labelled
from datasets.layout import RunDir
from tasks.base import Task
from training import summary
from training.build import Network, make_trainer, score
from training.data import RunData, open_data
from training.evaluation import Results
from training.loop import Trainer
from training.runs import RunConfig
from training.start import Start


@dataclass
class Plan:
    """The lines of an entry script up to its loop."""

    start: Start
    config: RunConfig
    data: RunData
    network: Network

    @classmethod
    def make(cls, args: argparse.Namespace, config: RunConfig) -> "Plan":
        """As the training scripts do."""
        with Start.open(args, config) as start:
            config, data = open_data(start, config)
            return cls(start, config, data, Network.make(start, config, data))

    @property
    def tasks(self) -> dict[str, Task]:
        return self.data.tasks

    @property
    def labelled(self) -> Labelled:
        return self.data.labelled

    @property
    def model(self) -> nn.Module:
        return self.network.model

    @property
    def run(self) -> RunDir:
        return self.start.run

    def describe(self) -> str:
        return summary.describe(self.start, self.config, self.data, self.network)

    def paces(self) -> list[str]:
        return summary.paces(summary.steps_of_epoch(self.config, self.data, self.network))

    def score(self, results: Results, constant: Results) -> float:
        return score(results, constant, self.config, self.data)

    def trainer(self) -> Trainer:
        return make_trainer(self.start, self.config, self.data, self.network)


def noting(made: list[Plan]) -> Any:
    """A `describe` that notes what it is given."""
    original = summary.describe

    def describe(start: Start, config: RunConfig, data: RunData, network: Network) -> str:
        made.append(Plan(start, config, data, network))
        return original(start, config, data, network)

    return describe
