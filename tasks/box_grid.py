"""YOLOv1's grid: boxes as what the predictors of their cell should say, and which of them answers for which box."""

import torch
from torch import Tensor

Predictions = list[dict[str, Tensor]]  # an image: boxes N x 4 (fractions), scores N, labels N; best first


def encode(boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Boxes ... x 4 -> the cell of the centre, row * grid + column, and what its predictor should say (... x 4).

    That is x and y within the cell, square root of width and of height in the image; all from 0 to 1.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre = (low + high) / 2 * grid
    corner = centre.floor().clamp(0, grid - 1)  # a centre on the image's last edge belongs to the last cell
    column, row = corner.long().unbind(-1)
    return row * grid + column, torch.cat([centre - corner, (high - low).clamp(min=0).sqrt()], -1)


def to_boxes(values: Tensor, cell: Tensor, grid: int) -> Tensor:
    """The inverse of `encode`: x, y, sqrt w, sqrt h (... x 4) of predictors in `cell` (...) -> boxes ... x 4."""
    corner = torch.stack([cell % grid, cell // grid], -1)
    centre = (corner + values[..., :2]) / grid
    half = values[..., 2:].square() / 2
    return torch.cat([centre - half, centre + half], -1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each box of `a` with the one of `b` in the same place: ... x 4, ... x 4 -> ... (shapes broadcast)."""
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap, area_a, area_b = size.prod(-1), (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    return overlap / (area_a + area_b - overlap)


def assign(iou: Tensor, distance: Tensor, cell: Tensor, valid: Tensor, cells: int) -> Tensor:
    """Which predictor of its cell is responsible for each box: B x N, -1 where none (padding, or the cell is full).

    iou, distance: B x N x predictors, of each box to the predictors of its cell; cell, valid: B x N.
    Greedy in each cell: of all pairs of a free predictor and a box without one, the best is taken, until one side runs
    out. Best = highest IoU, then smallest distance (decides where nothing overlaps yet), then first box, then first
    predictor. All cells of the batch advance at once, one pair a round.
    """
    b, n, predictors = iou.shape
    nearest = distance.flatten(1).argsort(stable=True)
    best_first = iou.flatten(1).gather(1, nearest).argsort(descending=True, stable=True)
    order = nearest.gather(1, best_first)  # B N*predictors: pairs of the sample, best first
    rank = order.argsort().view(b, n, predictors)  # the pair's place in that order; no two are equal
    never = n * predictors
    rank = rank.masked_fill(~valid[..., None], never)

    chosen = torch.full_like(cell, -1)
    indices = torch.arange(predictors, device=iou.device)
    for _ in range(predictors):
        best, predictor = rank.min(2)  # B N: of each box
        best_in_cell = best.new_full((b, cells), never).scatter_reduce(1, cell, best, "amin")
        wins = (best == best_in_cell.gather(1, cell)) & (best < never)  # at most one box a cell
        chosen = predictor.where(wins, chosen)
        taken = cell.new_full((b, cells), -1).scatter_reduce(1, cell, predictor.where(wins, -1), "amax")
        served = indices == taken.gather(1, cell)[..., None]  # B N predictors: this predictor has a box now
        rank = rank.masked_fill(served | wins[..., None], never)
    return chosen
