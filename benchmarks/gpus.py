"""Memory of the shipped configs under each file of configs/gpu, and of the next larger micro-batch: was it the largest?

    python -m benchmarks.gpus [--json FILE]

By the estimate of benchmarks/memory.py, with its margin, at the configs' size. A file's micro-batch must fit the card
for every balancing method of its mode, and the next larger divisor of the block must not fit for one of them.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.memory import CONFIGS, Case, estimate, shipped_cases
from datasets.files import write_json


def gpu_files() -> dict[float, Path]:
    """Bytes of the card, which the file's name says -> the file, the smallest first."""
    return dict(
        sorted((1e9 * float(path.stem.removesuffix("gb")), path) for path in (CONFIGS / "gpu").glob("*gb.yaml"))
    )


def next_larger(micro_batch_size: int, block_size: int) -> int | None:
    """The next divisor of the block; None where the micro-batch is the block."""
    larger = (size for size in range(micro_batch_size + 1, block_size + 1) if block_size % size == 0)
    return next(larger, None)


def needed(case: Case, micro_batch_size: int | None = None) -> float:
    """Bytes with the margin."""
    return estimate(case, tuple(case.config.data.size), micro_batch_size).needed


def rows(files: dict[float, Path]) -> Iterator[dict[str, Any]]:
    """A row a file and case; cards that share a micro-batch share its estimate."""
    cases = {card: list(shipped_cases(path)) for card, path in files.items()}
    by_name = {case.name: case for case in shipped_cases()}
    found = cache(lambda name, size: needed(by_name[name], size))
    for card, of_card in cases.items():
        for case in of_card:
            size = case.micro_batch_size
            larger = next_larger(size, case.config.portions().block_size)
            yield {
                "card": card,
                "case": case.name,
                "micro_batch_size": size,
                "needed": found(case.name, size),
                "larger": larger,
                "larger_needed": larger and found(case.name, larger),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    print(f"{'GB':>4}  {'':58}{'micro-batch':>12}{'needed':>8}{'larger':>8}{'needed':>8}")
    done = []
    for row in rows(gpu_files()):
        larger = f"{row['larger']:8}{row['larger_needed'] / 1e9:8.2f}" if row["larger"] else ""
        numbers = f"{row['micro_batch_size']:12}{row['needed'] / 1e9:8.2f}"
        print(f"{row['card'] / 1e9:4g}  {row['case']:58}{numbers}{larger}", flush=True)
        done.append(row)
    if args.json:
        write_json(args.json, {"rows": done, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
