"""The norms between a network's layers. Networks are written with batch norm; `set_norm` puts another in its place.

frozen: batch norm with the statistics, scale and shift of the initial weights, which never change.
group: GroupNorm (Wu and He 2018): statistics of one sample's own channels.
train: batch norm that learns. What it gives up: a sample's result depends on the others of its micro-batch, so that of
    a training depends on `micro_batch_size`, on the number of processes and on how samples were mixed; the statistics
    are those of as few images as a micro-batch has; and validation uses running means over micro-batches that may have
    been of unlike data, one kind of label each.
"""

from typing import Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.precision import without_autocast

Norm = Literal["frozen", "group", "train"]
NormFromScratch = Literal["group", "train"]  # of networks that start from random weights only

GROUPS = 32  # of a GroupNorm at most, the paper's number
CHANNELS_PER_GROUP = 2  # at least: a single channel of a 1 x 1 map would always be 0


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm in evaluation mode, whatever `train()` says.

    Names in its state are as ever, but scale and shift are buffers: nothing in it learns.
    torchvision's class of this name multiplies by its float32 statistics, which under autocast makes float32 maps of
    bf16 ones.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        for name in ("weight", "bias"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class GroupNorm(nn.GroupNorm):
    """In the precision of its input, B x channels x H x W; the statistics are float32 inside the operator.

    So batch norm has it. Autocast on CUDA would make float32 maps, which take UNet at 1024 x 1024 beyond 12 GB.
    """

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x.device):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """And then an activation, as timm's BatchNormAct2d."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class GroupNormAct(GroupNorm):
    """And then an activation."""

    def __init__(self, groups: int, channels: int, act: nn.Module) -> None:
        super().__init__(groups, channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


def group_norm(channels: int) -> GroupNorm:
    """Of so many channels."""
    return GroupNorm(groups_of(channels), channels)


def groups_of(channels: int) -> int:
    """As many groups as divide the channels, up to 32: 36 channels are 18 groups of 2, 320 are 32 of 10.

    Wide groups cost narrow networks much: with groups of 8, PilotNet and a UNet of 8 base channels learn more slowly
    than with batch norm, with groups of 2 they don't.
    """
    most = min(GROUPS, max(channels // CHANNELS_PER_GROUP, 1))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def set_norm(module: nn.Module, norm: Norm) -> None:
    """Put the norm in the place of each batch norm within the module, which must be a new one."""
    if norm == "train":
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, in_place_of(child, norm))
        else:
            set_norm(child, norm)


def in_place_of(child: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    """The norm for one batch norm; an activation that is part of it stays."""
    channels, act = child.num_features, getattr(child, "act", None)
    if norm == "group":
        return group_norm(channels) if act is None else GroupNormAct(groups_of(channels), channels, act)
    frozen = FrozenBatchNorm2d(channels) if act is None else FrozenBatchNormAct2d(channels, act)
    frozen.eps = child.eps  # belongs to the weights
    return frozen


def training_batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Those whose statistics learn."""
    norms = (part for part in module.modules() if isinstance(part, _BatchNorm))
    return [norm for norm in norms if not isinstance(norm, FrozenBatchNorm2d)]


def default_norm(pretrained: str) -> Norm:
    """For an encoder with these initial weights: imagenet, none or a file."""
    return "group" if pretrained == "none" else "frozen"


def check_norm(norm: Norm, pretrained: str) -> None:
    """ValueError where an encoder's norm and its initial weights do not go together."""
    if norm == "frozen" and pretrained == "none":
        raise ValueError("norm frozen keeps statistics, which random weights have none of; set norm to group or train")
    if norm == "group" and pretrained == "imagenet":
        raise ValueError("ImageNet's weights were made with batch norm, not norm group; set norm to frozen or train")
