"""A single-task network behind the interface that the loop knows."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class SingleTask(nn.Module):
    """Wraps a network for one task: images uint8 B x 3 x H x W -> {task: output}."""

    def __init__(self, task: str, network: nn.Module):
        super().__init__()
        self.task, self.network = task, network
        self.divisor = getattr(network, "divisor", 1)  # sides of images are multiples of it

    def forward(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Any]:
        return {self.task: self.network(images)} if self.task in tasks else {}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One group, under the task's name: all parameters."""
        return {self.task: list(self.parameters())}
