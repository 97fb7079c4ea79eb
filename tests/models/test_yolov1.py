import math

import pytest
import torch

from models.yolov1 import Darknet, YOLOv1


@pytest.fixture(scope="module")
def paper():
    return YOLOv1(classes=14)


def test_figure(paper):
    convolutions = [m for m in paper.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 24 + 1  # the figure's 24 and the 1x1 that stands for its dense layers
    assert convolutions[-1].out_channels == 190
    widths = [m.out_channels for m in convolutions[:-1]]
    assert widths == [64, 192, 128, 256, 256, 512, *[256, 512] * 4, 512, 1024, *[512, 1024] * 2, *[1024] * 4]
    assert sum(p.numel() for p in paper.parameters()) == 60_363_902


@pytest.mark.parametrize(("pairs", "stride"), [((1,), 8), ((1, 1), 16), ((2, 5, 2), 32)])
def test_encoder_stride(pairs, stride):
    encoder = Darknet(base_channels=4, pairs=pairs).eval()
    assert encoder(torch.zeros(1, 3, 96, 160)).shape == (1, encoder.out_channels, 96 // stride, 160 // stride)


@pytest.mark.parametrize(("grid", "predictors", "classes"), [(7, 2, 20), (8, 10, 14), (3, 1, 1)])
def test_output_shape(grid, predictors, classes):
    network = YOLOv1(classes=classes, grid=grid, predictors=predictors, base_channels=4, pairs=(1,)).eval()
    output = network(torch.zeros(2, 3, 100, 150, dtype=torch.uint8))
    assert output.shape == (2, grid, grid, predictors, 5 + classes)


def test_grid_is_rows_then_columns_of_the_image():
    torch.manual_seed(0)
    # a group norm would tell every place of every change
    network = YOLOv1(classes=14, base_channels=4, pairs=(1,), norm="train").eval()
    images = torch.zeros(1, 3, 128, 256, dtype=torch.uint8)
    bright = images.clone()
    bright[:, :, :8, -16:] = 255  # top right
    change = (network(bright) - network(images)).abs().sum((0, 3, 4))  # rows, columns
    assert change.argmax() == 7
    assert change[:, 0].max() == 0  # out of sight


def test_a_new_network_sees_next_to_nothing():
    torch.manual_seed(0)
    network = YOLOv1(classes=14, base_channels=8, pairs=(1, 1))
    bias = network.output.bias.view(10, 19)
    torch.testing.assert_close(bias[:, 4].sigmoid(), torch.full((10,), 0.01))
    assert not bias[:, [0, 1, 2, 3, *range(5, 19)]].any()
    objectness = network(torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8))[..., 4]
    assert objectness.median() < math.log(0.05 / 0.95)
