"""What costs time on a GPU though it changes no result, counted on the CPU: compiled graphs, waits for the device."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from models.multitask import BACKBONE
from tests.training.conftest import Workplace
from tests.training.test_asymmetric import make_plan, uneven_data
from training.loop import Trainer
from training.step import Sums, accumulate

__all__ = ["uneven_data"]


@pytest.fixture
def place(uneven_data: tuple[RawData, ProcessedData], tmp_path: Any) -> Workplace:
    return Workplace(*uneven_data, tmp_path)


# ---- torch.compile ---------------------------------------------------------------------------------------------------


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Parts are traced and counted, and run eagerly: no C++ compiler."""
    counter, compile_part = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: compile_part(part, backend=counter))
    torch._dynamo.reset()
    limit = "recompile" if hasattr(torch._dynamo.config, "fail_on_recompile_limit_hit") else "cache"  # before torch 2.7
    with torch._dynamo.config.patch({f"fail_on_{limit}_limit_hit": True}):
        yield counter
    torch._dynamo.reset()


def test_heads_that_see_another_number_of_samples_each_time_are_not_compiled_anew(
    place: Workplace, counter: CompileCounter
) -> None:
    """Past torch's limit a part would run eagerly for ever."""
    changes = ("training.epochs=3", "training.compile=true", "data.labels.regime=one")
    trainer = make_plan(place, *changes).trainer()
    seen, forwards = set(), trainer.model.forward

    def watched(images: torch.Tensor, places: dict[str, Any]) -> dict[str, Any]:
        seen.update((task, len(images) if where is None else len(where)) for task, where in places.items())
        return forwards(images, places)

    trainer.model.forward = watched
    trainer.train()
    parts = len(trainer.model.parts())
    assert parts == 6
    assert len(seen) > 8  # many sizes
    # at most: one size, any size, a single sample; to train and to validate
    assert parts <= counter.frame_count <= 6 * parts


def test_a_part_is_compiled_a_few_times_for_a_dozen_sizes(place: Workplace, counter: CompileCounter) -> None:
    """More than torch's limit, which would be reached with a graph for each."""
    model = make_plan(place, "training.compile=true").trainer().model
    images = torch.zeros(12, 3, 64, 64, dtype=torch.uint8)
    for count in range(1, 13):
        model(images, {task: torch.arange(count) for task in model.groups() if task != BACKBONE})
    parts = len(model.parts())
    assert parts <= counter.frame_count <= 3 * parts


def test_the_average_that_is_validated_is_compiled_as_well(place: Workplace, counter: CompileCounter) -> None:
    trainer = make_plan(place, "training.compile=true", "training.ema=0.9").trainer()
    assert trainer.judged is not trainer.model
    for network in (trainer.model, trainer.judged):
        assert all(part._compiled_call_impl is not None for part in network.parts())


def test_compiled_parts_give_the_same_losses(place: Workplace, counter: CompileCounter) -> None:
    states = []
    for compile_ in ("false", "true"):
        trainer = make_plan(place, "training.epochs=1", f"training.compile={compile_}", name=compile_).trainer()
        trainer.train()
        states.append(trainer.model.state_dict())
    assert counter.frame_count > 0
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-10)


# ---- waits for the device --------------------------------------------------------------------------------------------

TRANSFERS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero", "to_list"}


class Waits(TorchFunctionMode):
    """Counts what makes the CPU wait for a GPU: numbers that are read, and shapes that depend on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inner = _DataDependent(self.found)

    def __enter__(self) -> "Waits":
        self.inner.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.inner.__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = (resolve_name(function) or str(function)).rpartition(".")[2]
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if name in TRANSFERS and tensor is not None and not getattr(tensor, "on_host", False):
            self.found.append(name)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


class _DataDependent(TorchDispatchMode):
    """`images[mask]` and the like, below the functions that are called."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = call.overloadpacket.__name__
        by_mask = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in ("nonzero", "masked_select", "unique", "_unique2", "repeat_interleave"):
            self.found.append(name)
        return call(*args, **(kwargs or {}))


def waits_of_an_epoch(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Of the micro-batches, and of the borders of blocks."""
    found: dict[str, list[list[str]]] = {"_accumulate": [], "_close": []}

    def watched(name: str) -> None:
        original = getattr(trainer, name)

        def call(*args: Any) -> Any:
            with Waits() as waits:
                result = original(*args)
            found[name].append(waits.found)
            return result

        monkeypatch.setattr(trainer, name, call)

    for name in found:
        watched(name)
    monkeypatch.setattr(trainer.log, "write", lambda updates: None)  # a line that is due may read numbers
    # on the CPU it reads its count of steps; on CUDA it is one kernel
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimizer: None)
    trainer.train()
    return found


@pytest.mark.parametrize("balancing", ["fixed", "uncertainty"])
@pytest.mark.parametrize("kind", ["asymmetric", "symmetric"])
def test_the_device_is_waited_for_at_the_borders_of_blocks_alone(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, kind: str, balancing: str
) -> None:
    """Once for losses and counts; once more where groups step, for all of their gradients' norms."""
    found = waits_of_an_epoch(
        make_plan(place, "training.epochs=1", f"balancing={balancing}", kind=kind).trainer(), monkeypatch
    )
    assert len(found["_accumulate"]) > 2
    assert found["_accumulate"] == [[]] * len(found["_accumulate"])
    assert [len(waits) for waits in found["_close"]] == [2] * len(found["_close"])


def test_gradient_methods_wait_once_more(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the inner products of their rows. What TorchJD itself reads to solve for the weights is not counted."""
    trainer = make_plan(place, "training.epochs=1", "balancing=upgrad", kind="symmetric").trainer()

    def summed(jacobians: list[torch.Tensor], present: list[int]) -> None:
        for parameter, jacobian in zip(trainer.balancing.shared, jacobians, strict=True):
            parameter.grad = jacobian.sum(0)

    monkeypatch.setattr(trainer.balancing, "to_gradient", summed)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, clip, foreach: torch.zeros(()))
    found = waits_of_an_epoch(trainer, monkeypatch)
    assert found["_accumulate"] == [[]] * len(found["_accumulate"])
    assert [len(waits) for waits in found["_close"]] == [3] * len(found["_close"])


@pytest.mark.parametrize("balancing", ["dwa", "imtl_l", "stch"])
def test_scalarizations_wait_once_more_as_well(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, balancing: str
) -> None:
    plan = make_plan(place, "training.epochs=1", f"balancing={balancing}", "frames=complete", kind="symmetric")
    found = waits_of_an_epoch(plan.trainer(), monkeypatch)
    assert found["_accumulate"] == [[]] * len(found["_accumulate"])
    assert [len(waits) for waits in found["_close"]] == [3] * len(found["_close"])


def test_a_wait_is_seen() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        x.sum().item()
        x[x > 1]
        bool(x[0] > 1)
        x.tolist()
    assert sorted(waits.found) == ["__bool__", "index", "item", "tolist"]


def test_sums_of_nothing_are_nothing() -> None:
    """A process without a micro-batch takes part in none."""
    assert accumulate(nn.Identity(), None, {}, None, None) == Sums()
