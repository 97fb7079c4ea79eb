import copy

import pytest
import torch
import torchvision
from torch import nn

from models.encoder import IMAGENET_WEIGHTS, Encoder
from models.pretrained import load_pretrained

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def images(b, h, w, seed=0):
    return torch.randint(0, 256, (b, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 160)])
@pytest.mark.parametrize("name", [*NAMES, "small"])
def test_levels(name, h, w):
    with torch.device("meta"):
        encoder = Encoder(name=name).eval()
        levels = encoder(torch.zeros(2, 3, h, w, dtype=torch.uint8))
    expected = [(2, channels, h // s, w // s) for channels, s in zip(encoder.channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(level.shape) for level in levels] == expected


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_weights_fit_and_nothing_else_is_in_the_encoder(name):
    with torch.device("meta"):
        published = getattr(torchvision.models, name)().state_dict()
        own = Encoder(name=name, norm="frozen").resnet.state_dict()
    shapes = {key: value.shape for key, value in published.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in own.items()} == shapes
    assert IMAGENET_WEIGHTS[name].url.rsplit("/", 1)[-1].startswith(f"{name}-")


def test_a_published_file_makes_the_encoder_torchvisions_network(tmp_path):
    torch.manual_seed(0)
    published = torchvision.models.resnet18().eval()
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    encoder = Encoder(name="resnet18", norm="frozen").train()
    load_pretrained(encoder.resnet, str(tmp_path / "resnet18.pth"), None, "encoder, resnet18")
    published.fc, published.avgpool = nn.Identity(), nn.Identity()  # what is left ends with C5
    with torch.no_grad():
        expected = published(encoder.normalise(images(1, 64, 64)))
        torch.testing.assert_close(encoder(images(1, 64, 64))[-1].flatten(1), expected)


def test_pixels_are_normalised_inside():
    encoder = Encoder(name="small").eval()
    grey = torch.full((1, 3, 32, 32), 118, dtype=torch.uint8)  # about ImageNet's mean
    seen = []
    encoder.resnet.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(grey)
    assert seen[0].abs().max() < 0.4


def test_norm_train_is_batch_norm_that_learns():
    torch.manual_seed(0)
    encoder = Encoder(name="small", norm="train").train()
    before = copy.deepcopy(encoder.state_dict())
    sum(level.square().mean() for level in encoder(images(2, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    changed = {key.rsplit(".", 1)[-1] for key, value in encoder.state_dict().items() if not value.equal(before[key])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
