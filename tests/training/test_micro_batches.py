"""How samples are cut into micro-batches does not change what is learnt: the networks of the shipped configs.

Encoder, channels and images are reduced to what a CPU does in seconds. ImageNet's weights are not there, so pretrained
encoders start from a file that is written here, with the statistics of images that they have seen. In float64: in
float32 rounding now and then decides which of two predictors of a cell answers for a box, and gradients are swapped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.a2d2.spec import LABELS
from models.densedepth import DenseDepth
from models.encoder import Encoder
from models.multitask import BACKBONE, MultiTask
from tasks.base import Task
from tasks.box import BoxLabel
from tasks.depth_unit import STEPS_PER_METRE
from tests.conftest import ROOT
from training.config import load_config
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

SIDE, SAMPLES = 64, 16
KINDS = {"single_task": SingleTaskRun, "symmetric": SymmetricRun, "asymmetric": AsymmetricRun}
# mode of the shipped config -> its kind, the section of its norm, and what makes it small
MODES = {
    "segmentation": ("single_task", "tasks.segmentation.network", {"base_channels": 8}),
    "steering": ("single_task", "tasks.steering.network", {}),
    "box": ("single_task", "tasks.box.network", {"base_channels": 8}),
    "depth": ("single_task", "tasks.depth.network", {"encoder": "small", "pretrained": "densenet.pt"}),
    SYMMETRIC: ("symmetric", "network", {"encoder": "small", "pretrained": "resnet.pt", "channels": 16}),
    ASYMMETRIC: ("asymmetric", "network", {"encoder": "small", "pretrained": "resnet.pt", "channels": 16}),
}
NORMS = {mode: "frozen" if "pretrained" in small else "group" for mode, (_, _, small) in MODES.items()}


def images() -> Tensor:
    """SAMPLES pictures, each in its own light."""
    generator = torch.Generator().manual_seed(0)
    light = torch.rand(SAMPLES, 3, 1, 1, generator=generator)
    patches = torch.rand(SAMPLES, 3, 8, 8, generator=generator)
    return (255 * light * nn.functional.interpolate(patches, (SIDE, SIDE), mode="bilinear")).to(torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of weights as ImageNet's are: batch norm with statistics of images."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("weights")
    resnet, densenet = Encoder(name="small", norm="train"), DenseDepth(median_depth=15, encoder="small", norm="train")
    for network, encoder, name in ((resnet, resnet.resnet, "resnet"), (densenet, densenet.encoder, "densenet")):
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        for _ in range(30):
            network.train()(images())
        torch.save(encoder.state_dict(), folder / f"{name}.pt")
    return folder


def made(mode: str, weights: Path, *more: str) -> tuple[RunConfig, nn.Module, dict[str, Task]]:
    """The mode's network as it starts to train."""
    kind, section, small = MODES[mode]
    if "pretrained" in small:
        small = small | {"pretrained": weights / small["pretrained"]}
    overrides = [f"{section}.{key}={value}" for key, value in small.items()]
    config = load_config(KINDS[kind], ROOT / "configs" / f"{kind}_conf.yaml", [*overrides, *more]).of_mode(mode)
    torch.manual_seed(0)
    tasks = config.make_tasks(LABELS)
    for task in tasks.values():
        task.fit([])
    model = config.make_model(tasks)
    config.load_pretrained(model, tasks)
    return config, model.double().train(), tasks


def labels_of(mode: str, tasks: dict[str, Task]) -> dict[str, list[Any | None]]:
    """Task -> a label for each sample; in asymmetric training each sample has one of them."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.5, (SAMPLES, 4, 2))
    labels = {
        "steering": random.uniform(-90, 90, (SAMPLES, 10)).astype(np.float32),
        "segmentation": enlarged(random.integers(0, 38, (SAMPLES, 4, 4), np.uint8)),
        "depth": enlarged(random.integers(2, 80, (SAMPLES, 4, 4)).astype(np.uint16) * STEPS_PER_METRE),
        "box": [BoxLabel(np.hstack([c, c + 0.3]).astype(np.float32), random.integers(0, 14, 4)) for c in corners],
    }
    names = list(tasks)
    return {
        name: [label if mode != ASYMMETRIC or i % len(names) == place else None for i, label in enumerate(labels[name])]
        for place, name in enumerate(names)
    }


def enlarged(maps: np.ndarray) -> np.ndarray:
    """B x 4 x 4 -> B x SIDE x SIDE."""
    return maps.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)


def micro_batches(mode: str, tasks: dict[str, Task], size: int) -> Iterator[tuple[Tensor, dict[str, Any], Any]]:
    """Images, targets and places, as in a Batch."""
    pictures, labels = images(), labels_of(mode, tasks)
    for start in range(0, SAMPLES, size):
        part = slice(start, start + size)
        places = {name: [i for i, label in enumerate(labels[name][part]) if label is not None] for name in tasks}
        targets = {
            name: tasks[name].collate([labels[name][part][i] for i in found]) for name, found in places.items() if found
        }
        yield pictures[part], targets, {name: torch.tensor(places[name]) for name in targets}


def gradient(mode: str, made: tuple[RunConfig, nn.Module, dict[str, Task]], size: int) -> Tensor:
    """Of the backbone, after all samples in micro-batches of `size`."""
    config, model, tasks = made
    balancing = config.make_balancing(model, tasks)
    model.zero_grad()
    for pictures, targets, places in micro_batches(mode, tasks, size):
        outputs = model(pictures, places)
        results = {name: tasks[name].loss(outputs[name], target) for name, target in targets.items()}
        balancing.backward(
            {n: loss for n, (loss, _) in results.items()}, {n: valid for n, (_, valid) in results.items()}
        )
    return torch.cat([p.grad.flatten() for p in backbone(model) if p.grad is not None])


def backbone(model: nn.Module) -> list[nn.Parameter]:
    """Shared parameters; of a single-task network the encoder, where it has one, else all."""
    if isinstance(model, MultiTask):
        return model.groups()[BACKBONE]
    return list(getattr(model.network, "encoder", model.network).parameters())


def cosines(mode: str, weights: Path, sizes: list[int], *more: str) -> list[float]:
    """Of the gradient with micro-batches of these sizes to that of all samples at once."""
    network = made(mode, weights, *more)
    whole = gradient(mode, network, SAMPLES)
    assert whole.isfinite().all()
    assert whole.norm() > 0
    return [torch.cosine_similarity(whole, gradient(mode, network, size), dim=0).item() for size in sizes]


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_does_not_depend_on_the_micro_batch(mode: str, weights: Path) -> None:
    assert min(cosines(mode, weights, [1, 2, 4, 8])) > 1 - 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_with_norm_train_it_does(mode: str, weights: Path) -> None:
    """So the test above can fail."""
    _, section, _ = MODES[mode]
    assert max(cosines(mode, weights, [1, 2], f"{section}.norm=train")) < 0.9


@pytest.mark.parametrize("mode", MODES)
def test_these_are_the_norms_as_shipped(mode: str, weights: Path) -> None:
    """frozen for ImageNet's weights, as for those of a file; group for networks from random weights."""
    kind, section, _ = MODES[mode]
    shipped = load_config(KINDS[kind], ROOT / "configs" / f"{kind}_conf.yaml", [])
    assert norm_of(shipped, section) == norm_of(made(mode, weights)[0], section) == NORMS[mode]


def norm_of(config: RunConfig, section: str) -> str:
    return config.network.norm if section == "network" else config.tasks[section.split(".")[1]].network.norm


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric", "depth"])
def test_the_same_networks_from_random_weights(mode: str, weights: Path) -> None:
    _, section, _ = MODES[mode]
    config, *_ = made(mode, weights, f"{section}.pretrained=none")
    assert norm_of(config, section) == "group"
    assert min(cosines(mode, weights, [1, 4], f"{section}.pretrained=none")) > 1 - 1e-9
