"""Flags of scripts: types for argparse, whose message names the flag and what it takes, and flags that many share."""

import argparse
from collections.abc import Callable

MAX_SEEDS = 1000  # of a study
MAX_WORKERS = 1024  # loader processes; more than a node has cores never begin to load


def whole(least: int, most: int = 2**31) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or len(text) > 20 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number {_range(least, most)}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:  # false for NaN as well
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from {least} to {most}")
        return value

    return read


def shard_of(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    parts = text.split("/")
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) <= 20]
    if not len(parts) == len(numbers) == 2 or not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not I/N with 1 <= I <= N, such as 2/8")
    return numbers[0], numbers[1]


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """--device; None where it is not given: what there is, is known once torch is loaded."""
    parser.add_argument(
        "--device", help="such as cpu, cuda or cuda:1 (default: cuda where there is a GPU, else cpu)", metavar="DEVICE"
    )


def add_dashboard_arguments(
    parser: argparse.ArgumentParser, mode: str, otherwise: str, *, group: str, tags: str
) -> None:
    """--wandb and where a run stands on the dashboard.

    mode: the default; otherwise: what has the numbers in any case; group, tags: the other defaults, in words.
    """
    parser.add_argument(
        "--wandb",
        choices=["auto", "online", "offline", "disabled"],
        default=mode,
        help=f"default {mode}; auto: online where you are logged in, else offline; {otherwise}",
    )
    parser.add_argument(
        "--wandb-group",
        metavar="NAME",
        help=f"of the run on the dashboard, such as sizes (default $WANDB_RUN_GROUP, else {group})",
    )
    parser.add_argument(
        "--wandb-project", metavar="NAME", help="such as driving (default $WANDB_PROJECT, else a2d2-multitask)"
    )
    parser.add_argument(
        "--wandb-tags", metavar="TAG", nargs="+", help=f"such as small first (default $WANDB_TAGS, else {tags})"
    )


def _range(least: int, most: int) -> str:
    return f"of at least {least}" if most == 2**31 else f"from {least} to {most}"
