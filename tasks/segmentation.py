"""Semantic segmentation: one of the data set's C classes for every pixel.

label: uint8 H x W, class 0 to C - 1, 255 = no class; target {"classes": uint8 B x H x W}; output: logits
B x C x H x W.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.spec import IGNORE, LabelSpec
from tasks.base import Target, Task, masked_mean
from tasks.maps import checked_map, flip_maps, resampled, stack_maps
from tasks.written import Written

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric


class SegmentationTask(Task):
    kind = "segmentation"
    best_metric = "miou"
    metrics = {
        "miou": Written("mIoU", "%", 1, "higher"),
        "miou_frequent": Written("mIoU of classes over 0.5 % of the pixels", "%", 1, "higher"),
        "accuracy": Written("pixel accuracy", "%", 1, "higher"),
        "classes_present": Written("classes present", decimals=0),
        "iou": Written("IoU", "%", 1, "higher"),
        "share": Written("share of the pixels", "%", 2),
    }
    class_frequency = "share"
    unscorable = "no label has a pixel with a class"
    likelihood = "classification"
    default_network, default_head = "unet", "dense"

    class Settings(Task.Settings):
        class_weights: Literal["none", "inverse_log"] = "none"
        """inverse_log: rare classes weigh more in the loss, by their share of the training pixels."""

    settings: Settings

    def __init__(self, settings: Settings | None = None, spec: LabelSpec | None = None, name: str | None = None):
        super().__init__(settings, spec, name)
        self.class_weights: Tensor | None = None  # C, float32; from `fit` or `load_state`

    def parse(self, content: np.ndarray) -> np.ndarray:
        label = checked_map(content, np.uint8)
        # uint8 wraps: 255 (no class) + 1 is 0, so that one comparison checks both kinds of valid values
        if (label + np.uint8(1) > len(self.classes)).any():
            highest = label[label != IGNORE].max()
            raise ValueError(f"it has class {highest}; classes are 0-{len(self.classes) - 1} and {IGNORE}")
        return label

    def collate(self, labels: list[np.ndarray | None]) -> Target:
        return {"classes": stack_maps(labels, missing=IGNORE)}

    def hflip(self, target: Target, flip: Tensor) -> Target:
        return {"classes": flip_maps(target["classes"], flip)}

    def loss(self, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Cross-entropy, averaged over the sample's pixels that have a class.

        With class weights the average is weighted: sum of w * loss / sum of w, as torch.nn.CrossEntropyLoss does it.
        """
        logits = output.to(torch.promote_types(output.dtype, torch.float32))
        classes = target["classes"].long()
        labelled = classes != IGNORE
        weights = self._class_weights(logits)
        pixel_losses = F.cross_entropy(logits, classes, weights, ignore_index=IGNORE, reduction="none")  # B H W
        losses, valid = masked_mean(pixel_losses, labelled)
        if weights is not None:
            mean_weight, _ = masked_mean(weights[torch.where(labelled, classes, 0)], labelled)
            losses = losses / torch.where(valid, mean_weight, 1)
        return losses, valid

    def decode(self, output: Tensor) -> Tensor:
        """Logits B x C x H x W -> class map uint8 B x H x W."""
        return output.argmax(1).to(torch.uint8)

    def at_size_of(self, target: Target, output: Tensor) -> Tensor:
        return resampled(output, target["classes"], "bilinear")

    def constant_at_size_of(self, target: Target, prediction: Tensor) -> Tensor:
        return resampled(prediction[:, None], target["classes"], "nearest-exact").squeeze(1).to(torch.uint8)

    def metric(self) -> "Metric":
        from tasks.segmentation_metric import SegmentationMetric

        return SegmentationMetric(self.classes.names)

    def scorable(self, label: np.ndarray) -> bool:
        return bool((label != IGNORE).any())

    def constant(self, labels: Iterable[np.ndarray]) -> Tensor:
        """The commonest class of each pixel over all labels: uint8 1 x H x W.

        Ties go to the lower class; a pixel without a class in any label gets the overall commonest one. The counts
        are int32 C x H x W: up to 160 MB for 38 classes at 1024 x 1024, and as much again for the maximum.
        """
        counts = _counts_per_pixel(labels, len(self.classes))
        overall = counts.sum((1, 2), dtype=np.int64).argmax()
        commonest = np.where(counts.any(0), counts.argmax(0), overall)
        return torch.from_numpy(commonest.astype(np.uint8))[None]

    def fit(self, labels: Iterable[np.ndarray]) -> None:
        """Class weights 1 / ln(1.02 + share of the class) (ENet, Paszke et al. 2016)."""
        if self.settings.class_weights == "none":
            return
        counts = np.zeros(len(self.classes), np.int64)
        for label in labels:
            counts += _class_counts(label, len(self.classes))
        share = torch.from_numpy(counts / max(counts.sum(), 1))  # without any labelled pixel all weigh alike
        self.class_weights = (1 / (1.02 + share).log()).float()

    def state(self) -> dict[str, Tensor]:
        return {} if self.class_weights is None else {"class_weights": self.class_weights}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.class_weights = state.get("class_weights")

    def outputs(self) -> dict[str, Any]:
        return {"channels_out": len(self.classes)}

    def _class_weights(self, logits: Tensor) -> Tensor | None:
        if self.settings.class_weights == "none":
            return None
        if self.class_weights is None:
            raise RuntimeError("class weights are fitted to the training labels: call fit or load_state before loss")
        self.class_weights = self.class_weights.to(logits.device)  # once: a copy each time would wait for the device
        return self.class_weights.to(logits.dtype)


def _class_counts(label: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class."""
    return np.bincount(label.ravel(), minlength=IGNORE + 1)[:classes]


def _counts_per_pixel(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """How often each pixel has each class: int32 classes x H x W."""
    counts = None
    for label in labels:
        if counts is None:  # memory that np.zeros gives is committed when written to: absent classes take none
            counts = np.zeros((classes, *label.shape), np.int32)
        for index in np.flatnonzero(_class_counts(label, classes)):
            counts[index] += label == index
    if counts is None:
        raise ValueError("no training label to fit the constant baseline to")
    return counts
