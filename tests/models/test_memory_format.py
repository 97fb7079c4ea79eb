"""What the networks of the shipped configs would copy on a GPU, from fake tensors there: shapes and strides alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.a2d2.spec import LABELS
from models.memory_format import lay_out
from models.multitask import BACKBONE
from tests.conftest import ROOT
from training.config import load_config
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="fake CUDA tensors of a torch before 2.11 change their format with a driver only",
)
SIZE, SAMPLES = 64, 2
MODES = {
    "segmentation": ("single_task", SingleTaskRun),
    "steering": ("single_task", SingleTaskRun),
    "box": ("single_task", SingleTaskRun),
    "depth": ("single_task", SingleTaskRun),
    SYMMETRIC: ("symmetric", SymmetricRun),
    ASYMMETRIC: ("asymmetric", AsymmetricRun),
}
CHANNELS_LAST = {"depth", SYMMETRIC, ASYMMETRIC}  # those with an encoder of frozen norms


class Copies(TorchDispatchMode):
    """Counts the maps that a group norm would copy, and the convolutions by the format that they work in.

    Norms are counted as modules: older torch copies before the operator that it dispatches, newer torch inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norms, self.copied, self.convolutions = 0, 0, {"channels last": 0, "contiguous": 0}

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = call(*args, **(kwargs or {}))
        if call.overloadpacket.__name__ == "convolution" and outputs.shape[-1] > 1:
            self.convolutions["contiguous" if outputs.is_contiguous() else "channels last"] += 1
        return outputs

    def count_norm(self, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        self.norms += 1
        self.copied += not inputs[0].is_contiguous()


def on_fake_gpu(tensor: Tensor) -> Tensor:
    """Within FakeTensorMode: the same strides."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    return made.requires_grad_(tensor.requires_grad)


def network(mode: str) -> nn.Module:
    stem, kind = MODES[mode]
    config: RunConfig = load_config(kind, ROOT / f"configs/{stem}_conf.yaml", []).of_mode(mode)
    tasks = config.make_tasks(LABELS)
    for task in tasks.values():
        task.fit([])
    return config.make_model(tasks).train()


def copies(model: nn.Module) -> Copies:
    """Of a forward pass (autograd's engine and autocast ask for a real device)."""
    tasks = [name for name in model.groups() if name != BACKBONE]
    with FakeTensorMode(), Copies() as found:
        for module in model.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(found.count_norm)
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = {name: on_fake_gpu(tensor) for name, tensor in state.items()}
        images = torch.empty(SAMPLES, 3, SIZE, SIZE, dtype=torch.uint8, device="cuda")
        images = images.contiguous(memory_format=torch.channels_last)
        functional_call(model, state, (images, dict.fromkeys(tasks)))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_no_group_norm_copies_a_map(mode: str) -> None:
    model = network(mode)
    lay_out(model, channels_last=True)
    found = copies(model)
    assert found.copied == 0
    assert (found.norms > 0) == (mode != "depth")
    assert (found.convolutions["channels last"] > 0) == (mode in CHANNELS_LAST)


def test_with_channels_last_throughout_each_would() -> None:
    """What the parts' own formats are for."""
    model = network("segmentation").to(memory_format=torch.channels_last)
    model.network.normalise.memory_format = torch.channels_last
    found = copies(model)
    assert found.copied > found.norms / 2


def test_nothing_is_channels_last_where_it_is_not_wanted() -> None:
    model = network("depth")
    lay_out(model, channels_last=False)
    assert copies(model).convolutions["channels last"] == 0
