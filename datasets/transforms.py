"""Augmentation on the device, images as uint8: horizontal flip with all labels, colour jitter of the image.

What happens to a sample is a pure function of (seed, epoch, frame, n-th visit of the frame in the epoch): it depends
neither on the batch that the sample is in nor on workers or processes, so a resumed run sees the same images.
"""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.frames import Frame
from datasets.samples import Batch


class Augmentation:
    """Flip with probability `hflip`; brightness, contrast and saturation each by a factor from [1 - x, 1 + x]."""

    def __init__(self, *, hflip: float, brightness: float, contrast: float, saturation: float, seed: int):
        self.hflip_probability, self.seed = hflip, seed
        self.jitter = ((brightened, brightness), (contrasted, contrast), (saturated, saturation))

    def __call__(self, batch: Batch, tasks: Mapping[str, Any], epoch: int) -> Batch:
        visited = zip(batch.samples, batch.visits, strict=True)
        drawn = np.array([self._draw(epoch, sample.frame, nth) for sample, nth in visited], np.float32)
        draws = _on(batch.images.device, torch.from_numpy(drawn))  # B x (flip, factor, factor, factor)
        flips = draws[:, 0] > 0
        images = torch.where(flips[:, None, None, None], batch.images.flip(-1), batch.images)  # B 3 H W
        for (adjusted, strength), factors in zip(self.jitter, draws[:, 1:].T, strict=True):
            if strength > 0:
                images = adjusted(images, factors[:, None, None, None])
        targets = {
            name: tasks[name].hflip(target, flips if batch.places[name] is None else flips[batch.places[name]])
            for name, target in batch.targets.items()
        }
        return replace(batch, images=images, targets=targets)

    def _draw(self, epoch: int, frame: Frame, nth: int) -> list[float]:
        """Whether to flip (0 or 1), and the factors of the jitter."""
        random = np.random.default_rng(zlib.crc32(f"{self.seed} {epoch} {frame} {nth}".encode()))
        flip = random.random() < self.hflip_probability
        return [flip, *(random.uniform(1 - strength, 1 + strength) for _, strength in self.jitter)]


def _on(device: torch.device, values: Tensor) -> Tensor:
    """From pinned memory, so that a GPU need not be waited for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


# The adjustments are torchvision's (transforms.v2.functional: adjust_brightness and so on), with a factor a sample:
# images uint8 B x 3 x H x W, factors float32 B x 1 x 1 x 1.


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    return _to_bytes(images * factors)


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Towards or away from the image's mean grey."""
    # a sum of whole numbers in float64 is exact, so that the mean does not depend on the batch
    mean = _grey(images).mean((1, 2, 3), keepdim=True, dtype=torch.float64)
    return _blended(images, mean.float(), factors)


def saturated(images: Tensor, factors: Tensor) -> Tensor:
    """Towards or away from each pixel's grey."""
    return _blended(images, _grey(images), factors)


def _grey(images: Tensor) -> Tensor:
    """ITU-R 601 luma, rounded down: float32 B x 1 x H x W."""
    red, green, blue = images.split(1, dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blended(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return _to_bytes((images * factors).add_(others * (1 - factors)))


def _to_bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
