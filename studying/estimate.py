"""What a study will take: runs, samples, hours. No run is started.

Samples are counted from the labels where the data are here, else from the numbers that the study's config states. Hours
follow from a step that is measured on this machine's device, or, at a stated speed in TFLOP/s, from counted FLOPs.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch

from benchmarks.flops import flops_of_visits
from benchmarks.steps import Step
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.labels import Labelled
from datasets.processed import ProcessedData
from datasets.roots import Roots
from datasets.splits import Split
from studying.config import DataSets
from studying.grid import Run
from studying.work import Place
from training.binding import with_regime_kinds
from training.data import HasLabels, kept_labels
from training.runs import RunConfig
from training.splitting import make_split
from training.tables import aligned

STEPS = 3  # that are timed; the fastest counts


@dataclass(frozen=True)
class Planned:
    """A run that is still to come."""

    run: Run
    samples: int  # over all epochs
    hours: float


class StatedLabels:
    """As many made-up frames as a study's config states, in place of data sets that are not here."""

    def __init__(self, data: DataSets):
        one_set = len(data.roots) == 1  # else each set has its own labels, on frames of its own
        self.by_kind = {
            kind: [Frame(data.roots[0], "scene" if one_set else kind, f"{number:06d}") for number in range(count)]
            for kind, count in data.labels.items()
        }
        self.split = Split(tuple(sorted(set().union(*self.by_kind.values()))), (), ())

    def labelled(self, kind: str) -> list[Frame]:
        return self.by_kind.get(kind, [])

    def kinds(self) -> list[str]:
        return sorted(self.by_kind)


def plan(runs: Iterable[Run], data: DataSets, place: Place, tflops: float | None) -> list[Planned]:
    """Each run with its samples and hours. place.processed: empty where the data are not here."""
    seconds: dict[str, float] = {}
    planned = []
    for run in runs:
        if run.row not in seconds:  # rows differ in their networks and batches, seeds and rates do not
            seconds[run.row] = (
                stated_seconds(run.config, tflops) if tflops else measured_seconds(run.config, place.device)
            )
        samples = run.config.training.epochs * samples_of(run.config, data, place)
        planned.append(Planned(run, samples, samples * seconds[run.row] / 3600))
    return planned


def samples_of(config: RunConfig, data: DataSets, place: Place) -> int:
    """Samples of an epoch."""
    if place.processed:
        roots = opened(place, config.data.image_size)
        split = make_split(config.data.split, roots, place.data_root)
        there: HasLabels = roots
    else:
        stated = StatedLabels(data)
        there, split = stated, stated.split
    config = with_regime_kinds(config, there.kinds(), None)
    by_kind = kept_labels(config, there, split)
    labelled: Labelled = {task: by_kind[config.kind_of(task)] for task in config.task_names()}
    return len(config.make_samples(labelled))


@cache  # for all runs: each would look through the folders again
def opened(place: Place, size: tuple[int, int]) -> Roots:
    return Roots.open([ProcessedData(path) for path in place.processed], RawData(place.data_root), size)


def measured_seconds(config: RunConfig, device: str) -> float:
    """Seconds a sample, from whole steps on made-up data; loading, augmentation and evaluation come on top."""
    step = Step(config, size=config.data.image_size, precision=config.training.precision, device=torch.device(device))
    times = []
    for _ in range(STEPS + 1):  # the first one warms up
        started = time.perf_counter()
        step.accumulate()
        step.step_optimisers()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:]) / len(step.batch)


def stated_seconds(config: RunConfig, tflops: float) -> float:
    """Seconds a sample with all labels, at a sustained speed."""
    return sum(flops_of_visits(config, config.data.image_size)) / (tflops * 1e12)


def plan_table(planned: list[Planned], finished: int, how: str) -> str:
    """A row of the study each, and all."""
    rows: dict[str, list[Planned]] = {}
    for one in planned:
        rows.setdefault(one.run.row, []).append(one)
    lines = [["row", "runs to come", "samples", "hours"]]
    for row, ones in [*rows.items(), ("all", planned)]:
        samples, hours = sum(one.samples for one in ones), sum(one.hours for one in ones)
        lines.append([row, str(len(ones)), f"{samples:,}", f"{hours:.2f}"])
    return f"{aligned(lines)}\n{finished} runs are finished. Hours: {how}"
