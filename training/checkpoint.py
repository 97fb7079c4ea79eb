"""Checkpoints: everything that a run needs to go on as if it had never been interrupted."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.files import whole_file
from errors import UserError, chain
from models.tensor_files import read_tensors
from strict_yaml import validated
from training.checkpoint_schema import Content

FORMAT = 3  # since it holds what the labels of its data sets said


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; it is on the disk when this returns. UserError: the disk is full."""
    try:
        with whole_file(path, durable=True) as file:
            torch.save({"format": FORMAT, **content}, file)
    except (OSError, RuntimeError) as error:  # torch's writer adds an error of its own
        reason = next((cause.strerror for cause in chain(error) if isinstance(cause, OSError)), None)
        if reason is None:
            raise
        raise UserError(
            f"{path} can't be written: {reason}; the checkpoint from before is as it was: make space, then go on with "
            "--resume auto"
        ) from None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    UserError where there is none, another version wrote it, its bytes have changed since, an entry is missing or of
    another type than it should be, or weights, statistics or the optimisers' moments are not finite.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a checkpoint such as runs/NAME/best.pt")
    try:
        content = read_tensors(path)
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise UserError(f"{path} is not a checkpoint of this project ({why})") from None
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int or found != FORMAT:
        older = f"; an older version wrote it, in format {found}: train again" if found in (1, 2) else ""
        raise UserError(f"{path} is not a checkpoint of this project's format {FORMAT}{older}")
    validated(Content, content, f"{path} is no whole checkpoint; use another one")
    if what := first_not_finite(state_tensors(content)):
        raise UserError(f"{path} is of no use: {what} is not finite; use another checkpoint")
    return content


@contextmanager
def fitting(source: str) -> Iterator[None]:
    """UserError where a checkpoint's state does not fit into the network and optimisers that its config describes."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} does not fit the network that its own config describes: {reason}") from None


def state_tensors(content: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """What must be finite of a checkpoint or of Trainer.state, by name: weights, buffers, what tasks have learnt, and
    the optimisers' moments. (A pending fp16 gradient may overflow: its step drops it.)"""
    yield from content["model"].items()
    if average := content.get("average"):
        yield from ((f"{name} (not averaged)", value) for name, value in average["trained"].items())
    for task, learnt in content["tasks"].items():
        yield from ((f"{key} of {task}", value) for key, value in learnt.items())
    for name, group in content["updates"]["groups"].items():
        for moments in group["optimizer"]["state"].values():
            yield from ((f"{key} of {name}", value) for key, value in moments.items() if isinstance(value, Tensor))


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or does once it is float32, as networks are; None where
    all are finite. One transfer a device."""
    floating = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    finite: list[bool] = []
    for _, same_device in groupby((tensor for _, tensor in floating), key=lambda tensor: tensor.device):
        finite += torch.stack([tensor.float().isfinite().all() for tensor in same_device]).tolist()
    return next((name for (name, _), good in zip(floating, finite, strict=True) if not good), None)


def git_commit() -> str | None:
    """The commit that the code is at, '+' appended if files have changed since; None outside a checkout."""
    root = Path(__file__).parents[1]
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def random_states() -> dict[str, Any]:
    """torch's generators. Order and augmentation of samples need none: they are functions of seed and epoch."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
