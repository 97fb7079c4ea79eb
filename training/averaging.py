"""The moving average of a network's weights (training.ema), which is validated and saved as the result in their place.

After each block's border at which groups stepped: average = decay * average + (1 - decay) * weights, for all of the
network's parameters; the first one is a copy. Buffers, such as batch norm's statistics, are copied, not averaged:
those of the weights that train.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.base import TaskNetwork


class MovingAverage:
    """Beside a network that trains, which it does not change."""

    def __init__(self, trained: TaskNetwork, decay: float):
        """Before `trained` is compiled, and before its norms are replaced: the average works by itself."""
        self.trained = trained
        self.averaged = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def model(self) -> TaskNetwork:
        """The network with the averaged weights."""
        model = self.averaged.module
        assert isinstance(model, TaskNetwork)
        return model

    def update(self) -> None:
        """Groups of the trained network have stepped."""
        self.averaged.update_parameters(self.trained)

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Where those of the trained network have changed since."""
        for own, trained in zip(self.model.buffers(), self.trained.buffers(), strict=True):
            own.copy_(trained)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the averaged weights."""
        return {"trained": self.trained.state_dict(), "updates": int(self.averaged.n_averaged)}

    def load_state(self, averaged: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(averaged)
        self.trained.load_state_dict(state["trained"])
        self.averaged.n_averaged.fill_(state["updates"])
