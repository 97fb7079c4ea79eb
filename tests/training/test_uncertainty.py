"""Uncertainty weights reach their optimum under the shipped schedules: real rates, real batch sizes, real steps."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.a2d2.spec import LABELS
from tasks import TASKS
from training.build import make_groups
from training.config import load_config
from training.methods.fixed import Fixed
from training.methods.uncertainty import Uncertainty
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SymmetricRun
from training.summary import unused_weights
from training.updates import LossScale, Schedule, Updates

CONFIGS = Path(__file__).parents[2] / "configs"
FRAMES = 2_500  # a quarter of A2D2: what is reached in its steps is reached in more
LOSSES = {"steering": 0.03, "segmentation": 0.5, "depth": 0.2, "box": 20.0}  # configs/symmetric_conf.yaml names them


class Stub(nn.Module):
    """One parameter a head, and losses that do not depend on it: what is left to learn are the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in TASKS})

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: [parameter] for name, parameter in self.parts.items()}


def trained(config: RunConfig, frames: int = FRAMES) -> Uncertainty:
    """All epochs over frames that have all labels; losses scatter around their means by a factor of 1.6."""
    model = Stub()
    likelihoods = {name: task.likelihood for name, task in config.make_tasks(LABELS).items()}
    balancing = Uncertainty(likelihoods, learning_rate=config.balancing.learning_rate)
    block = config.portions().block_size
    planned = config.training.epochs * frames
    updates = Updates(
        make_groups(config, model, balancing),
        schedule=Schedule.over(planned, config.training.warmup),
        loss_scale=LossScale(enabled=False),
        together=config.steps_together,
    )
    generator, valid = torch.Generator().manual_seed(0), torch.ones(block, dtype=torch.bool)
    for _ in range(planned // block):
        scatter = (0.5 * torch.randn(len(LOSSES), block, generator=generator) - 0.125).exp()  # mean 1
        losses = {task: LOSSES[task] * factors for task, factors in zip(LOSSES, scatter, strict=True)}
        balancing.backward(losses, dict.fromkeys(losses, valid))
        updates.add(block, dict.fromkeys(losses, block))
        updates.step_full_groups()
    return balancing


def optimum(task: str) -> float:
    """Where e^-s L / 2 + s / 2 (regression) or e^-s L + s / 2 (classification) is least."""
    return math.log(LOSSES[task] * (1 if TASKS[task].likelihood == "regression" else 2))


@pytest.mark.parametrize(
    ("kind", "mode", "name"),
    [(SymmetricRun, SYMMETRIC, "symmetric_conf.yaml"), (AsymmetricRun, ASYMMETRIC, "asymmetric_conf.yaml")],
)
def test_all_log_variances_reach_their_optimum(kind: type[RunConfig], mode: str, name: str) -> None:
    config = load_config(kind, CONFIGS / name, ["balancing=uncertainty"]).of_mode(mode)
    balancing = trained(config)
    for task, s in balancing.s.items():
        assert abs(s.item() - optimum(task)) < 0.1, task


def test_at_the_heads_own_rate_they_would_not() -> None:
    """What the rate is for: box's head learns at 0.00001 in the asymmetric config."""
    changes = ["balancing={name: uncertainty, learning_rate: 0.00001}", "training.epochs=5"]
    config = load_config(AsymmetricRun, CONFIGS / "asymmetric_conf.yaml", changes).of_mode(ASYMMETRIC)
    assert optimum("box") - trained(config).s["box"].item() > 3


def test_the_losses_are_those_that_the_config_names() -> None:
    text = (CONFIGS / "symmetric_conf.yaml").read_text()
    assert all(f"{task} {loss:g}" in text for task, loss in LOSSES.items())


def test_the_start_says_that_weights_of_the_config_are_not_used() -> None:
    path, changes = CONFIGS / "demo" / "symmetric.yaml", ["tasks.depth.weight=1"]
    learnt = Uncertainty({}, learning_rate=1.0)
    config = load_config(SymmetricRun, path, changes).of_mode(SYMMETRIC)
    assert list(unused_weights(config, learnt)) == [
        "the balancing learns its own weights: tasks.NAME.weight of segmentation, steering, box is not used"
    ]
    assert not list(unused_weights(config, Fixed({})))
    assert not list(unused_weights(config.of_mode("depth"), learnt))
