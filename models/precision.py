"""What leaves half precision, or stays in it, against the rules of autocast."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The last layer of a network or head, in float32 at least: nothing after it averages its rounding away.

    bf16 has steps of 0.8 % at worst: 0.8 degrees at 100 degrees.
    """
    with without_autocast(x.device):
        return layer(x.to(torch.promote_types(x.dtype, torch.float32)))


def without_autocast(device: torch.device) -> AbstractContextManager:
    if device.type != "meta":  # where operations are counted, and autocast is not known. torch 2.11 can't compile the
        # question whether it is: torch.amp.is_autocast_available breaks the graph at each norm
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
