import torch

from models.pilotnet import PilotNet


def test_size_of_the_paper():
    network = PilotNet()
    assert 250_000 < sum(p.numel() for p in network.parameters()) < 255_000  # "about 250 thousand parameters"
    assert [layer.out_features for layer in network.dense if hasattr(layer, "out_features")] == [100, 50, 10]
    assert network.convs(torch.zeros(2, 3, 66, 200)).shape == (2, 64, 1, 18)


def test_own_size_passes_unchanged():
    torch.manual_seed(0)
    network = PilotNet().eval()
    images = torch.randint(0, 256, (2, 3, 66, 200), dtype=torch.uint8)
    expected = network.dense(network.convs(network.normalise(images)).flatten(1))
    torch.testing.assert_close(network(images), expected)


def test_shrinking_does_not_alias():
    """A fine chessboard is grey from afar; without antialiasing (every 11th pixel) it stays one."""
    network = PilotNet().eval()
    seen = []
    network.convs.register_forward_pre_hook(lambda convs, inputs: seen.append(inputs[0]))
    chessboard = ((torch.arange(11 * 66)[:, None] + torch.arange(11 * 200)) % 2 * 255).to(torch.uint8)
    grey = torch.full((1, 3, 66, 200), 127, dtype=torch.uint8)
    for images in (chessboard.expand(1, 3, -1, -1), grey, torch.zeros_like(grey)):
        network(images)
    shrunk, grey, black = seen
    assert shrunk.shape == grey.shape
    assert (shrunk - grey).abs().max() < 0.1 * (black - grey).abs().max()
