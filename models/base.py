"""What training asks of a network, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class TaskNetwork(nn.Module, ABC):
    """Images uint8 B x 3 x H x W -> {task: output} of the tasks asked for; H and W are multiples of `divisor`."""

    divisor: int

    @abstractmethod
    def forward(self, images: Tensor, places: Mapping[str, Tensor | None]) -> dict[str, Any]:
        """places: task -> where in the batch the images are that it is asked about (int64 n); None: all of them."""

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """What is compiled, and laid out in memory, by itself."""

    @abstractmethod
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that step together, by the group's name."""
