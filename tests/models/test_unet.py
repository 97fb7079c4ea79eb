import torch

from models.unet import UNet


def test_size_of_the_paper():
    network = UNet(classes=2)
    assert sum(p.numel() for p in network.parameters()) == 31_037_698  # 31.0 M, batch norm instead of biases
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert len(convolutions) == 23  # "In total the network has 23 convolutional layers", section 2
    assert max(m.out_channels for m in convolutions) == 1024


def test_top_skip_carries_single_pixels():
    """Without the skips, the output could not change at one pixel's scale."""
    torch.manual_seed(0)
    network = UNet(classes=3, base_channels=4).eval()
    image = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    dotted = image.clone()
    dotted[..., 32, 32] = 255
    change = (network(dotted) - network(image)).abs().amax(1)[0]  # H W
    assert change[30:35, 30:35].max() > 5 * change[32, 40:].max()
