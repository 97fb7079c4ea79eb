"""Lines of speed and learning for benchmarks/cuda.py: the project's own step beside a bare loop, in one run."""

import io
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.bare import BareLoop, DistributedLoop, TrainingLoop
from benchmarks.dataset import prepare
from benchmarks.flops import flop_counter
from benchmarks.steps import Step
from datasets.frames import Frame
from datasets.roots import Root, Roots
from datasets.samples import Batch, LabelledFrames, Sample
from tasks import TASKS
from training.config import load_config
from training.evaluation import make_loader
from training.methods.similarity import sum_of
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

ROOT = Path(__file__).parents[1]
SECONDS_A_SPEED = 3.0
SECONDS_OF_LEARNING = 15.0  # of a mode and a precision; five steps in any case
LEARNING_SLACK = 0.1  # of the first loss, by which bf16 may end above float32
MODES: dict[str, tuple[type[RunConfig], str]] = {
    "segmentation": (SingleTaskRun, "single_task_conf.yaml"),
    SYMMETRIC: (SymmetricRun, "symmetric_conf.yaml"),
    ASYMMETRIC: (AsymmetricRun, "asymmetric_conf.yaml"),
    "depth": (SingleTaskRun, "single_task_conf.yaml"),
    "box": (SingleTaskRun, "single_task_conf.yaml"),
    "steering": (SingleTaskRun, "single_task_conf.yaml"),
}
# what makes them small enough for a CPU
TINY = {
    "segmentation": ["tasks.segmentation.network.base_channels=4"],
    "box": ["tasks.box.network.base_channels=4", "tasks.box.network.pairs=[1]", "tasks.box.settings.grid=4"],
    "depth": ["tasks.depth.network.encoder=small"],
    "steering": ["tasks.steering.batch_size=4", "tasks.steering.micro_batch_size=2"],
    SYMMETRIC: ["network.encoder=small", "network.channels=16", "network.layers=1", "tasks.box.settings.grid=4"],
    ASYMMETRIC: ["network.encoder=small", "network.channels=16", "network.layers=1", "tasks.box.settings.grid=4"],
}
PRETRAINED = {"depth": "tasks.depth.network.pretrained=none", SYMMETRIC: "network.pretrained=none"}
PRETRAINED[ASYMMETRIC] = PRETRAINED[SYMMETRIC]


@dataclass
class Report:
    """Prints and writes lines as they come."""

    out: Path
    deadline: float
    failed: bool = False

    def add(self, kind: str, name: str, **values: Any) -> None:
        line = {"kind": kind, "name": name, **values}
        self.failed |= kind == "failed" or values.get("outcome") == "failed"
        with open(self.out / "lines.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )
        print(f"{kind}: {name}: {shown}", flush=True)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


# ---- speed -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    device: torch.device
    tiny: bool

    def config(self, mode: str) -> RunConfig:
        kind, file = MODES[mode]
        changes = [PRETRAINED[mode]] if mode in PRETRAINED else []
        overrides = [*changes, *(TINY[mode] if self.tiny else [])]
        return load_config(kind, ROOT / "configs" / file, overrides).of_mode(mode)

    def step(self, mode: str, precision: str) -> Step:
        config = self.config(mode)
        size = (64, 64) if self.tiny else config.data.image_size
        return Step(config, size=size, precision=precision, device=self.device)

    @property
    def size_on_disk(self) -> tuple[int, int]:
        """Of the files that the loader reads."""
        return (64, 64) if self.tiny else (1024, 1024)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, *calls: Callable[[], Any]) -> list[float]:
        """Medians of calls that take turns."""
        times: list[list[float]] = [[] for _ in calls]
        started = time.monotonic()
        while len(times[0]) < 3 or (time.monotonic() - started < SECONDS_A_SPEED and len(times[0]) < 50):
            for call, took in zip(calls, times, strict=True):
                self.wait()
                start = time.perf_counter()
                call()
                self.wait()
                took.append(time.perf_counter() - start)
        return [statistics.median(took[1:]) for took in times]  # the first warms up


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def speed(report: Report, bench: Bench, mode: str, precision: str, *, compiled: bool = False) -> None:
    """Images a second of the project's step and of the bare loop on the same network, and the ratio of the two."""
    torch.backends.cudnn.benchmark = True
    values = {}
    with tf32(precision == "tf32"):
        step = bench.step(mode, "fp32" if precision == "tf32" else precision)
        if compiled:
            for part in step.model.parts():
                part.compile()
        ours = TrainingLoop(step)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
            ours()
            values["peak_gb"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
        took, bare_took = bench.seconds(ours, BareLoop(step))
    images = ours.micro_batches * len(step.batch)
    name = f"{mode}, {precision}{', compiled' if compiled else ''}"
    values |= {"images_per_second": images / took, "bare": images / bare_took, "ratio_to_bare": bare_took / took}
    report.add("speed", name, **values)


def memory_formats(report: Report, bench: Bench) -> None:
    """UNet with its group norms in N x C x H x W, as shipped, and in channels_last throughout, which copies maps."""
    precision = "bf16" if bench.device.type == "cuda" else "fp32"
    loops = [TrainingLoop(bench.step("segmentation", precision)) for _ in range(2)]
    throughout = loops[1].step.model.to(memory_format=torch.channels_last)
    throughout.network.normalise.memory_format = torch.channels_last
    took, other_took = bench.seconds(*loops)
    report.add("speed", "UNet beside channels_last throughout", ratio_of_images_per_second=other_took / took)


def peer(report: Report, bench: Bench) -> None:
    """UNet beside a plain DistributedDataParallel loop."""
    step = bench.step("segmentation", "bf16" if bench.device.type == "cuda" else "fp32")
    ours, theirs = TrainingLoop(step), DistributedLoop(step)
    took, their_took = bench.seconds(ours, theirs)
    theirs.close()
    report.add("speed", "UNet beside a plain DDP loop", ratio_of_images_per_second=their_took / took, goal=0.9)


def utilisation(report: Report, bench: Bench, mode: str) -> None:
    """FLOPs of the step over those of a matrix product, by the same clock."""
    precision = "bf16" if bench.device.type == "cuda" else "fp32"
    step = bench.step(mode, precision)
    loop = TrainingLoop(step)
    with flop_counter() as counter:
        loop()
    side = 64 if bench.tiny else 8192
    dtype = step.precision.dtype or torch.float32
    a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    took, product_took = bench.seconds(loop, lambda: a @ b)
    rate, best = counter.get_total_flops() / took, 2 * side**3 / product_took
    report.add("speed", f"FLOP utilisation, {mode}, {precision}", tflops=rate / 1e12, share_of_matmul=rate / best)


# what blocks until the device has come so far; a plain cudaMemcpy copies from or to pageable memory
WAITS = re.compile(r"cuda(Stream|Event|Device)Synchronize|cudaMemcpy")


def shares(report: Report, bench: Bench, mode: str) -> None:
    """What of a step's time the CPU waits for the device, the device copies, and idles."""
    loop = TrainingLoop(bench.step(mode, "bf16" if bench.device.type == "cuda" else "fp32"))
    loop()
    bench.wait()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        start = time.perf_counter()
        for _ in range(3):
            loop()
        stepped = 1e6 * (time.perf_counter() - start)  # microseconds; then the device works off what it was given
        bench.wait()
        wall = 1e6 * (time.perf_counter() - start)
    events = [event for event in recorded.events() if not event.is_user_annotation]
    on_device = [event for event in events if event.device_type.name == "CUDA"]
    busy = sum(event.device_time_total for event in on_device)
    copies = sum(event.device_time_total for event in on_device if "Memcpy" in event.name)
    waits = [event for event in events if WAITS.fullmatch(event.name) and event.device_type.name == "CPU"]
    waits = waits[:-1]  # the last one is this function's own
    values = {"waits": len(waits) / 3, "share_waiting": sum(event.cpu_time_total for event in waits) / stepped}
    if on_device:
        values |= {"share_copies": copies / wall, "share_idle": max(1 - busy / wall, 0.0)}
    report.add("speed", f"where a step's time goes, {mode}", **values)


def loading(report: Report, bench: Bench) -> None:
    """Every mode from the loader: symmetric training, which reads all labels, with several numbers of processes, the
    others with as many as their configs say.
    """
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(io.StringIO()):
            raw, loose, _ = prepare(Path(folder), bench.size_on_disk)
        frames = sorted(set.intersection(*(set(loose.frames(name)) for name in TASKS)))
        for mode in sorted(MODES, key=lambda mode: mode != SYMMETRIC):
            if report.seconds_left < 0:
                report.add("left out", f"{mode} from the loader", reason="no time left")
                continue
            step = bench.step(mode, "bf16" if bench.device.type == "cuda" else "fp32")
            counts = (1, 2, 4, 8, 16) if mode == SYMMETRIC else (step.config.data.workers,)
            load_and_train(report, bench, step, Roots([Root.open(raw, loose, bench.size_on_disk)]), frames, counts)


def load_and_train(
    report: Report, bench: Bench, step: Step, roots: Roots, frames: list[Frame], counts: tuple[int, ...]
) -> None:
    """Samples a second by number of loader processes: loaded alone, and trained on as they come."""
    loop = TrainingLoop(step)
    (held,) = bench.seconds(loop)
    rate = loop.micro_batches * len(step.batch) / held
    report.add("speed", f"{step.config.mode}, the batch on the device", images_per_second=rate)
    for workers in (1,) if bench.tiny else counts:
        # what the processes have ready at the start is not counted, and four times as much is
        count = len(step.batch) * 2 * workers * 5
        samples = [Sample(frame, tuple(step.tasks)) for frame in islice(cycle(frames), count)]
        data = LabelledFrames(roots, step.tasks, samples)
        loader = make_loader(data, step.tasks, workers, bench.device, batch_size=len(step.batch))
        alone, trained = (
            images_per_second(bench, loader, 2 * workers, use)
            for use in (lambda batch: batch.to(bench.device), lambda batch: loop.train_on(batch.to(bench.device)))
        )
        values = {"loaded_per_second": alone, "trained_per_second": trained, "share_of_held": trained / rate}
        report.add("speed", f"{step.config.mode} from the loader, {workers} processes", **values)


def images_per_second(bench: Bench, batches: Iterable[Batch], left_out: int, use: Callable[[Batch], Any]) -> float:
    """Of an epoch, but for its first batches."""
    count, start = 0, 0.0
    for i, batch in enumerate(batches):
        use(batch)
        if i + 1 == left_out:
            bench.wait()
            count, start = 0, time.perf_counter()
        else:
            count += len(batch)
    bench.wait()
    return count / (time.perf_counter() - start)


# ---- learning --------------------------------------------------------------------------------------------------------


def learning(report: Report, bench: Bench, mode: str) -> None:
    """The losses on one micro-batch, trained on again and again: in bf16 they must fall about as far as in float32."""
    with tf32(False):
        full, steps = overfitted(bench, mode, "fp32", 5 if bench.tiny else 40)
        half, steps = overfitted(bench, mode, "bf16", steps)
    outcome = "passed" if half <= full + LEARNING_SLACK else "failed"
    report.add("learning", mode, outcome=outcome, steps=steps, fp32_last_to_first=full, bf16_last_to_first=half)


def overfitted(bench: Bench, mode: str, precision: str, most: int) -> tuple[float, int]:
    """The last loss as a part of the first, after so many steps as there is time for, `most` of them; and how many."""
    torch.manual_seed(0)
    step = bench.step(mode, precision)
    loop, first, taken, started = TrainingLoop(step), total_loss(step), 0, time.monotonic()
    while taken < most and (taken < 5 or time.monotonic() - started < SECONDS_OF_LEARNING):
        loop()
        bench.wait()
        taken += 1
    return float(total_loss(step) / first), taken


def total_loss(step: Step) -> Tensor:
    with torch.no_grad(), step.precision.autocast():
        outputs = step.model(step.batch.images, step.batch.places)
    return sum_of(step.tasks[name].loss(outputs[name], target)[0].mean() for name, target in step.batch.targets.items())


def lines(bench: Bench) -> Iterator[tuple[str, Callable[[Report], None]]]:
    """Name and measurement, the most telling first."""
    half = "bf16" if bench.device.type == "cuda" else "fp32"
    for mode in MODES:
        yield f"speed of {mode}", partial(speed, bench=bench, mode=mode, precision=half)
    yield "UNet beside DDP", lambda report: peer(report, bench)
    yield "UNet in two memory formats", lambda report: memory_formats(report, bench)
    for mode in ("segmentation", SYMMETRIC):
        yield f"utilisation of {mode}", partial(utilisation, bench=bench, mode=mode)
        yield f"where the time of {mode} goes", partial(shares, bench=bench, mode=mode)
    for mode in MODES:
        yield f"learning of {mode}", partial(learning, bench=bench, mode=mode)
    yield "loader", lambda report: loading(report, bench)
    for mode in ("segmentation", SYMMETRIC):
        for precision in ("fp32", "tf32", "fp16"):
            yield f"speed of {mode} in {precision}", partial(speed, bench=bench, mode=mode, precision=precision)
    if bench.device.type == "cuda":  # minutes of a CPU's C++ compiler
        for mode in ("segmentation", SYMMETRIC):
            yield f"{mode} compiled", partial(speed, bench=bench, mode=mode, precision=half, compiled=True)


def measure(report: Report, bench: Bench) -> None:
    for name, call in lines(bench):
        if report.seconds_left < 0:
            report.add("left out", name, reason="no time left")
            continue
        try:
            call(report)
        except Exception as error:  # one that fails does not take the others along
            report.add("failed", name, reason=f"{type(error).__name__}: {str(error)[:300]}")
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
