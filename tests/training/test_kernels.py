"""What a GPU gets, counted on a CPU: few kernels and few messages, and nothing from pageable memory."""

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from datasets import transforms
from datasets.frames import Frame
from datasets.samples import Batch, Collate, Sample
from datasets.transforms import Augmentation
from models.single import SingleTask
from training import distributed
from training.averaging import MovingAverage
from training.config import GroupConfig
from training.start import set_determinism
from training.updates import Group

CONFIG = GroupConfig(batch_size=1, learning_rate=0.1)


class Calls(TorchDispatchMode):
    """The names of the operators that are called, those that only look at a tensor aside."""

    LOOKS = ("detach", "view", "alias", "expand", "permute", "select", "slice", "unsqueeze", "t", "transpose", "unbind")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call.overloadpacket.__name__ not in self.LOOKS:
            self.names.append(call.overloadpacket.__name__)
        return call(*args, **(kwargs or {}))


# ---- updates ---------------------------------------------------------------------------------------------------------


def kernels(group: Group) -> set[Any]:
    return {options["fused"] for options in group.optimizer.param_groups}


def group_of(device: str) -> Group:
    parameters = [nn.Parameter(torch.zeros(*shape, device=device)) for shape in ((3, 3), (3,))]
    return Group("a", parameters, CONFIG, 1.0)


def test_the_optimiser_is_fused_on_a_gpu() -> None:
    with FakeTensorMode():
        assert kernels(group_of("cuda")) == {True}
    assert kernels(group_of("cpu")) == {None}


def test_a_resumed_optimiser_has_the_kernels_of_its_device() -> None:
    """Not those of the device that the checkpoint was written on."""
    group = group_of("cpu")
    state = group.state()
    for options in state["optimizer"]["param_groups"]:
        options["fused"] = True
    group.load_state(state)
    assert kernels(group) == {None}


def test_gradients_are_clipped_together() -> None:
    group = group_of("cpu")
    for parameter in group.parameters:
        parameter.grad = torch.ones_like(parameter)
    group.count = 1
    with Calls() as calls:
        group.prepare(1.0)
    assert "_foreach_norm" in calls.names
    assert calls.names.count("linalg_vector_norm") <= 1  # of the tensors' norms


def test_an_average_of_weights_takes_one_kernel_and_no_look_at_buffers() -> None:
    network = SingleTask("a", nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(5))))
    average = MovingAverage(network, copy.deepcopy(network), 0.9)
    average.update()
    with Calls() as calls:
        average.update()
    assert calls.names == ["_foreach_lerp_"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_looks_for_the_fastest_algorithm_where_it_may(deterministic: bool) -> None:
    set_determinism(deterministic)
    try:
        assert torch.backends.cudnn.benchmark is not deterministic
    finally:
        set_determinism(False)
        torch.backends.cudnn.benchmark = False


# ---- several processes -----------------------------------------------------------------------------------------------


class Message:
    def __init__(self, log: list[str]):
        self.log = log

    def wait(self) -> None:
        self.log.append("wait")


def test_gradients_are_exchanged_in_few_messages_all_sent_before_one_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    def all_reduce(tensor: Tensor, async_op: bool = False) -> Message:
        log.append(f"send {tensor.nbytes}")
        tensor.mul_(2)
        return Message(log)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    small, large = [torch.full((100,), float(i)) for i in range(50)], [torch.ones(3_000_000) for _ in range(6)]
    distributed.sum_in_buckets([*small, *large])
    sent = [line for line in log if line.startswith("send")]
    assert len(sent) <= 1 + 6 * 12_000_000 // distributed.BUCKET + 1
    assert log == [*sent, *["wait"] * len(sent)]
    assert all(torch.equal(tensor, torch.full((100,), 2.0 * i)) for i, tensor in enumerate(small))


# ---- batches ---------------------------------------------------------------------------------------------------------


def batch_of(count: int) -> Batch:
    samples = [Sample(Frame("a2d2", "scene", f"{i:03d}"), ()) for i in range(count)]
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(samples, images, {}, {}, [0] * count)


def augmented(count: int) -> list[str]:
    augmentation = Augmentation(hflip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, seed=0)
    with Calls() as calls:
        augmentation(batch_of(count), {}, 0)
    return calls.names


def test_augmentation_takes_as_many_kernels_for_eight_images_as_for_one() -> None:
    assert len(augmented(8)) == len(augmented(1)) < 60


def test_what_augmentation_draws_is_pinned_before_a_gpu_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: steps.append("pinned") or tensor)
    monkeypatch.setattr(Tensor, "to", lambda tensor, device, non_blocking: steps.append(non_blocking) or tensor)
    transforms._on(torch.device("cuda"), torch.zeros(2))
    assert steps == ["pinned", True]


def test_a_batch_of_images_is_stacked_as_they_lie_and_permuted_after() -> None:
    """Height x width x 3: stacking what is permuted already takes ten times as long."""
    image = torch.zeros(8, 8, 3, dtype=torch.uint8)
    items = [
        {"sample": Sample(Frame("a2d2", "s", str(i)), ()), "nth": 0, "image": image, "labels": {}} for i in range(3)
    ]
    with Calls() as calls:
        images = Collate({})(items).images
    assert images.shape == (3, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert calls.names in (["stack"], ["cat"])
