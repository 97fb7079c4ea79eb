"""The multi-task network: one encoder, one BiFPN, one light head a task."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.base import TaskNetwork
from models.bifpn import BiFPN
from models.encoder import Encoder
from models.timm_encoder import TimmEncoder

BACKBONE = "backbone"  # the group of the shared parameters


def at(x: Tensor, places: Tensor | None) -> Tensor:
    """The samples of B x ... at these places of the batch (int64 n); None: all of them."""
    return x if places is None else x[places]  # which keeps the memory format


class MultiTask(TaskNetwork):
    """Images uint8 B x 3 x H x W -> {task: output} of the heads asked for; H and W are multiples of `divisor`.

    The backbone sees all images at once, each head those at its task's places (int64 n, or None for all of them).
    heads: task -> module that turns [P2, P3, P4, P5] (B x `channels`, at 1/4 to 1/32) into the task's output.
    """

    divisor = Encoder.divisor

    def __init__(
        self,
        *,
        encoder: Encoder | TimmEncoder,
        channels: int = 256,
        layers: int = 2,
        heads: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.bifpn = BiFPN(in_channels=encoder.channels, channels=channels, layers=layers)
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor, places: Mapping[str, Tensor | None]) -> dict[str, Any]:
        levels = self.bifpn(self.encoder(images))
        return {task: self.heads[task]([at(level, where) for level in levels]) for task, where in places.items()}

    def parts(self) -> list[nn.Module]:
        """What is compiled, and laid out in memory, by itself: a head sees another number of samples each time."""
        return [self.encoder, self.bifpn, *self.heads.values()]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that step together: the backbone's, and each task's head's under the task's name."""
        heads = {task: list(head.parameters()) for task, head in self.heads.items()}
        return {BACKBONE: [*self.encoder.parameters(), *self.bifpn.parameters()], **heads}
