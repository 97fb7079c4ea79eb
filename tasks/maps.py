"""Labels that are maps, H x W: what segmentation and depth share."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate


def checked_map(label: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """The label, a map H x W of this type as preprocessing writes it. ValueError: it is something else."""
    if label.dtype != dtype or label.ndim != 2:
        raise ValueError(f"it is {label.dtype} with shape {label.shape}; expected {np.dtype(dtype)} H x W")
    return label


def stack_maps(labels: list[np.ndarray | None], missing: int) -> Tensor:
    """B maps H x W -> B x H x W, the value `missing` all over for each that is None."""
    first = next(label for label in labels if label is not None)
    blank = np.full_like(first, missing)
    # in a worker it stacks into shared memory, where the batch must go
    return default_collate([torch.from_numpy(blank if label is None else label) for label in labels])


def flip_maps(maps: Tensor, flip: Tensor) -> Tensor:
    """Mirror those of the B x H x W maps where `flip` (B, bool) is true."""
    return torch.where(flip[:, None, None], maps.flip(-1), maps)


def resampled(maps: Tensor, like: Tensor, how: Literal["bilinear", "nearest-exact"]) -> Tensor:
    """B x C x h x w -> at least float32 B x C x H x W, the size of `like`, ... x H x W; as it is if it has this size.

    Both cover the same field of view, and a pixel's value is that at its centre.
    """
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(maps, like.shape[-2:], mode=how, align_corners=False if how == "bilinear" else None)
