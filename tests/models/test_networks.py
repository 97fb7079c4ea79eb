"""What all single-task networks promise."""

import pytest
import torch
from torch import nn

from models.densedepth import DenseDepth
from models.lraspp import LRASPP
from models.pilotnet import PilotNet
from models.unet import UNet
from models.yolov1 import YOLOv1

SMALL = {
    "unet": lambda: UNet(classes=5, base_channels=8),
    "lraspp": lambda: LRASPP(classes=5, encoder="small"),
    "pilotnet": PilotNet,
    "densedepth": lambda: DenseDepth(median_depth=15.0, encoder="small"),
    "yolov1": lambda: YOLOv1(classes=14, base_channels=8, pairs=(1, 2)),
}
OUTPUT = {  # of B images of H x W
    "unet": lambda b, h, w: (b, 5, h, w),
    "lraspp": lambda b, h, w: (b, 5, h, w),
    "pilotnet": lambda b, h, w: (b, 10),
    "densedepth": lambda b, h, w: (b, 1, h, w),
    "yolov1": lambda b, h, w: (b, 8, 8, 10, 19),
}


@pytest.fixture(params=SMALL)
def name(request):
    torch.manual_seed(0)
    return request.param


def images(b, h, w):
    return torch.randint(0, 256, (b, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("b", "h", "w"), [(1, 64, 64), (2, 96, 160), (2, 80, 48)])
def test_output_shape_for_any_image_shape(name, b, h, w):
    network = SMALL[name]().eval()
    assert h % network.divisor == 0
    assert w % network.divisor == 0
    output = network(images(b, h, w))
    assert output.shape == OUTPUT[name](b, h, w)
    assert output.dtype == torch.float32
    assert output.isfinite().all()


def test_gradient_reaches_every_parameter(name):
    network = SMALL[name]()
    output = network(images(2, 64, 96))
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (output * weights).sum().backward()
    untouched = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def test_samples_do_not_mix_in_evaluation(name):
    network = SMALL[name]().eval().double()
    batch = images(3, 64, 64)
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]))


def test_normalisation_is_no_part_of_the_state_and_follows_the_dtype(name):
    network = SMALL[name]().double()
    assert not [key for key in network.state_dict() if "normalise" in key]
    assert network.eval()(images(1, 64, 64)).dtype == torch.float64


def test_it_can_memorise_four_images(name):
    """One number an image, for noise of single places takes long; what counts is how it differs between the images."""
    network = SMALL[name]()
    colours = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    batch = (255 * nn.functional.interpolate(colours, (64, 64), mode="bilinear")).to(torch.uint8)
    with torch.no_grad():
        shape = network(batch).shape
    target = torch.randn(4, generator=torch.Generator().manual_seed(2)).view(4, *[1] * (len(shape) - 1)).expand(shape)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(150):
        output = network(batch)
        if name == "densedepth":
            output = (output / 15).log()
        optimiser.zero_grad()
        (output - target).square().mean().backward()
        optimiser.step()
    error = (output - output.mean(0)) - (target - target.mean(0))
    assert error.square().mean() < 0.3 * (target - target.mean(0)).square().mean()
