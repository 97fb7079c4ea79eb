"""Estimate the peak memory of training, without a GPU: does every mode of the shipped configs fit a card of 12 GB?

    python -m benchmarks.memory [--size 1024 1024] [--card 12] [--json FILE] [--check]
    python -m benchmarks.memory --config FILE [--train-mode MODE] [--gpu FILE] [--set KEY=VALUE ...]
        [--frames 10000] [--utilisation 0.4] [--peak-tflops 312]

The second is for any configuration of the training scripts, of every mode or of one, and adds the FLOPs of a step (the
samples between two borders at which groups may step) and the hours of an epoch: benchmarks/flops.py tells what is
counted. The hours are an estimate at the utilisation that you state, of the peak that the GPU's maker states; nothing
is measured, and loading, updates and validation are left out.

Method: the network, its optimisers and one micro-batch of made-up labels as fake tensors (torch's FakeTensorMode:
shapes and types, no content), in bf16 autocast
(or the config's precision; auto is bf16); forward, the tasks' own losses, backward and step, while torch's
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
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.flops import flops_of_visits
from benchmarks.machine import describe_machine
from benchmarks.steps import Step, allocated_peak, fitted_tasks, made_up_labels
from datasets.files import write_json
from errors import UserError, run_as_script
from models.base import TaskNetwork
from strict_yaml import read_yaml
from training.arguments import add_override_arguments
from training.build import check_size
from training.config import load_config
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun, kind_of

CONFIGS = Path(__file__).parents[1] / "configs"
CARD = 12e9  # bytes
FRAGMENTATION, CUDA_CONTEXT = 0.1, 0.8e9  # a share of the total, bytes: see above
SIZE, CHECK_SIZE = (1024, 1024), (128, 128)  # W H
NEED_CONFIG = ["train_mode", "gpu", "set", "frames", "utilisation", "peak_tflops"]  # flags
BALANCING = {
    "fixed": "fixed",
    "uncertainty": "uncertainty",
    "upgrad": "by gradients (upgrad, pcgrad, ...)",
    "dwa": "by losses (dwa, imtl_l, ...)",
}
TIMM_ENCODER = "timm/efficientnet_lite0"


@dataclass(frozen=True)
class Case:
    """What is estimated: one kind of micro-batch."""

    name: str
    config: RunConfig  # of one mode

    @property
    def precision(self) -> str:
        """Of a GPU that has bf16."""
        precision = self.config.training.precision
        return "bf16" if precision == "auto" else precision

    @property
    def micro_batch_size(self) -> int:
        return self.config.portions().micro_batch_size


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

    def fits(self, card: float) -> bool:
        """card: bytes."""
        return self.needed <= card


@dataclass(frozen=True)
class Speed:
    """What the hours of an epoch are estimated with."""

    frames: int = 10_000  # about the training split of A2D2's labelled front-center frames
    utilisation: float = 0.4  # the share of the peak that training reaches
    peak_tflops: float = 312.0  # 1e12 FLOPs a second, as the maker states: an A100 in bf16

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UserError(f"--frames {self.frames}: an epoch has at least one")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation {self.utilisation}: a share of the peak, above 0 and at most 1")
        if not 0 < self.peak_tflops < math.inf:
            raise UserError(f"--peak-tflops {self.peak_tflops}: must be above 0")

    def hours(self, flops_of_frame: float) -> float:
        """Of an epoch."""
        return self.frames * flops_of_frame / (self.utilisation * self.peak_tflops * 1e12) / 3600


def shipped_cases(gpu: Path | None = None) -> Iterator[Case]:
    """Every training mode of the shipped configs; all frames of the micro-batch have all labels.

    gpu: a file of configs/gpu that is laid over them.
    """
    single = load_config(SingleTaskRun, CONFIGS / "single_task_conf.yaml", [], gpu)
    yield from (Case(f"single task: {mode}", single.of_mode(mode)) for mode in single.modes())
    for balancing, name in BALANCING.items():
        symmetric = load_config(SymmetricRun, CONFIGS / "symmetric_conf.yaml", [f"balancing={balancing}"], gpu)
        yield Case(f"symmetric, balancing {name}", symmetric.of_mode(SYMMETRIC))
    encoders = {"asymmetric": [], f"asymmetric, {TIMM_ENCODER}": [f"network.encoder={TIMM_ENCODER}"]}
    for name, overrides in encoders.items():
        asymmetric = load_config(AsymmetricRun, CONFIGS / "asymmetric_conf.yaml", overrides, gpu)
        yield Case(name, asymmetric.of_mode(ASYMMETRIC))


def own_cases(args: argparse.Namespace) -> Iterator[Case]:
    """The modes of one's own configuration. UserError: it is wrong."""
    kind = kind_of(read_yaml(args.config))
    config = load_config(kind, args.config, args.set, args.gpu)
    for mode in [args.train_mode] if args.train_mode else config.modes():
        bound = config.of_mode(mode, args.config)
        check_size(config.data.size, fake_network(bound), args.config)
        yield Case(mode if mode == config.kind else f"{config.kind.replace('_', ' ')}: {mode}", bound)


def fake_network(config: RunConfig) -> TaskNetwork:
    """Without memory for its weights."""
    tasks = fitted_tasks(config, made_up_labels(*config.data.size))
    with FakeTensorMode():
        return config.make_model(tasks)


def train_once(step: Step) -> None:
    step.accumulate()
    step.step_optimisers()


def estimate(case: Case, size: tuple[int, int], micro_batch_size: int | None = None) -> Estimate:
    """By fake tensors; size: W, H in pixels; micro_batch_size: other than the config's."""
    fake = FakeTensorMode()
    step = Step(case.config, size=size, micro_batch_size=micro_batch_size, precision=case.precision, fake=fake)
    held = step.held()
    tracker = MemTracker()
    optimizers = [group.optimizer for group in step.groups.values()]
    tracker.track_external(*step.networks(), *optimizers, *step.inputs(), *step.rows())
    with fake, tracker:
        train_once(step)
    peak = sum(device["Total"] for device in tracker.get_tracker_snapshot("peak").values())
    return Estimate(**held, activations=peak - sum(held.values()))


def measure(case: Case, size: tuple[int, int]) -> Estimate:
    """The same with real tensors on the CPU, by the allocator's events."""
    step = Step(case.config, size=size, precision=case.precision)
    inputs = sum(tensor.nbytes for tensor in step.inputs())  # there before the events
    return Estimate(**step.held(), activations=inputs + allocated_peak(lambda: train_once(step)))


def micro_batch_that_fits(case: Case, size: tuple[int, int], card: float = CARD) -> int | None:
    """The config's, or else the first half, quarter ... of it that fits; None where not even one sample does."""
    count = case.micro_batch_size
    while count and not estimate(case, size, count).fits(card):
        count //= 2
    return count or None


def row(case: Case, size: tuple[int, int], card: float = CARD) -> dict[str, Any]:
    found = estimate(case, size)
    fits = found.fits(card)
    return {
        "case": case.name,
        "micro_batch_size": case.micro_batch_size,
        **asdict(found),
        "total": found.total,
        "needed": found.needed,
        "fits": fits,
        "micro_batch_that_fits": case.micro_batch_size if fits else micro_batch_that_fits(case, size, card),
    }


def speed_row(case: Case, size: tuple[int, int], speed: Speed) -> dict[str, Any]:
    """FLOPs of a step and of a frame that has all labels, hours of an epoch."""
    visits = flops_of_visits(case.config, size)
    samples = case.config.portions().block_size
    return {
        "case": case.name,
        "samples_a_step": samples,
        "flops_of_step": samples * sum(visits) / len(visits),
        "flops_of_frame": sum(visits),
        "hours_of_epoch": speed.hours(sum(visits)),
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


def print_rows(rows: Iterator[dict[str, Any]], card: float) -> list[dict[str, Any]]:
    """Print each row as it comes (the estimate takes a while)."""
    columns = ["parameters", "gradients", "optimiser", "activations", "total", "needed"]
    print(
        f"{'GB':48}{'micro-batch':>12}"
        + "".join(f"{name:>12}" for name in columns)
        + f"{f'fits {card / 1e9:g} GB':>12}"
    )
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


def print_speed(rows: Iterator[dict[str, Any]], speed: Speed) -> list[dict[str, Any]]:
    print(
        f"\nAn estimate, nothing is measured: epochs of {speed.frames:,} frames at {speed.utilisation:g} of "
        f"{speed.peak_tflops:g} TFLOP/s; loading, updates and validation left out"
    )
    print(f"{'':48}{'samples a step':>16}{'TFLOP a step':>16}{'GFLOP a frame':>16}{'hours an epoch':>16}")
    done = []
    for row in rows:
        flops = f"{row['flops_of_step'] / 1e12:16.3f}{row['flops_of_frame'] / 1e9:16.1f}"
        print(f"{row['case']:48}{row['samples_a_step']:16}{flops}{row['hours_of_epoch']:16.3f}", flush=True)
        done.append(row)
    return done


def parse_arguments() -> argparse.Namespace:
    """UserError: flags that don't go together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("W", "H"), help="of the shipped configs; default 1024 1024"
    )
    parser.add_argument("--card", type=float, default=CARD / 1e9, metavar="GB", help="the GPU's memory; default 12")
    parser.add_argument("--check", action="store_true", help=f"estimate and measure at {CHECK_SIZE} on the CPU as well")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--config", type=Path, metavar="FILE", help="this one, not the shipped ones")
    parser.add_argument("--train-mode", metavar="MODE", help="default: all modes of the config")
    add_override_arguments(parser)
    parser.add_argument("--frames", type=int, help=f"of an epoch; default {Speed.frames}")
    parser.add_argument("--utilisation", type=float, help=f"share of the peak; default {Speed.utilisation}")
    parser.add_argument("--peak-tflops", type=float, help=f"of the GPU; default {Speed.peak_tflops:g}")
    args = parser.parse_args()
    if not args.card > 0:
        raise UserError(f"--card {args.card}: must be above 0")
    given = [f"--{name.replace('_', '-')}" for name in NEED_CONFIG if getattr(args, name) not in (None, [])]
    if args.config is None and given:
        raise UserError(f"{given[0]} needs --config")
    if args.config and args.check:
        raise UserError("--check measures the shipped configs: leave out --config")
    if args.config and args.size:
        raise UserError("--size is for the shipped configs: use --set data.size=[W,H]")
    return args


def shipped(args: argparse.Namespace) -> dict[str, Any]:
    """What there is to say of the shipped configs."""
    cases, card = list(shipped_cases()), 1e9 * args.card
    width, height = size = args.size or SIZE
    results = {"size": size, "rows": print_rows((row(case, (width, height), card) for case in cases), card)}
    if args.check:
        check = print_check(check_row(case, CHECK_SIZE) for case in cases)
        results |= {"check_size": CHECK_SIZE, "check": check}
    return results


def own(args: argparse.Namespace) -> dict[str, Any]:
    """What there is to say of one's own config."""
    given = {name: getattr(args, name) for name in ("frames", "utilisation", "peak_tflops")}
    speed = Speed(**{name: value for name, value in given.items() if value is not None})
    cases, card = list(own_cases(args)), 1e9 * args.card
    size = cases[0].config.data.image_size
    return {
        "size": size,
        "rows": print_rows((row(case, size, card) for case in cases), card),
        "assumed": asdict(speed),
        "speed": print_speed((speed_row(case, size, speed) for case in cases), speed),
    }


def main() -> None:
    args = parse_arguments()
    results = own(args) if args.config else shipped(args)
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    run_as_script(main)
