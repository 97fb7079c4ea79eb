import pytest
import torch

from models.densedepth import MAX_DEPTH, MIN_DEPTH, DenseDepth, bounded_exp, inverse_bounded_exp


def images(b, h, w):
    return torch.randint(0, 256, (b, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_size_of_the_paper():
    network = DenseDepth(median_depth=15.0)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(42.6, abs=0.1)
    assert [up.convs[0].in_channels for up in network.ups] == [1664 + 256, 832 + 128, 416 + 64, 208 + 64]
    assert network.output.in_channels == 104


def test_densenet121_is_a_choice():
    features = DenseDepth(median_depth=15.0, encoder="densenet121").encoder.features
    assert features.norm5.num_channels == 1024


@pytest.mark.parametrize("median", [2.0, 15.8, 70.0])
def test_a_new_network_says_the_median_everywhere(median):
    torch.manual_seed(0)
    depth = DenseDepth(median_depth=median, encoder="small")(images(2, 64, 96))
    torch.testing.assert_close(depth, torch.full_like(depth, median), rtol=0.05, atol=0)


@pytest.mark.parametrize("median", [0.0, 0.5, 256.0, float("nan")])
def test_impossible_median(median):
    with pytest.raises(ValueError, match="median depth"):
        DenseDepth(median_depth=median, encoder="small")


@pytest.mark.parametrize("scale", [-1e8, -1e3, 1e3, 1e8])
def test_huge_activations_stay_in_the_range(scale):
    torch.manual_seed(0)
    network = DenseDepth(median_depth=15.0, encoder="small").eval()
    with torch.no_grad():
        network.output.weight.mul_(abs(scale))
        network.output.bias.fill_(scale)
    depth = network(images(1, 64, 64))
    assert depth.isfinite().all()
    assert depth.min() >= MIN_DEPTH * 0.9999
    assert depth.max() <= MAX_DEPTH * 1.0001
    depth.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_bounded_exp():
    x = torch.linspace(-20, 20, 401, dtype=torch.float64, requires_grad=True)
    depth = bounded_exp(x)
    assert (depth.diff() >= 0).all()
    assert depth[0].item() == pytest.approx(0.5, rel=1e-4)
    assert depth[-1].item() == pytest.approx(256, rel=1e-4)
    depth.log().sum().backward()
    assert x.grad[200].item() == pytest.approx(1)  # x is a log depth in the middle of the range
    for metres in (0.6, 15.8, 200.0):
        value = torch.tensor(inverse_bounded_exp(metres), dtype=torch.float64)
        assert bounded_exp(value).item() == pytest.approx(metres)


def test_any_size_from_32():
    network = DenseDepth(median_depth=15.0, encoder="small").eval()
    assert network(images(1, 33, 70)).shape == (1, 1, 33, 70)


def test_depth_is_float32_under_autocast():
    network = DenseDepth(median_depth=15.0, encoder="small").eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images(1, 64, 64)).dtype == torch.float32
