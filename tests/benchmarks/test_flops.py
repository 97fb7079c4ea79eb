"""Counted FLOPs are those that follow from the layers' sizes, and the README's table is made of them."""

import torch
from torch import nn

from benchmarks.balancing import count
from benchmarks.flops import flop_counter, flops_of_visits
from benchmarks.readme import balancing_flops_table
from training.config import GroupConfig, NetworkConfig, TrainingConfig
from training.runs import ASYMMETRIC, AsymmetricRun

SIZE = (64, 64)


def counted(layer: nn.Module, *shape: int) -> int:
    """Forward and backward, to the input as well."""
    with flop_counter() as counter:
        layer(torch.zeros(*shape, requires_grad=True)).sum().backward()
    return counter.get_total_flops()


def test_a_convolution_goes_backward_at_twice_its_forward_cost() -> None:
    forward = 2 * (3 * 3 * 4 * 6) * (8 * 8) * 2  # weights, places, images; multiply and add
    assert counted(nn.Conv2d(4, 6, 3, padding=1, bias=False), 2, 4, 8, 8) == 3 * forward


def test_groups_divide_the_cost_of_the_backward_pass_too() -> None:
    whole = counted(nn.Conv2d(8, 8, 3, padding=1, bias=False), 1, 8, 8, 8)
    assert counted(nn.Conv2d(8, 8, 3, padding=1, bias=False, groups=8), 1, 8, 8, 8) == whole / 8


def test_a_transposed_convolution() -> None:
    forward = 2 * (2 * 2 * 4 * 6) * (8 * 8)
    assert counted(nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), 1, 4, 8, 8) == 3 * forward


def asymmetric(visit: str, similarity_every: int = 0) -> AsymmetricRun:
    group = {"batch_size": 2, "learning_rate": 0.001}
    return AsymmetricRun(
        training=TrainingConfig(epochs=1, similarity_every=similarity_every),
        network=NetworkConfig(encoder="small", pretrained="none", channels=8, layers=1),
        micro_batch_size=2,
        visit=visit,
        backbone=GroupConfig(**group),
        tasks={"steering": group, "segmentation": group},
    ).of_mode(ASYMMETRIC)


def test_labels_visited_one_by_one_pass_the_backbone_as_often() -> None:
    (together,) = flops_of_visits(asymmetric("frame"), SIZE)
    one_by_one = flops_of_visits(asymmetric("label"), SIZE)
    assert len(one_by_one) == 2
    assert max(one_by_one) < together < sum(one_by_one) < 2 * together


def test_measuring_similarity_is_left_out() -> None:
    once = flops_of_visits(asymmetric("frame"), SIZE)
    assert flops_of_visits(asymmetric("frame", similarity_every=1), SIZE) == once


def test_balancing_by_gradients_goes_backward_once_a_task() -> None:
    fixed, by_gradients = count(["demo"], ["fixed", "upgrad"])
    assert fixed["ratio"] == 1
    assert 1 < by_gradients["ratio"] < 3  # four times through the backbone backward, once forward and through the heads
    last = balancing_flops_table({"rows": [fixed, by_gradients]}).splitlines()[-1]
    assert last.startswith("| demo, 160 x 96 | by gradients (upgrad, pcgrad, ...) |")
