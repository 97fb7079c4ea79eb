"""A dense task as a researcher would add it to the multi-task network alone: where are the edges of the image?

label: uint8 H x W, 1 = edge, 0 = none, 255 = not known; target {"edges": uint8 B x H x W}; output: B x 1 x H x W logits
of the dense head that the project has. There is no network of its own.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor
from torchmetrics import Metric

from datasets.processed import ProcessedData
from strict import StrictModel
from tasks.base import Target, Task, masked_mean
from tasks.maps import checked_map, flip_maps, stack_maps
from tasks.written import Written

KIND = "edges"
UNKNOWN = 255


class EdgesTask(Task):
    kind = KIND
    best_metric, metrics = "f1", {"f1": Written("F1", "%", 1, "higher")}
    likelihood = "classification"
    default_head = "dense"

    class Settings(StrictModel):
        edge_weight: PositiveFloat = 4.0
        """Of an edge's pixel in the loss; another pixel's is 1."""

    settings: Settings

    def parse(self, content: np.ndarray) -> np.ndarray:
        return checked_map(content, np.uint8)

    def collate(self, labels: list[np.ndarray | None]) -> Target:
        return {"edges": stack_maps(labels, missing=UNKNOWN)}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        return {"edges": flip_maps(target["edges"], flip)}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of each image over its known pixels."""
        logits = output.squeeze(1).to(torch.promote_types(output.dtype, torch.float32))  # B H W
        weight = logits.new_tensor(self.settings.edge_weight)
        truth = (target["edges"] == 1).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")
        return masked_mean(losses, target["edges"] != UNKNOWN)

    def decode(self, output: Tensor) -> Tensor:
        """B x 1 x H x W logits -> probabilities, float32 B x H x W."""
        return output.squeeze(1).float().sigmoid()

    def metric(self) -> Metric:
        return EdgeF1()

    def constant(self, labels: Iterable[np.ndarray]) -> Tensor:
        """The share of training labels with an edge, pixel by pixel: float32 1 x H x W."""
        return torch.from_numpy(np.mean([label == 1 for label in labels], 0, dtype=np.float32))[None]

    def outputs(self) -> dict[str, Any]:
        return {"channels_out": 1}


class EdgeF1(Metric):
    """Over all known pixels: 2 TP / (2 TP + FP + FN), an edge being what is likelier than not."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("edges", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")  # true and found ones

    def update(self, predictions: Tensor, target: Target) -> None:
        known, true = target["edges"] != UNKNOWN, target["edges"] == 1
        found = (predictions > 0.5) & known
        self.hits += (found & true).sum()
        self.edges += found.sum() + true.sum()

    def compute(self) -> dict[str, float]:
        return {"f1": (2 * self.hits / self.edges).item()}


def edges_of(rgb: np.ndarray) -> np.ndarray:
    """uint8 H x W x 3 -> label: a pixel is much brighter or darker than the one to its right or below."""
    grey = rgb.mean(2)
    right = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    below = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    return (np.maximum(right, below) > 25).astype(np.uint8)


def write_edges(processed: ProcessedData) -> None:
    """What the preprocessing script of the task would write, from the images."""
    for frame in processed.frames("camera"):
        image, path = processed.read_array("camera", frame), processed.path(KIND, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, edges_of(image))
    size = processed.settings("camera")["size"]
    processed.settings_path(KIND).write_text(json.dumps({"size": size}))
