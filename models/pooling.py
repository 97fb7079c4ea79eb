"""torch's adaptive pooling, with backward passes that are deterministic on CUDA where torch's own are not.

Cell i of S along an axis of length L covers floor(i L / S) to ceil((i + 1) L / S); neighbours overlap where S does not
divide L, and share elements where S is larger than L.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def average_pool(x: Tensor, rows: int, columns: int) -> Tensor:
    """B x C x H x W -> B x C x rows x columns: the mean of each cell, as adaptive_avg_pool2d.

    A sum over cells is a matrix product with zeros and ones, along each axis.
    """
    down, heights = _membership(x.shape[2], rows, x)
    across, widths = _membership(x.shape[3], columns, x)
    x = (down @ x / heights[:, None]).to(x.dtype)  # B C rows W
    return (x @ across.T / widths).to(x.dtype)


def max_pool(x: Tensor, rows: int, columns: int) -> Tensor:
    """B x C x H x W -> B x C x rows x columns: the maximum of each cell, as adaptive_max_pool2d."""
    *_, height, width = x.shape
    if height % rows == 0 and width % columns == 0:
        return F.max_pool2d(x, (height // rows, width // columns))
    x = x[:, :, _windows(height, rows, x.device)].max(3).values  # B C rows k W -> B C rows W
    return x[:, :, :, _windows(width, columns, x.device)].max(4).values


def _borders(length: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First element of each cell, and the one past its last: int64 cells x 1. Made there: nothing is copied."""
    i = torch.arange(cells, device=device)[:, None]
    return i * length // cells, ((i + 1) * length + cells - 1) // cells


def _membership(length: int, cells: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cells x length: 1 where an element lies in the cell; and how many do, float32 at least."""
    starts, ends = _borders(length, cells, like.device)
    places = torch.arange(length, device=like.device)
    counts = (ends - starts).flatten().to(torch.promote_types(like.dtype, torch.float32))
    return ((places >= starts) & (places < ends)).to(like.dtype), counts


def _windows(length: int, cells: int, device: torch.device) -> Tensor:
    """cells x k: the elements of each cell; its last one again where it has fewer than others."""
    starts, ends = _borders(length, cells, device)
    most = -(-length // cells) + (length % cells > 0)  # at most so many are in a cell
    return torch.minimum(starts + torch.arange(most, device=device), ends - 1)
