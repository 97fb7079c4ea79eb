"""The first layer of every network: bytes to the scale that ImageNet networks are trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # red, green, blue; of images scaled to 0-1
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Images uint8 B x 3 x H x W (RGB) -> floating point, zero mean and unit variance over ImageNet.

    Mean and deviation are buffers, so they follow the network's device and dtype; they are constants, so they are not
    part of its state. The output has the network's memory format (models/memory_format.py).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        """mean, std: red, green, blue, of images scaled to 0-1."""
        super().__init__()
        self.memory_format = torch.contiguous_format
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self.memory_format)
        return (images.to(self.mean.dtype) - self.mean) / self.std
