"""FLOPs of forward, losses and backward, counted on fake tensors (torch's FlopCounterMode): no GPU, no data.

Counted are convolutions and matrix products, a multiplication and an addition as two; norms, activations, resizing,
augmentation, decoding and the optimisers are not. What is counted is what the method asks for: nothing for kernels that
do more, nothing saved by those that do less.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.steps import Step
from training.runs import AsymmetricRun, RunConfig


def conv_backward_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    out_shape: Any = None,
) -> int:
    """Each of the two gradients, of the input and of the weights, costs what the forward pass costs.

    torch's own formula (2.14) forgets the groups in the weights' gradient: for the BiFPN's depthwise convolutions it
    counts as many times too much as they have channels.
    """
    return sum(output_mask[:2]) * conv_flop_count(x_shape, w_shape, grad_shape, transposed=transposed)


def flop_counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: conv_backward_flops})


def flops_of_visits(config: RunConfig, size: tuple[int, int]) -> list[float]:
    """FLOPs of each visit of a training frame that has the labels of all tasks of the mode; size: W, H in pixels.

    One visit, with all labels; one a label in asymmetric training with visit: label. Measurements of the gradients'
    similarity (training.similarity_every) are left out.
    """
    config = config.model_copy(update={"training": config.training.model_copy(update={"similarity_every": 0})})
    fake = FakeTensorMode()
    step = Step(config, size=size, fake=fake)
    targets = step.batch.targets
    by_label = isinstance(config, AsymmetricRun) and config.visit == "label"
    labels = [{name: target} for name, target in targets.items()] if by_label else [targets]
    return [flops_of_micro_batch(step, some, fake) / len(step.batch) for some in labels]


def flops_of_micro_batch(step: Step, targets: dict[str, dict[str, Tensor]], fake: FakeTensorMode) -> int:
    """Of `accumulate`, when the micro-batch's samples all have these labels."""
    step.batch = replace(step.batch, targets=targets, places=dict.fromkeys(targets))
    with fake, flop_counter() as counter:
        step.accumulate()
    return counter.get_total_flops()
