"""Losses, metrics, decoding, augmentation, networks and heads on the device against the CPU."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.samples import Batch, Collate, Sample
from datasets.transforms import Augmentation
from models.encoder import ENCODERS, make_encoder
from models.memory_format import lay_out
from models.multitask import BACKBONE, MultiTask
from models.registry import HEADS, NETWORKS, Part
from tasks import TASKS
from tasks.base import Task
from tasks.box import BoxLabel
from tasks.depth_unit import STEPS_PER_METRE, metres
from tests.parts import head_of, network_of
from training.config import method_settings
from training.evaluation import rows_of
from training.methods import METHODS, Context
from training.methods.base import Balancing
from training.methods.rows import Rows

SIDE, SAMPLES, CHANNELS = 64, 4, 16
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
PRECISIONS = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])
SETTINGS = {"box": {"grid": 4, "predictors": 2}}
SMALL = {
    "unet": {"base_channels": 4},
    "lraspp": {"encoder": "small", "pretrained": "none"},
    "pilotnet": {},
    "yolov1": {"base_channels": 4, "pairs": [1]},
    "densedepth": {"encoder": "small", "pretrained": "none"},
}


def raw_labels() -> dict[str, list[Any]]:
    """Task -> labels of SAMPLES frames, as `read` gives them."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.5, (SAMPLES, 5, 2))
    depth = random.integers(0, 80, (SAMPLES, SIDE, SIDE)).astype(np.uint16) * STEPS_PER_METRE
    depth[:, :, ::3] = 0  # not measured
    return {
        "segmentation": list(np.where(random.random((SAMPLES, SIDE, SIDE)) < 0.1, 255, depth // 5000).astype(np.uint8)),
        "steering": list(random.uniform(-90, 90, (SAMPLES, 10)).astype(np.float32)),
        "box": [BoxLabel(np.hstack([c, c + 0.3]).astype(np.float32), random.integers(0, 14, 5)) for c in corners],
        "depth": list(depth),
    }


def made(name: str, **settings: Any) -> Task:
    task = TASKS[name](TASKS[name].Settings(**SETTINGS.get(name, {}), **settings), spec=LABELS.get(name))
    task.fit(raw_labels()[name])
    return task


def default_network(task: str) -> nn.Module:
    return network_of(made(task), **SMALL[TASKS[task].default_network])


def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (SAMPLES, 3, SIDE, SIDE), np.uint8))


def moved(target: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device) for key, value in target.items()}


def output_of(name: str) -> Tensor:
    """What an untrained network says, with some noise, float64 on the CPU."""
    torch.manual_seed(0)
    output = default_network(name).double()(images()).detach()
    return output * (1 + 0.1 * torch.rand_like(output))


# ---- tasks -----------------------------------------------------------------------------------------------------------


def choices() -> Iterator[Any]:
    """Tasks with their own settings, and with each that a choice of words leaves beside them."""
    for name, task in TASKS.items():
        yield pytest.param(name, {}, id=name)
        for key, field in task.Settings.model_fields.items():
            for value in get_args(field.annotation) if get_origin(field.annotation) is Literal else ():
                if value != field.default:
                    yield pytest.param(name, {key: value}, id=f"{name} {key}={value}")


@PRECISIONS
@pytest.mark.parametrize(("name", "settings"), [*choices()])
def test_loss(name: str, settings: dict[str, str], dtype: torch.dtype, device: torch.device) -> None:
    """Values, validity and gradient."""
    task = made(name, **settings)
    target = task.collate([None, *raw_labels()[name][1:]])
    found = []
    for place in (torch.device("cpu"), device):
        output = output_of(name).to(place, dtype).requires_grad_()
        losses, valid = task.loss(output, moved(target, place))
        torch.where(valid, losses, 0).sum().backward()
        found.append([losses.detach().cpu(), valid.cpu(), output.grad.cpu()])
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@PRECISIONS
@pytest.mark.parametrize("name", TASKS)
def test_decode_and_metric(name: str, dtype: torch.dtype, device: torch.device) -> None:
    task = made(name)
    target = task.collate(raw_labels()[name])
    found = []
    for place in (torch.device("cpu"), device):
        metric = task.metric().to(place)
        metric.update(task.decode(output_of(name).to(place, dtype)), moved(target, place))
        found.append(metric.compute())
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-3, nan_ok=True)


@pytest.mark.parametrize("name", ["segmentation", "depth"])
def test_judged_at_the_size_of_larger_labels(name: str, device: torch.device) -> None:
    """--full-resolution."""
    task, found = made(name), []
    larger = [np.kron(label, np.ones((2, 2), label.dtype)) for label in raw_labels()[name]]
    for place in (torch.device("cpu"), device):
        target = moved(task.collate(larger), place)
        metric = task.metric().to(place)
        metric.update(task.decode(task.at_size_of(target, output_of(name).to(place))), target)
        found.append(metric.compute())
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-3, nan_ok=True)


def test_images_are_decoded_on_the_device(device: torch.device) -> None:
    """data.decode: device. nvJPEG's bytes differ from the CPU's by a few units."""
    smooth = np.mgrid[:SIDE, :SIDE][0].astype(np.uint8)[:, :, None].repeat(3, 2)
    jpeg = torch.from_numpy(cv2.imencode(".jpg", smooth)[1])
    found = [
        Batch([], torch.empty(0), {}, {}, encoded=[jpeg, jpeg]).to(torch.device(d)).images for d in ("cpu", device)
    ]
    assert found[1].shape == (2, 3, SIDE, SIDE)
    assert (found[1].cpu().int() - found[0].int()).abs().max() <= 4


@pytest.mark.parametrize("name", TASKS)
def test_flip(name: str, device: torch.device) -> None:
    task = made(name)
    target, flip = task.collate(raw_labels()[name]), torch.tensor([True, False, False, True])
    on_device, expected = task.hflip(moved(target, device), flip.to(device)), task.hflip(target, flip)
    assert all(torch.equal(on_device[key].cpu(), value) for key, value in expected.items())


def test_uint16(device: torch.device) -> None:
    """Depth labels stay uint16 until the loss: copied, picked, made metres of."""
    depth = torch.from_numpy(np.array([[0, 1, 256], [40_000, 65_535, 7]], np.uint16))
    on_device = depth.to(device, non_blocking=True)
    assert torch.equal(on_device.cpu(), depth)
    assert torch.equal(metres(on_device, torch.float64).cpu(), metres(depth, torch.float64))
    assert torch.equal(rows_of(on_device, [1]).cpu(), depth[1:])


def test_augmentation(device: torch.device) -> None:
    """Labels are the same; an image's bytes differ by one where a product was rounded the other way."""
    tasks, labels = {name: made(name) for name in TASKS}, raw_labels()
    items = [
        {
            "sample": Sample(Frame("a2d2", "20180807_145028", f"{i:09d}"), tuple(TASKS)),
            "nth": 0,
            "image": images()[i].permute(1, 2, 0),
            "labels": {name: labels[name][i] if name != "box" or i else None for name in TASKS},
        }
        for i in range(SAMPLES)
    ]
    batch = Collate(tasks)(items)
    augment = Augmentation(hflip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, seed=0)
    expected, found = augment(batch, tasks, 0), augment(batch.to(device), tasks, 0)
    difference = (found.images.cpu().int() - expected.images.int()).abs()
    assert difference.max() <= 3  # one unit of each adjustment, amplified by the next
    assert (difference > 0).float().mean() < 0.01
    for name, target in expected.targets.items():
        assert all(torch.equal(found.targets[name][key].cpu(), value) for key, value in target.items())


@pytest.mark.gpu_only
def test_pinned_memory() -> None:
    batch = Batch([], images().permute(0, 1, 3, 2), {"depth": {"depth": torch.zeros(2, dtype=torch.uint16)}}, {})
    pinned = batch.pin_memory()
    assert pinned.images.is_pinned()
    assert pinned.targets["depth"]["depth"].is_pinned()
    assert pinned.images.stride() == batch.images.stride()
    assert torch.equal(pinned.to(torch.device("cuda")).images.cpu(), batch.images)


# ---- networks --------------------------------------------------------------------------------------------------------


def multi_task(encoder: str, norm: str = "group", **named: str) -> MultiTask:
    """named: task -> its head, where it is not the task's own."""
    if encoder.startswith("timm/"):
        pytest.importorskip("timm")
    named = {name: {"name": named[name]} if name in named else {} for name in TASKS}
    heads = {name: head_of(made(name), CHANNELS, **named[name]) for name in TASKS}
    return MultiTask(encoder=make_encoder(encoder, norm), channels=CHANNELS, layers=1, heads=heads)


def task_for(part: Part) -> str:
    """One whose output a network or head gives."""
    return next(name for name in TASKS if made(name).outputs().keys() == part.outputs.keys())


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"network {name}": lambda name=name: network_of(made(task_for(NETWORKS[name])), name=name, **SMALL[name])
        for name in NETWORKS
    },
    **{f"encoder {name}": lambda name=name: multi_task(name) for name in [*ENCODERS, "timm/tf_efficientnet_lite0"]},
    **{f"head {name}": lambda name=name: multi_task("small", **{task_for(HEADS[name]): name}) for name in HEADS},
    "norm frozen": lambda: multi_task("small", "frozen"),
    "norm train": lambda: multi_task("small", "train"),
}


def result(model: nn.Module, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs, and gradients of their sums."""
    model = model.to(device, dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    given = (images().to(device),)
    if isinstance(model, MultiTask):
        places = torch.tensor([0, 2], device=device)
        given = (*given, {name: places if name == "steering" else None for name in TASKS})
    outputs = model(*given)
    outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
    sum(output.sum() for output in outputs.values()).backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: output.detach().cpu() for name, output in outputs.items()}, gradients


def far(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> list[str]:
    """The tensors that differ, relative to their own length or a thousandth of the longest: some are zero but for
    rounding."""
    longest = max(float(tensor.norm()) for tensor in expected.values())
    return [
        name
        for name, tensor in expected.items()
        if (found[name] - tensor).norm() > tolerance * max(float(tensor.norm()), 1e-3 * longest)
    ]


@PRECISIONS
@pytest.mark.parametrize("name", MODELS)
def test_network(name: str, dtype: torch.dtype, device: torch.device) -> None:
    found = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        found.append(result(MODELS[name](), dtype, place))
    tolerance = 1e-8 if dtype == torch.float64 else 5e-2  # float32 gradients through tens of layers
    for ours, expected in zip(found[1], found[0], strict=True):
        assert ours.keys() == expected.keys()
        assert far(ours, expected, tolerance) == []


def test_channels_last(device: torch.device) -> None:
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = multi_task("small", "frozen").double()
        lay_out(model, channels_last=channels_last)
        weights = [p for p in model.encoder.parameters() if p.ndim == 4]
        assert any(not weight.is_contiguous() for weight in weights) == channels_last
        found.append(result(model, torch.float64, device))
    for ours, expected in zip(found[1], found[0], strict=True):
        assert far(ours, expected, 1e-8) == []


# ---- balancing -------------------------------------------------------------------------------------------------------


def balancing_of(name: str, model: MultiTask) -> Balancing:
    kinds = {task: TASKS[task].likelihood for task in TASKS}
    context = Context(dict.fromkeys(TASKS, 0.5), kinds, model.groups())
    return METHODS[name].make(method_settings(name), context)


@pytest.mark.parametrize("name", METHODS)
def test_balancing(name: str, device: torch.device) -> None:
    """The gradient of the backbone after two micro-batches."""
    found = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        model = multi_task("small").to(place, torch.float64)
        balancing, tasks = balancing_of(name, model), {task: made(task) for task in TASKS}
        for part in (slice(0, 2), slice(2, 4)):
            outputs = model(images()[part].to(place), dict.fromkeys(TASKS))
            targets = {task: moved(tasks[task].collate(raw_labels()[task][part]), place) for task in TASKS}
            both = {task: tasks[task].loss(outputs[task], targets[task]) for task in TASKS}
            balancing.backward(*({task: pair[i] for task, pair in both.items()} for i in (0, 1)))
        if isinstance(balancing, Rows):
            balancing.aggregate(SAMPLES)
        found.append(torch.cat([p.grad.flatten().cpu() for p in model.groups()[BACKBONE]]))
    if name in ("graddrop", "random"):  # their random numbers are the device's
        assert found[1].isfinite().all()
    else:
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6 * float(found[0].norm()))
