"""Last layers under autocast: what a network says is not rounded to half precision."""

import pytest
import torch
from torch import nn

from models.densedepth import DenseDepth
from models.heads import BoxHead, DenseHead, DepthHead, SteeringHead
from models.pilotnet import PilotNet
from models.unet import UNet
from models.yolov1 import YOLOv1

C = 16
# name -> network or head, and its last layer
OUTPUTS = {
    "dense head": (lambda: DenseHead(channels=C, out_channels=5), lambda head: head.output),
    "depth head": (lambda: DepthHead(channels=C, median_depth=16.0), lambda head: head.output),
    "box head": (lambda: BoxHead(channels=C, classes=14, grid=2), lambda head: head.output),
    "steering head": (lambda: SteeringHead(channels=C, outputs=10), lambda head: head.dense[-1]),
    "unet": (lambda: UNet(classes=5, base_channels=4), lambda network: network.classify),
    "densedepth": (lambda: DenseDepth(median_depth=16.0, encoder="small"), lambda network: network.output),
    "pilotnet": (PilotNet, lambda network: network.dense[-1]),
    "yolov1": (lambda: YOLOv1(classes=14, base_channels=4, pairs=(1,), grid=2), lambda network: network.output),
}
DEPTH = ["depth head", "densedepth"]
STEERING = ["steering head", "pilotnet"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def inputs_of(name):
    if name.endswith("head"):
        return [torch.randn(2, C, 64 >> level, 64 >> level) for level in (2, 3, 4, 5)]
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


def run(name, network, last):
    """Under autocast: the network's output, and what came into and out of its last layer."""
    seen = {}
    # Predictions says in its `forward` that it runs in float32, so its input is what comes before that
    last.register_forward_hook(lambda module, inputs, output: seen.update(into=inputs[0], out=output))
    with torch.autocast("cpu", torch.bfloat16):
        output = network(inputs_of(name))
    return output, seen["into"], seen["out"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_last_layer_runs_in_float32(name):
    make, last_of = OUTPUTS[name]
    network = make()
    last = last_of(network)
    output, into, out = run(name, network, last)
    assert into.equal(into.bfloat16().float())  # what comes before has run in half precision
    assert out.dtype == output.dtype == torch.float32
    torch.testing.assert_close(out, last(into.float()), rtol=1e-6, atol=1e-6)
    off_the_grid = out != out.bfloat16().float()
    assert off_the_grid.float().mean() > 0.9


@pytest.mark.parametrize("name", OUTPUTS)
def test_float64_stays_float64(name):
    network = OUTPUTS[name][0]().double()
    inputs = inputs_of(name)
    output = network([level.double() for level in inputs] if name.endswith("head") else inputs)
    assert output.dtype == torch.float64


def says(name, value):
    """What the network says under autocast whose last layer says `value` whatever comes in."""
    make, last_of = OUTPUTS[name]
    network = make()
    nn.init.zeros_(last_of(network).weight)
    nn.init.constant_(last_of(network).bias, value)
    return run(name, network, last_of(network))[0]


@pytest.mark.parametrize("name", STEERING)
def test_steering_near_100_degrees_is_not_rounded(name):
    """bf16 has steps of 0.8 degrees there."""
    torch.testing.assert_close(says(name, 1.0037), torch.full((2, 10), 1.0037))


@pytest.mark.parametrize("name", DEPTH)
def test_depth_near_16_metres_is_not_rounded(name):
    """bf16 has steps of 0.2 % in the log depth there; these are of 0.01 %."""
    make, last_of = OUTPUTS[name]
    start = last_of(make()).bias.item()
    depths = torch.stack([says(name, start + step / 10_000).mean() for step in range(10)])
    torch.testing.assert_close(depths.diff() / 16, torch.full((9,), 1e-4), rtol=0.05, atol=0)
