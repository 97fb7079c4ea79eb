"""How feature maps lie in memory."""

import torch

from models.base import TaskNetwork
from models.normalise import Normalise
from models.norms import GroupNorm


def lay_out(model: TaskNetwork, *, channels_last: bool) -> None:
    """The model's parts without group norms get channels_last, which convolutions on tensor cores want.

    Those with them stay N x C x H x W: on CUDA a group norm copies a channels_last map into that order, and the next
    convolution copies it back. A part that follows one of another format converts its inputs (models/bifpn.py).
    """
    for part in model.parts():
        grouped = any(isinstance(module, GroupNorm) for module in part.modules())
        memory_format = torch.channels_last if channels_last and not grouped else torch.contiguous_format
        part.to(memory_format=memory_format)
        for module in part.modules():
            if isinstance(module, Normalise):
                module.memory_format = memory_format
