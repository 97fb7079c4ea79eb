"""What each balancing method costs a step: time and peak memory, on the demo's small network and the CPU.

    python -m benchmarks.balancing [--json FILE]

One step of configs/demo/symmetric.yaml in float32: one micro-batch of made-up labels, which fills the batch, and an
update of all groups. Methods take turns, so that all meet the machine in the same state; of each the median counts.
Memory: parameters, gradients and optimiser states, and what the step allocates beside them at its peak, by the events
of torch's allocator.

    python -m benchmarks.balancing --flops [--json FILE]

counts instead, on fake tensors: FLOPs of forward and backward of a frame with all labels, for the demo's network and
for that of configs/symmetric_conf.yaml (benchmarks/flops.py). All methods by gradients go backward as upgrad does; what
they make of the gradients, once a step, is left out: products of a few rows of the backbone's length.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from arguments import whole
from benchmarks.flops import flops_of_visits
from benchmarks.machine import describe_machine
from benchmarks.memory import CONFIGS
from benchmarks.steps import Step, allocated_peak
from datasets.files import write_json
from training.config import load_config
from training.runs import SYMMETRIC, SymmetricRun

METHODS = ["fixed", "uncertainty", "pcgrad", "upgrad"]
COUNTED = ["fixed", "uncertainty", "upgrad"]  # methods whose backward passes differ, or might
NETWORKS = {"demo": CONFIGS / "demo" / "symmetric.yaml", "shipped": CONFIGS / "symmetric_conf.yaml"}


def load(network: str, method: str) -> SymmetricRun:
    return load_config(SymmetricRun, NETWORKS[network], [f"balancing={method}"]).of_mode(SYMMETRIC)


def make_step(method: str) -> Step:
    config = load("demo", method)
    return Step(config, size=config.data.image_size, precision="fp32")


def train_once(step: Step) -> None:
    step.accumulate()
    step.update()


def step_seconds(step: Step) -> float:
    start = time.perf_counter()
    train_once(step)
    return time.perf_counter() - start


def measure(methods: list[str], repeats: int) -> list[dict[str, Any]]:
    """A row a method; ratios are to the first."""
    steps = {method: make_step(method) for method in methods}
    # held before the step, since the update sets gradients free; this first step also warms up
    memory = {
        method: sum(step.held().values()) + allocated_peak(partial(train_once, step)) for method, step in steps.items()
    }
    times: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(repeats):
        for method, step in steps.items():
            times[method].append(step_seconds(step))
    seconds = {method: statistics.median(values) for method, values in times.items()}
    first = methods[0]
    return [
        {
            "method": method,
            "step_ms": 1000 * seconds[method],
            "time_ratio": seconds[method] / seconds[first],
            "peak_mb": memory[method] / 1e6,
            "memory_ratio": memory[method] / memory[first],
        }
        for method in methods
    ]


def count(networks: list[str], methods: list[str]) -> Iterator[dict[str, Any]]:
    """A row a network and method; ratios are to the first method."""
    for network in networks:
        first = None
        for method in methods:
            config = load(network, method)
            flops = sum(flops_of_visits(config, config.data.image_size))
            first = first or flops
            size = config.data.size
            yield {"network": network, "size": size, "method": method, "flops_of_frame": flops, "ratio": flops / first}


def print_times(repeats: int) -> dict[str, Any]:
    rows = measure(METHODS, repeats)
    print(f"{'method':14}{'ms/step':>10}{'ratio':>8}{'peak MB':>10}{'ratio':>8}")
    for row in rows:
        method, ms, time_ratio, mb, memory_ratio = row.values()
        print(f"{method:14}{ms:10.1f}{time_ratio:8.2f}{mb:10.1f}{memory_ratio:8.2f}")
    return {"repeats": repeats, "rows": rows}


def print_flops() -> dict[str, Any]:
    print(f"{'network':10}{'size':>12}  {'method':14}{'GFLOP/frame':>12}{'ratio':>8}")
    done = []
    for row in count(list(NETWORKS), COUNTED):
        size = " x ".join(map(str, row["size"]))
        numbers = f"{row['flops_of_frame'] / 1e9:12.2f}{row['ratio']:8.2f}"
        print(f"{row['network']:10}{size:>12}  {row['method']:14}{numbers}", flush=True)
        done.append(row)
    return {"rows": done}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", action="store_true", help="count, measure nothing")
    parser.add_argument("--repeats", type=whole(1), default=21, help="default 21")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = print_flops() if args.flops else print_times(args.repeats)
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
