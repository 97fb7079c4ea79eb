"""What each norm promises, in every network that has one."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from models.densedepth import DenseDepth
from models.encoder import Encoder
from models.norms import FrozenBatchNorm2d, group_norm, set_norm, training_batch_norms
from models.pilotnet import PilotNet
from models.unet import UNet
from models.yolov1 import YOLOv1

NETWORKS = {
    "encoder": lambda norm: Encoder(name="small", norm=norm),
    "resnet18": lambda norm: Encoder(name="resnet18", norm=norm),
    "densedepth": lambda norm: DenseDepth(median_depth=15.0, encoder="small", norm=norm),
    "unet": lambda norm: UNet(classes=5, base_channels=4, norm=norm),
    "pilotnet": lambda norm: PilotNet(norm=norm),
    "yolov1": lambda norm: YOLOv1(classes=14, base_channels=4, pairs=(1,), norm=norm),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def images(b, h=64, w=96):
    generator = torch.Generator().manual_seed(0)
    lights = torch.rand(b, 3, 1, 1, generator=generator)  # no two images have the same statistics
    return (255 * lights * torch.rand(b, 3, h, w, generator=generator)).to(torch.uint8)


def outputs(network, batch):
    found = network(batch)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_do_not_see_each_other_in_training(name, norm):
    network, batch = NETWORKS[name](norm).double().train(), images(3)
    for together, alone in zip(outputs(network, batch), outputs(network, batch[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_see_each_other_with_norm_train(name):
    network, batch = NETWORKS[name]("train").double().train(), images(3)
    if name == "densedepth":
        nn.init.normal_(network.output.weight)  # a new one hardly looks at its input
    together, alone = outputs(network, batch)[-1], outputs(network, batch[1:2])[-1]
    assert (together[1:2] - alone).abs().max() > 1e-2 * together.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_is_of_the_kind_asked_for(name):
    trained = NETWORKS[name]("train")
    count = len(training_batch_norms(trained))
    assert count > 4
    for norm, kind in (("group", nn.GroupNorm), ("frozen", FrozenBatchNorm2d)):
        network = NETWORKS[name](norm)
        assert training_batch_norms(network) == []
        assert sum(isinstance(module, kind) for module in network.modules()) == count
        shapes = {key: value.shape for key, value in trained.state_dict().items()}
        assert {key: value.shape for key, value in network.state_dict().items()}.items() <= shapes.items()


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_norms_stay_as_they_are_and_the_rest_learns(name):
    network = NETWORKS[name]("frozen")
    norms = [module for module in network.modules() if isinstance(module, FrozenBatchNorm2d)]
    for norm in norms:  # statistics as training leaves them
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 1.0, 2.0)
    network = copy.deepcopy(network)  # a copy is frozen too
    before = copy.deepcopy(network.state_dict())
    expected = outputs(network.eval(), images(2))
    found = outputs(network.train(), images(2))
    assert network.training
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(output.square().mean() for output in found).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    learnt = {key.rsplit(".", 1)[0] for key, value in network.state_dict().items() if not value.equal(before[key])}
    names = {name for name, module in network.named_modules() if isinstance(module, FrozenBatchNorm2d)}
    assert learnt
    assert not learnt & names


def test_frozen_norms_read_the_state_of_batch_norms():
    torch.manual_seed(0)
    source, network = (torchvision.models.resnet18() for _ in range(2))
    source.train()(torch.randn(2, 3, 64, 64))  # moves the statistics
    set_norm(network, "frozen")
    network.load_state_dict(source.state_dict())
    batch = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.train()(batch), source.eval()(batch))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(2, 1), (4, 2), (8, 4), (24, 12), (36, 18), (39, 13), (37, 1), (64, 32), (256, 32), (320, 32), (272, 17)],
)
def test_there_are_32_groups_or_fewer_of_two_channels_at_least(channels, groups):
    assert group_norm(channels).num_groups == groups
    assert group_norm(channels)(torch.randn(1, channels, 1, 1)).isfinite().all()


@pytest.mark.parametrize("make", [group_norm, FrozenBatchNorm2d])
def test_half_precision_goes_through_a_norm(make):
    """The map stays half as large as in float32, and is float32's but for its own rounding."""
    norm = make(16)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -1, 1)
    x = (5 + torch.randn(2, 16, 32, 32)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(x.float()), rtol=0.02, atol=0.03)
