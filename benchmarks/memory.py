"""Estimate the peak memory of training, without a GPU: does every mode of the shipped configs fit a card of 12 GB?

    python -m benchmarks.memory [--size 1024 1024] [--json FILE] [--check]

Method: the network, its optimisers and one micro-batch of made-up labels as fake tensors (torch's FakeTensorMode:
shapes and types, no content), in bf16 autocast; forward, the tasks' own losses, backward and step, while torch's
MemTracker adds up the tensors that are alive. The micro-batch is one in the middle of a batch, so gradients are pending
and AdamW has its states. All numbers are bytes (in the table: GB = 1e9 bytes):

    parameters    with buffers
    gradients     pending ones; for balancing by gradients one of the backbone a task
    optimiser     AdamW's two moments
    activations   what is left of the peak: inputs, activations, temporary tensors, bf16 copies of the weights
    total         the peak
    needed        with the margin: 10 % of the total for fragmentation and 0.8 GB for CUDA's context and libraries

Balancing by gradients costs the same whatever the method: `aggregate` itself, which depends on numbers and so can't run
on fake tensors, comes when the activations are gone.

--check: the same on the CPU with real tensors, at a small size, measured by the events of torch's allocator. It holds
the estimate of the activations to account; the other columns are the tensors' own sizes in both. Fake tensors do not
show temporary memory inside an operator, so on a network of a few MB the estimate is too low (steering in the README's
table); on the large ones, which decide whether a card suffices, it is within 7 % of the total.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.machine import describe_machine
from benchmarks.steps import Step, allocated_peak
from datasets.files import write_json
from training.config import load_config
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

CONFIGS = Path(__file__).parents[1] / "configs"
CARD = 12e9  # bytes
FRAGMENTATION, CUDA_CONTEXT = 0.1, 0.8e9  # a share of the total, bytes: see above
CHECK_SIZE = (128, 128)  # W H
BALANCING = {"fixed": "fixed", "uncertainty": "uncertainty", "upgrad": "by gradients (upgrad, pcgrad, ...)"}


@dataclass(frozen=True)
class Case:
    """What is estimated: one kind of micro-batch."""

    name: str
    config: RunConfig
    mode: str

    @property
    def micro_batch_size(self) -> int:
        return self.config.micro_batch_size_of(self.mode)


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak."""

    parameters: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    @property
    def needed(self) -> float:
        return (1 + FRAGMENTATION) * self.total + CUDA_CONTEXT

    @property
    def fits(self) -> bool:
        return self.needed <= CARD


def shipped_cases() -> Iterator[Case]:
    """Every training mode of the shipped configs; all frames of the micro-batch have all labels."""
    single = load_config(SingleTaskRun, CONFIGS / "single_task_conf.yaml", [])
    yield from (Case(f"single task: {mode}", single, mode) for mode in single.modes())
    for balancing, name in BALANCING.items():
        symmetric = load_config(SymmetricRun, CONFIGS / "symmetric_conf.yaml", [f"balancing={balancing}"])
        yield Case(f"symmetric, balancing {name}", symmetric, SYMMETRIC)
    asymmetric = load_config(AsymmetricRun, CONFIGS / "asymmetric_conf.yaml", [])
    yield Case("asymmetric", asymmetric, ASYMMETRIC)


def train_once(step: Step) -> None:
    step.accumulate()
    step.step_optimisers()


def estimate(case: Case, size: tuple[int, int], micro_batch_size: int | None = None) -> Estimate:
    """By fake tensors; size: W, H in pixels; micro_batch_size: other than the config's."""
    fake = FakeTensorMode()
    step = Step(case.config, case.mode, size=size, micro_batch_size=micro_batch_size, fake=fake)
    held = step.held()
    tracker = MemTracker()
    optimizers = [group.optimizer for group in step.groups.values()]
    tracker.track_external(step.model, *optimizers, *step.inputs(), *step.rows())
    with fake, tracker:
        train_once(step)
    peak = sum(device["Total"] for device in tracker.get_tracker_snapshot("peak").values())
    return Estimate(**held, activations=peak - sum(held.values()))


def measure(case: Case, size: tuple[int, int]) -> Estimate:
    """The same with real tensors on the CPU, by the allocator's events."""
    step = Step(case.config, case.mode, size=size)
    inputs = sum(tensor.nbytes for tensor in step.inputs())  # there before the events
    return Estimate(**step.held(), activations=inputs + allocated_peak(lambda: train_once(step)))


def micro_batch_that_fits(case: Case, size: tuple[int, int]) -> int | None:
    """The config's, or else the first half, quarter ... of it that fits; None where not even one sample does."""
    count = case.micro_batch_size
    while count and not estimate(case, size, count).fits:
        count //= 2
    return count or None


def row(case: Case, size: tuple[int, int]) -> dict[str, Any]:
    found = estimate(case, size)
    return {
        "case": case.name,
        "micro_batch_size": case.micro_batch_size,
        **asdict(found),
        "total": found.total,
        "needed": found.needed,
        "fits": found.fits,
        "micro_batch_that_fits": case.micro_batch_size if found.fits else micro_batch_that_fits(case, size),
    }


def check_row(case: Case, size: tuple[int, int]) -> dict[str, Any]:
    estimated, measured = estimate(case, size), measure(case, size)
    return {
        "case": case.name,
        "estimated": estimated.activations,
        "measured": measured.activations,
        "error": estimated.activations / measured.activations - 1,
        "error_of_total": estimated.total / measured.total - 1,
    }


def print_rows(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print each row as it comes (the estimate takes a while)."""
    columns = ["parameters", "gradients", "optimiser", "activations", "total", "needed"]
    print(f"{'GB':48}{'micro-batch':>12}" + "".join(f"{name:>12}" for name in columns) + f"{'fits 12 GB':>12}")
    done = []
    for row in rows:
        numbers = "".join(f"{row[name] / 1e9:12.2f}" for name in columns)
        verdict = "yes" if row["fits"] else f"NO ({row['micro_batch_that_fits']})"
        print(f"{row['case']:48}{row['micro_batch_size']:12}{numbers}{verdict:>12}", flush=True)
        done.append(row)
    return done


def print_check(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    print(f"{'activations, MB':48}{'estimated':>12}{'measured':>12}{'error':>10}{'of total':>10}")
    done = []
    for row in rows:
        numbers = f"{row['estimated'] / 1e6:12.1f}{row['measured'] / 1e6:12.1f}"
        print(f"{row['case']:48}{numbers}{row['error']:10.2%}{row['error_of_total']:10.2%}", flush=True)
        done.append(row)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 1024], metavar=("W", "H"), help="default 1024 1024")
    parser.add_argument("--check", action="store_true", help=f"estimate and measure at {CHECK_SIZE} on the CPU as well")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    cases = list(shipped_cases())
    results = {"size": args.size, "rows": print_rows(row(case, tuple(args.size)) for case in cases)}
    if args.check:
        results |= {"check_size": CHECK_SIZE, "check": print_check(check_row(case, CHECK_SIZE) for case in cases)}
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
