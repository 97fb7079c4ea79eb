"""Speed and memory of the preprocessing stages: `python -m benchmarks.stages [--data-root D]`.

Milliseconds a frame on one core, from reading the raw file to the finished label on the disk. `cv2.imread` reads each
PNG just before the stage does, so that both meet the machine in the same state; repeats go round all the stages.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from arguments import whole
from benchmarks.machine import describe_machine
from datasets.a2d2.raw import RawData
from datasets.a2d2.stage import A2D2Stage, parse_arguments
from datasets.conversion import Worker
from datasets.files import write_json
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering

STAGES: dict[str, type[A2D2Stage]] = {stage.kind: stage for stage in (Segmentation, Camera, Depth, Boxes, Steering)}
RATIO_TARGETS = {"segmentation": 1.0, "camera": 0.9}  # at most so many times cv2.imread of the same PNG
MS_TARGETS = {"depth": 10.0, "box": 2.0, "steering": 2.0}  # at most, a frame
MEMORY_TARGET = 400  # MB of one worker, at most
MAX_JOBS = 8  # frames (steering: scenes), spread over the data set
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Bench:
    """One stage's worker, what it is timed on, and the milliseconds a frame of each repeat."""

    def __init__(self, kind: str, data_root: Path, processed_root: Path):
        stage, raw = STAGES[kind](), RawData(data_root)
        jobs = stage.jobs(raw)
        self.kind, self.jobs = kind, jobs[:: -(-len(jobs) // MAX_JOBS)]
        self.pngs = [str(raw.path(stage.raw_kind, job)) for job in self.jobs] if kind in RATIO_TARGETS else []
        settings = stage.settings(parse_arguments(stage, []), raw)
        self.worker = Worker(stage, raw, ProcessedData(processed_root), settings, overwrite=True)
        self.worker.prepare()
        self.stage_ms: list[float] = []
        self.imread_ms: list[float] = []

    def repeat(self, clock: str = "wall") -> None:
        """Time every job once."""
        now, stage, imread, frames = CLOCKS[clock], 0.0, 0.0, 0
        for number, job in enumerate(self.jobs):
            start = now()
            if self.pngs:
                cv2.imread(self.pngs[number])
            middle = now()
            outcomes = self.worker.run(job)
            stage, imread, frames = stage + now() - middle, imread + middle - start, frames + len(outcomes)
            for outcome in outcomes:
                if outcome.status == "failed":  # such a frame is done sooner than a good one
                    raise UserError(f"{outcome.path}: {outcome.reason}; a benchmark needs good files")
        self.stage_ms.append(1000 * stage / frames)
        self.imread_ms.append(1000 * imread / frames)

    def row(self, memory_mb: float) -> dict[str, Any]:
        ms, imread = median(self.stage_ms), median(self.imread_ms) if self.pngs else None
        measured, most = (ms / imread, RATIO_TARGETS[self.kind]) if imread else (ms, MS_TARGETS[self.kind])
        target = f"<= {most:g}{' x imread' if imread else ' ms'}"
        met = measured <= most and memory_mb <= MEMORY_TARGET
        row = {"stage": self.kind, "ms_per_frame": ms, "imread_ms": imread, "ratio": measured if imread else None}
        return {**row, "target": target, "worker_mb": memory_mb, "met": met}


def peak_memory_mb(kind: str, data_root: Path) -> float:
    """Peak memory of a fresh process that does this stage and nothing else."""
    command = [sys.executable, "-m", "benchmarks.stages", "--data-root", str(data_root), "--memory-of", kind]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def measure(kinds: list[str], args: argparse.Namespace, processed_root: Path) -> list[dict[str, Any]]:
    # First, while this process is small: its size is the least that a child reports
    memory = {kind: peak_memory_mb(kind, args.data_root) for kind in kinds}
    benches = [Bench(kind, args.data_root, processed_root) for kind in kinds]
    for number in range(args.repeats + 1):
        for bench in benches:
            bench.repeat(args.clock)
            if number == 0:  # warms up
                bench.stage_ms.clear()
                bench.imread_ms.clear()
    return [bench.row(memory[bench.kind]) for bench in benches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("Datasets"), help="raw data (default Datasets)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/stages.json"), help="where results go")
    parser.add_argument("--repeats", type=whole(1), default=7, help="default 7")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--memory-of", choices=list(STAGES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    kinds = [kind for kind, stage in STAGES.items() if stage().jobs(RawData(args.data_root))]
    if not kinds:
        raise UserError(f"no raw files below {args.data_root}; 'sh get_data.sh' fetches them (or --data-root)")
    with tempfile.TemporaryDirectory() as folder:
        if args.memory_of:
            Bench(args.memory_of, args.data_root, Path(folder)).repeat()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # kB on Linux
            return
        rows = measure(kinds, args, Path(folder))
    print(f"{'stage':14}{'ms/frame':>10}{'cv2.imread ms':>15}{'ratio':>8}{'target':>16}{'worker MB':>11}{'met':>6}")
    for row in rows:
        stage, *numbers, target, mb, met = row.values()
        ms, imread, ratio = ("-" if number is None else f"{number:.2f}" for number in numbers)
        print(f"{stage:14}{ms:>10}{imread:>15}{ratio:>8}{target:>16}{mb:11.0f}{'yes' if met else 'NO':>6}")
    for kind in (missing := [kind for kind in STAGES if kind not in kinds]):
        print(f"{kind:14}not measured: no raw files for it below {args.data_root}")
    arguments = {"data_root": str(args.data_root), "repeats": args.repeats, "clock": args.clock}
    content = {"machine": describe_machine(), **arguments, "rows": rows, "not_measured": missing}
    write_json(args.json, content, indent=2)
    print(f"written to {args.json}")


if __name__ == "__main__":
    run_as_script(main)
