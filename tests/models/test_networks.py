"""What all four single-task networks promise."""

import pytest
import torch

from models.densedepth import DenseDepth
from models.pilotnet import PilotNet
from models.unet import UNet
from models.yolov1 import YOLOv1

SMALL = {
    "unet": lambda: UNet(classes=5, base_channels=4),
    "pilotnet": PilotNet,
    "densedepth": lambda: DenseDepth(median_depth=15.0, encoder="small"),
    "yolov1": lambda: YOLOv1(classes=14, base_channels=4, pairs=(1, 2)),
}
OUTPUT = {  # of B images of H x W
    "unet": lambda b, h, w: (b, 5, h, w),
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
    network = SMALL[name]()
    batch = images(4, 64, 64)
    target = torch.randn(network(batch).shape, generator=torch.Generator().manual_seed(2))
    if name in ("unet", "densedepth"):  # one number an image: noise of single pixels takes long
        target = target[:, :, :1, :1].expand(target.shape)
    if name == "yolov1":  # one set of numbers an image, for the same reason
        target = target[:, :1, :1].expand(target.shape)
    if name == "densedepth":
        target = 15 * target.exp()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):  # group norm sees noise of equal statistics: 40 steps are not enough
        output = network(batch)
        error = output.log() - target.log() if name == "densedepth" else output - target
        losses.append(error.square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.4 * losses[0]
