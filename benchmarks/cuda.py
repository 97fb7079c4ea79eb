"""Everything that only a GPU can tell, in one command: correctness first, then speed, then whether bf16 learns.

    python -m benchmarks.cuda [--minutes 8] [--out DIR]

Each line is printed and written to DIR/lines.jsonl at once, so that a time limit loses nothing; what no time is left
for is named. Exits with 1 if a line fails, with 2 where there is no CUDA. Speeds are ratios
to a bare loop (benchmarks/bare.py) on the same batch in the same run. `--device cpu` tries every line that can run on
a CPU, on tiny networks, as far as the minutes go (two cores want about ten for all): its speeds mean nothing.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cuda_speed import Bench, Report, measure
from benchmarks.machine import describe_machine
from benchmarks.memory import Case, shipped_cases
from benchmarks.steps import Step
from errors import UserError, run_as_script

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cuda"
ESTIMATES = ROOT / "benchmarks" / "results" / "memory.json"
TESTS = [ROOT / "tests" / "cuda"]
CORRECTNESS_SHARE = 0.5  # of the time, at most: then speed has its turn, and what is left of the tests is named


# ---- correctness -----------------------------------------------------------------------------------------------------


class Lines:
    """A pytest plugin: a line a test; past its time the rest is left out by name."""

    def __init__(self, report: Report, until: float):
        self.report, self.until = report, until

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() > self.until:
            pytest.skip("no time left")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            values: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
            if report.outcome != "passed":
                values["reason"] = reason_of(report)
            self.report.add("correctness", report.nodeid.removeprefix("tests/cuda/"), **values)


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped or failed, with the place: all that is known after a GPU has gone."""
    if isinstance(report.longrepr, tuple):  # skipped
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return f"{crash.path}:{crash.lineno}: {crash.message[:500]}" if crash else str(report.longrepr)[-500:]


def correctness(report: Report, device: torch.device) -> None:
    os.environ["A2D2_CUDA_TESTS"] = device.type
    until = time.monotonic() + CORRECTNESS_SHARE * report.seconds_left
    # pytest's own words would stand between the lines; addopts has flags of what is left out here
    silent = ["-p", "no:cacheprovider", "-p", "no:terminal", "-o", "addopts=--import-mode=importlib"]
    status = pytest.main([*silent, *map(str, TESTS)], [Lines(report, until)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        report.add("correctness", "tests/cuda", outcome="failed", reason=f"pytest ended with {status!r}")


def memory(report: Report, device: torch.device) -> None:
    """The peak at the shipped settings; it must not be above what the estimate, as committed, says is needed."""
    estimates = {row["case"]: row for row in json.loads(ESTIMATES.read_text())["rows"]}
    there = torch.cuda.get_device_properties(device).total_memory
    for case in shipped_cases():
        name, estimated = f"memory of {case.name}", estimates[case.name]
        if report.seconds_left < 0 or there < estimated["needed"]:
            reason = "no time left" if report.seconds_left < 0 else f"it needs {estimated['needed'] / 1e9:.1f} GB"
            report.add("left out", name, reason=reason)
            continue
        try:
            allocated, reserved = peak_memory(case, device)
        except Exception as error:  # as a rule OutOfMemoryError; the lines of speed must come in any case
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            report.add("correctness", name, outcome="failed", reason=reason)
            continue
        values = {"peak_gb": allocated / 1e9, "reserved_gb": reserved / 1e9}
        values |= {"estimated_gb": estimated["total"] / 1e9, "needed_gb": estimated["needed"] / 1e9}
        outcome = "passed" if reserved <= estimated["needed"] else "failed"
        report.add("correctness", name, outcome=outcome, **values)


def peak_memory(case: Case, device: torch.device) -> tuple[int, int]:
    """Bytes allocated, and reserved by torch's allocator, at the peak of two steps, as trainings take them."""
    torch.backends.cudnn.benchmark = True
    step = Step(case.config, size=case.config.data.image_size, device=device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        step.accumulate()
        step.update()
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default benchmarks/results/cuda/NAME-OF-THE-DEVICE")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; --device cpu tries the lines that a CPU can run")
    device = torch.device(args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    out = args.out or RESULTS / re.sub(r"\W+", "-", name)
    out.mkdir(parents=True, exist_ok=True)
    (out / "lines.jsonl").unlink(missing_ok=True)
    report = Report(out, time.monotonic() + 60 * args.minutes)
    report.add("machine", name, **describe_machine())
    correctness(report, device)
    if device.type == "cuda":
        memory(report, device)
    measure(report, Bench(device, tiny=device.type == "cpu"))
    return int(report.failed)


if __name__ == "__main__":
    run_as_script(main)
