"""Checkpoints: everything that a run needs to go on as if it had never been interrupted."""

import subprocess
from pathlib import Path
from typing import Any

import torch

from datasets.files import whole_file
from errors import UserError

FORMAT = 2  # 2: with `norm` in the config


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
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this project (format {FORMAT})")
    return content


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
