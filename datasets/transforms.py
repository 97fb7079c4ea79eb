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
from torchvision.transforms.v2 import functional as F

from datasets.a2d2 import Batch
from datasets.layout import Frame


class Augmentation:
    """Flip with probability `hflip`; brightness, contrast and saturation each by a factor from [1 - x, 1 + x]."""

    def __init__(self, *, hflip: float, brightness: float, contrast: float, saturation: float, seed: int):
        self.hflip_probability, self.seed = hflip, seed
        self.jitter = (
            (F.adjust_brightness, brightness),
            (F.adjust_contrast, contrast),
            (F.adjust_saturation, saturation),
        )

    def __call__(self, batch: Batch, tasks: Mapping[str, Any], epoch: int) -> Batch:
        randoms = [
            self._random(epoch, sample.frame, nth) for sample, nth in zip(batch.samples, batch.visits, strict=True)
        ]
        flips = torch.tensor([random.random() < self.hflip_probability for random in randoms])
        flips = flips.to(batch.images.device)
        images = torch.where(flips[:, None, None, None], batch.images.flip(-1), batch.images)  # B 3 H W
        images = torch.stack([self._jittered(image, random) for image, random in zip(images, randoms, strict=True)])
        targets = {
            name: tasks[name].hflip(target, flips if batch.places[name] is None else flips[batch.places[name]])
            for name, target in batch.targets.items()
        }
        return replace(batch, images=images, targets=targets)

    def _random(self, epoch: int, frame: Frame, nth: int) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.seed} {epoch} {frame.key} {nth}".encode()))

    def _jittered(self, image: Tensor, random: np.random.Generator) -> Tensor:
        for adjust, strength in self.jitter:
            factor = random.uniform(1 - strength, 1 + strength)
            if strength > 0:
                image = adjust(image, factor)
        return image
