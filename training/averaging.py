"""The moving average of a network's weights (training.ema), which is validated and saved as the result in their place.

After each block's border at which groups stepped: average = decay * average + (1 - decay) * weights, for all of the
network's parameters; the first one is a copy. Buffers, such as batch norm's statistics, are copied, not averaged:
those of the weights that train. (torch's AveragedModel copies each of them at every step, and counts on the CPU, for
which a GPU waits.)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.base import TaskNetwork


class MovingAverage:
    """Beside a network that trains, which it does not change.

    model: the network with the averaged weights.
    """

    def __init__(self, trained: TaskNetwork, model: TaskNetwork, decay: float):
        """model: a copy of `trained` from before it is compiled and its norms are replaced; it works by itself."""
        self.trained, self.model = trained, model
        self.updates = 0
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Groups of the trained network have stepped."""
        own: list[Tensor] = [*self.model.parameters()]
        trained: list[Tensor] = [*self.trained.parameters()]
        if self.updates == 0:
            torch._foreach_copy_(own, trained)
        else:
            self._average(own, trained, self.updates)
        self.updates += 1

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Before the average is used: those of the trained network have changed since."""
        for own, trained in zip(self.model.buffers(), self.trained.buffers(), strict=True):
            own.copy_(trained)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the averaged weights."""
        return {"trained": self.trained.state_dict(), "updates": self.updates}

    def load_state(self, averaged: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(averaged)
        self.trained.load_state_dict(state["trained"])
        self.updates = state["updates"]
