"""Labels that are maps, H x W: what segmentation and depth share."""

import numpy as np
import torch
from torch import Tensor

from datasets.frames import Frame
from datasets.processed import ProcessedData


def read_map(processed: ProcessedData, kind: str, frame: Frame, dtype: type[np.generic]) -> np.ndarray | None:
    """A label map H x W as preprocessing writes it; None where the frame has none. ValueError: not such a file."""
    label = processed.read_array(kind, frame)
    if label is not None and (label.dtype != dtype or label.ndim != 2):
        source = processed.source(kind, frame)
        raise ValueError(f"{source} is {label.dtype} with shape {label.shape}; expected {np.dtype(dtype)} H x W")
    return label


def stack_maps(labels: list[np.ndarray | None], missing: int) -> Tensor:
    """B maps H x W -> B x H x W, the value `missing` all over for each that is None."""
    first = next(label for label in labels if label is not None)
    blank = np.full_like(first, missing)
    return torch.from_numpy(np.stack([blank if label is None else label for label in labels]))


def flip_maps(maps: Tensor, flip: Tensor) -> Tensor:
    """Mirror those of the B x H x W maps where `flip` (B, bool) is true."""
    return torch.where(flip[:, None, None], maps.flip(-1), maps)
