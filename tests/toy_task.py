"""A fifth task as a researcher would add it: how much brighter is the left half of the image than the right half?

It needs nothing but numbers in small files, no network is as small, and everything is float64: claims of equality can
be tested to the last digit. Its network has neither batch norm nor dropout.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from datasets.frames import Frame
from datasets.processed import ProcessedData
from models.registry import Part
from strict import StrictModel
from tasks.base import Target, Task
from tasks.written import Written

KIND = "balance"
SUFFIXES = (".json",)


class BalanceTask(Task):
    kind = KIND
    best_metric = "mae"
    metrics = {"mae": Written("MAE", "grey levels / 10", better="lower")}
    likelihood = "regression"
    default_network, default_head = KIND, KIND

    class Settings(StrictModel):
        cells: int = 4
        """The image is reduced to cells x cells means."""

    def parse(self, content: bytes) -> np.float64:
        return np.float64(json.loads(content)["balance"])

    def collate(self, labels: list[np.ndarray | None]) -> Target:
        values = [0.0 if label is None else float(label) for label in labels]
        valid = torch.tensor([label is not None for label in labels])
        return {"balance": torch.tensor(values, dtype=torch.float64), "valid": valid}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        return target | {"balance": torch.where(flip, -target["balance"], target["balance"])}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        return (output - target["balance"]).square().where(target["valid"], 0), target["valid"]

    def decode(self, output: Tensor) -> Tensor:
        return output

    def metric(self) -> Metric:
        return MeanAbsoluteError()

    def constant(self, labels: Iterable[np.ndarray]) -> Tensor:
        return torch.tensor([np.mean(list(labels))])

    def outputs(self) -> dict[str, Any]:
        return {"cells": self.settings.cells}


class MeanAbsoluteError(Metric):
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Target) -> None:
        errors = (predictions - target["balance"]).abs()[target["valid"]]
        self.sums += torch.stack([errors.sum(), errors.new_tensor(len(errors))])

    def compute(self) -> dict[str, float]:
        return {"mae": (self.sums[0] / self.sums[1]).item()}


class BalanceNet(nn.Module):
    """Images uint8 B x 3 x H x W -> B."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.hidden = nn.Linear(3 * cells**2, 5).double()
        self.output = nn.Linear(5, 1).double()

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(images.double() / 255).flatten(1)  # B 3*cells^2
        return self.output(self.hidden(x).tanh()).squeeze(1)


class BalanceHead(nn.Module):
    """[P2, P3, P4, P5] -> B."""

    def __init__(self, *, channels: int, cells: int) -> None:
        super().__init__()
        self.output = nn.Linear(channels, 1)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        return self.output(pyramid[-1].mean((2, 3))).squeeze(1)


NETWORK = Part(BalanceNet, {"cells": "cells"})
HEAD = Part(BalanceHead, {"cells": "cells"})


def balance_of(rgb: np.ndarray) -> float:
    """uint8 H x W x 3 -> mean of the left half minus mean of the right half, in grey levels / 10."""
    middle = rgb.shape[1] // 2
    return (rgb[:, :middle].mean() - rgb[:, -middle:].mean()) / 10


def write_balances(
    processed: ProcessedData, values: dict[Frame, float], settings: dict[str, Any] | None = None
) -> None:
    """What the preprocessing script of the task would write."""
    for frame, value in values.items():
        path = processed.path(KIND, frame, SUFFIXES[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"balance": value}))
    processed.settings_path(KIND).write_text(json.dumps(settings or {}))
