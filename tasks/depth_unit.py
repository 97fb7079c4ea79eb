"""The unit of depth labels."""

import torch
from torch import Tensor

STEPS_PER_METRE = 256  # of the labels, as in KITTI's depth maps


def metres(depth: Tensor, dtype: torch.dtype) -> Tensor:
    """Labels (uint16, metres x 256) -> metres; 0 stays 0."""
    return depth.to(dtype) / STEPS_PER_METRE
