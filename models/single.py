"""A single-task network behind the interface that the loop knows."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.base import TaskNetwork
from models.multitask import at


class SingleTask(TaskNetwork):
    """Wraps a network for one task: images uint8 B x 3 x H x W -> {task: output}, of the images at the task's places.

    As in models/multitask.py, None stands for all images.
    """

    def __init__(self, task: str, network: nn.Module):
        super().__init__()
        self.task, self.network = task, network
        self.divisor = getattr(network, "divisor", 1)  # sides of images are multiples of it

    def forward(self, images: Tensor, places: Mapping[str, Tensor | None]) -> dict[str, Any]:
        return {self.task: self.network(at(images, places[self.task]))} if self.task in places else {}

    def parts(self) -> list[nn.Module]:
        """What is compiled, and laid out in memory, by itself."""
        return [self.network]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One group, under the task's name: all parameters."""
        return {self.task: list(self.parameters())}
