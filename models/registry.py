"""Networks and heads by the names that configs give them.

A new one is its module with its settings, and two lines here: its import, and its entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from models.densedepth import DenseDepth, DenseDepthSettings
from models.heads import BoxHead, DenseHead, DepthHead, SteeringHead
from models.lraspp import LRASPP, LRASPPSettings
from models.pilotnet import PilotNet
from models.settings import FromScratch, PartSettings
from models.unet import UNet, UNetSettings
from models.yolov1 import YOLOv1, YOLOv1Settings


@dataclass(frozen=True)
class Part:
    """A network, or a head.

    outputs: the task's keyword (`Task.outputs`) -> the constructor's name for it.
    """

    make: Callable[..., nn.Module]
    outputs: dict[str, str]
    settings: type[PartSettings] = PartSettings

    def build(self, settings: PartSettings, outputs: dict[str, Any], **more: Any) -> nn.Module:
        """With random weights. outputs: of the task, fitted or restored; more: what a head must know of its inputs."""
        named = {self.outputs[name]: value for name, value in outputs.items()}
        keys = {key: getattr(settings, key) for key in type(settings).model_fields if key not in NOT_BUILT_WITH}
        return self.make(**named, **keys, **more)


NOT_BUILT_WITH = ("name", "pretrained")
BOXES = {name: name for name in ("classes", "grid", "predictors")}

NETWORKS = {
    "unet": Part(UNet, {"channels_out": "classes"}, UNetSettings),
    "lraspp": Part(LRASPP, {"channels_out": "classes"}, LRASPPSettings),
    "pilotnet": Part(PilotNet, {"numbers": "numbers"}, FromScratch),
    "densedepth": Part(DenseDepth, {"median_depth": "median_depth"}, DenseDepthSettings),
    "yolov1": Part(YOLOv1, BOXES, YOLOv1Settings),
}
HEADS = {
    "dense": Part(DenseHead, {"channels_out": "out_channels"}),
    "depth": Part(DepthHead, {"median_depth": "median_depth"}),
    "steering": Part(SteeringHead, {"numbers": "outputs"}),
    "levels": Part(BoxHead, BOXES),
}


def make_network(settings: PartSettings, outputs: dict[str, Any]) -> nn.Module:
    """uint8 B x 3 x H x W -> the task's output."""
    return NETWORKS[settings.name].build(settings, outputs)


def make_head(settings: PartSettings, outputs: dict[str, Any], channels: int) -> nn.Module:
    """[P2, P3, P4, P5], B x `channels` at 1/4, 1/8, 1/16 and 1/32 of the image -> the task's output."""
    return HEADS[settings.name].build(settings, outputs, channels=channels)
