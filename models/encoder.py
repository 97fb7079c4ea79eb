"""The shared encoder: a ResNet without its classifier.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, table 1. C2-C5 are the outputs of the
table's conv2_x to conv5_x, as Lin et al. 2017 (FPN) call them. Networks and names of weights are torchvision's, so its
ImageNet files fit `Encoder.resnet`.
"""

from typing import Annotated

from pydantic import AfterValidator
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights, ResNet101_Weights, WeightsEnum
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from models.normalise import Normalise
from models.norms import Norm, set_norm
from models.settings import EncoderSettings
from models.timm_encoder import PREFIX, TimmEncoder, TimmWeights, check_maps, weights_of

BLOCKS = {  # kind of block, blocks in each stage
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}
IMAGENET_WEIGHTS = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": ResNet101_Weights.IMAGENET1K_V1,
}


class Encoder(nn.Module):
    """Images uint8 B x 3 x H x W -> [C2, C3, C4, C5], at 1/4, 1/8, 1/16 and 1/32 of their size.

    H and W are multiples of `divisor`; `channels` are those of the four levels.
    """

    divisor = 32

    def __init__(self, *, name: str = "resnet50", norm: Norm = "group") -> None:
        super().__init__()
        self.normalise = Normalise()
        if name == "small":
            self.resnet, self.channels = SmallResNet(), SmallResNet.CHANNELS
        else:
            block, layers = BLOCKS[name]
            self.resnet, self.channels = ResNet(block, layers), tuple(c * block.expansion for c in (64, 128, 256, 512))
            self.resnet.fc = nn.Identity()  # not part of the encoder
        set_norm(self.resnet, norm)

    def pretrained_part(self) -> nn.Module:
        """What files of initial weights are for."""
        return self.resnet

    def forward(self, images: Tensor) -> list[Tensor]:
        r = self.resnet
        x = r.relu(r.bn1(r.conv1(self.normalise(images))))  # B 64 H/2 W/2
        c2 = r.layer1(r.maxpool(x))  # B 256 H/4 W/4
        c3 = r.layer2(c2)  # B 512 H/8 W/8
        c4 = r.layer3(c3)  # B 1024 H/16 W/16
        c5 = r.layer4(c4)  # B 2048 H/32 W/32
        return [c2, c3, c4, c5]


class SmallResNet(nn.Module):
    """One block a stage, a quarter of resnet18's channels: 0.3 M parameters, for a CPU. Names as in `ResNet`."""

    CHANNELS = (16, 32, 64, 128)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = BasicBlock(16, 16)
        self.layer2 = small_stage(16, 32)
        self.layer3 = small_stage(32, 64)
        self.layer4 = small_stage(64, 128)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


ENCODERS = (*BLOCKS, "small")  # beside timm's


def check_encoder(name: str) -> str:
    """The name of an encoder; ValueError: there is none."""
    if name.startswith(PREFIX):
        check_maps(name)
    elif name not in ENCODERS:
        raise ValueError(f"must be one of {', '.join(ENCODERS)}, or timm/NAME")
    return name


class AnyEncoderSettings(EncoderSettings):
    """Of what may have any of them."""

    encoder: Annotated[str, AfterValidator(check_encoder)] = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, small, or timm/NAME: one of timm's that gives maps at strides 4 to 32
    (models/timm_encoder.py)."""

    @staticmethod
    def published(encoder: str) -> WeightsEnum | TimmWeights | None:
        return imagenet_weights(encoder)


def make_encoder(name: str, norm: Norm) -> Encoder | TimmEncoder:
    """By its name in a config, with random weights."""
    return (TimmEncoder if name.startswith(PREFIX) else Encoder)(name=name, norm=norm)


def imagenet_weights(name: str) -> WeightsEnum | TimmWeights | None:
    """The published weights of an encoder."""
    return weights_of(name) if name.startswith(PREFIX) else IMAGENET_WEIGHTS.get(name)


def small_stage(in_channels: int, out_channels: int) -> BasicBlock:
    """One block that halves the map."""
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), nn.BatchNorm2d(out_channels)
    )
    return BasicBlock(in_channels, out_channels, stride=2, downsample=shortcut)
