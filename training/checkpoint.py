"""Checkpoints: everything that a run needs to go on as if it had never been interrupted."""

import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.files import whole_file
from errors import UserError

FORMAT = 3  # since it holds what the labels of its data sets said


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; it is on the disk when this returns."""
    with whole_file(path, durable=True) as file:
        torch.save({"format": FORMAT, **content}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. UserError where there is none, or another version wrote it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a checkpoint such as runs/NAME/best.pt") from None
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        raise UserError(f"{path} is not a checkpoint of this project ({type(error).__name__})") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        older = f"; an older version wrote it, in format {found}: train again" if found in (1, 2) else ""
        raise UserError(f"{path} is not a checkpoint of this project's format {FORMAT}{older}")
    return content


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite. One transfer a device."""
    floating = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    finite: list[bool] = []
    for _, same_device in groupby((tensor for _, tensor in floating), key=lambda tensor: tensor.device):
        finite += torch.stack([tensor.isfinite().all() for tensor in same_device]).tolist()
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
