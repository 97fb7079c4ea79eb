import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.bifpn import EPSILON, BiFPN, BiFPNLayer, Node


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pyramid(channels, h, w, b=2):
    return [torch.randn(b, c, h >> i, w >> i) for i, c in enumerate(channels)]


@pytest.mark.parametrize(("h", "w"), [(8, 8), (16, 40)])
@pytest.mark.parametrize("layers", [1, 2])
def test_shapes(h, w, layers):
    bifpn = BiFPN(in_channels=(16, 32, 64, 128), channels=24, layers=layers)
    levels = bifpn(pyramid((16, 32, 64, 128), h, w))
    assert [tuple(level.shape) for level in levels] == [(2, 24, h >> i, w >> i) for i in range(4)]


def test_weights_start_at_one_and_every_input_counts_alike():
    bifpn = BiFPN(in_channels=(16, 32, 64, 128), channels=16)
    nodes = [module for module in bifpn.modules() if isinstance(module, Node)]
    assert sorted(len(node.weights) for node in nodes) == [2] * 8 + [3] * 4
    for node in nodes:
        assert node.weights.requires_grad
        assert node.weights.tolist() == [1.0] * len(node.weights)
        torch.testing.assert_close(
            node.shares(), torch.full_like(node.weights, 1 / len(node.weights)), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("weights", [[0.3, 2.0, 0.5], [-1.0, 0.2, 3.0], [-1.0, -2.0, -0.1]])
def test_fusion_against_the_papers_formula(weights):
    node = Node(8, inputs=3).double()
    node.weights.data = torch.tensor(weights, dtype=torch.float64)
    inputs = [torch.randn(1, 8, 4, 6, dtype=torch.float64) for _ in weights]

    positive = [max(weight, 0.0) for weight in weights]
    fused = torch.zeros(1, 8, 4, 6, dtype=torch.float64)
    for weight, x in zip(positive, inputs, strict=True):
        fused += weight / (EPSILON + sum(positive)) * x
    torch.testing.assert_close(node(*inputs), node.conv(fused))
    shares = node.shares()
    assert (shares >= 0).all()
    assert shares.sum().item() == pytest.approx(sum(positive) / (sum(positive) + EPSILON))


def test_weights_learn():
    node = Node(8, inputs=2)
    node(torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)).square().sum().backward()
    assert node.weights.grad.abs().min() > 0


def test_layer_against_the_figure():
    """The equations of section 3.3, written for four levels."""
    layer = BiFPNLayer(8)
    for node in layer.modules():
        if isinstance(node, Node):
            nn.init.uniform_(node.weights, 0.1, 2.0)
    p2, p3, p4, p5 = pyramid((8,) * 4, 16, 24)

    def fuse(node, *inputs):
        return node.conv(sum(w * x for w, x in zip(node.weights, inputs, strict=True)) / (node.weights.sum() + 1e-4))

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def down(x):
        windows = F.pad(x, (1, 1, 1, 1), value=float("-inf")).unfold(2, 3, 2).unfold(3, 3, 2)
        return windows.amax((-1, -2))

    td4 = fuse(layer.down4, p4, up(p5))
    td3 = fuse(layer.down3, p3, up(td4))
    out2 = fuse(layer.out2, p2, up(td3))
    out3 = fuse(layer.out3, p3, td3, down(out2))
    out4 = fuse(layer.out4, p4, td4, down(out3))
    out5 = fuse(layer.out5, p5, down(out4))
    for found, expected in zip(layer([p2, p3, p4, p5]), [out2, out3, out4, out5], strict=True):
        torch.testing.assert_close(found, expected)


def test_convolutions_are_separable_and_norms_are_per_sample():
    bifpn = BiFPN(in_channels=(16, 32, 64, 128), channels=32)
    spatial = [module for module in bifpn.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)]
    assert len(spatial) == 12
    assert all(conv.kernel_size == (3, 3) and conv.groups == conv.in_channels == 32 for conv in spatial)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in bifpn.modules())
    pair = pyramid((16, 32, 64, 128), 16, 16)
    for together, alone in zip(bifpn(pair), bifpn([level[:1] for level in pair]), strict=True):
        torch.testing.assert_close(together[:1], alone)


def test_every_level_reaches_every_level():
    bifpn = BiFPN(in_channels=(8, 8, 8, 8), channels=8, layers=1)
    inputs = [level.requires_grad_() for level in pyramid((8,) * 4, 16, 16, b=1)]
    for level in bifpn(inputs):
        gradients = torch.autograd.grad(level.square().sum(), inputs, retain_graph=True)
        assert all(gradient.abs().max() > 0 for gradient in gradients)
