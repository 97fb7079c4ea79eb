import torch
from torch import nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from models.lraspp import LRASPP
from models.norms import training_batch_norms


def test_the_head_is_torchvisions_on_the_maps_at_an_eighth_and_at_the_end() -> None:
    torch.manual_seed(0)
    network = LRASPP(classes=3, encoder="small", norm="train").eval()
    head = LRASPPHead(32, 128, 3, 128).eval()
    head.load_state_dict(network.head.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    maps = network.maps(images)
    assert [tuple(level.shape[-2:]) for level in (maps[1], maps[-1])] == [(8, 12), (2, 3)]
    expected = nn.functional.interpolate(head({"low": maps[1], "high": maps[-1]}), (64, 96), mode="bilinear")
    torch.testing.assert_close(network(images), expected)


def test_frozen_norms_are_the_encoders_alone() -> None:
    network = LRASPP(classes=3, encoder="resnet18", norm="frozen")
    assert training_batch_norms(network) == []
    assert not [module for module in network.maps.modules() if isinstance(module, nn.GroupNorm)]
    assert isinstance(network.head.cbr[1], nn.GroupNorm)


def test_initial_weights_are_for_the_encoder() -> None:
    network = LRASPP(classes=3, encoder="resnet18")
    assert "layer4.1.conv2.weight" in network.encoder.state_dict()
    assert not [name for name in network.state_dict() if name.startswith("encoder.")]
