"""Networks and heads of tasks, as configs make them."""

from typing import Any

from torch import nn

from models.registry import make_head, make_network
from tasks.base import Task
from training.config import part_settings


def network_of(task: Task, **settings: Any) -> nn.Module:
    return make_network(part_settings(task.name, task.kind, "network", settings), task.outputs())


def head_of(task: Task, channels: int, **settings: Any) -> nn.Module:
    return make_head(part_settings(task.name, task.kind, "head", settings), task.outputs(), channels)
