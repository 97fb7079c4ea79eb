"""What the preprocessing scripts share: arguments, worker pool, progress, resume, shards, the report.

A script defines a `Stage` (which raw files, how one becomes a label) and hands it to `run_stage`. A frame's file
appears whole or not at all; a rerun does what is missing; a frame that can't be read is named in the report and the
rest goes on.
"""

import argparse
import filecmp
import multiprocessing
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.a2d2.geometry import Calibration
from datasets.a2d2.raw import NAME, RAW_KINDS, RawData
from datasets.files import whole_file, write_json, write_json_once
from datasets.frames import Frame
from datasets.layout import add_root_arguments
from datasets.processed import ProcessedData
from errors import UserError, reason_of
from progress import progress, warn


@dataclass(frozen=True)
class Label:
    """One frame's result: what to write, and counts for the report (points dropped, duplicates removed, ...).

    content: None where the raw file holds no label.
    """

    content: np.ndarray | bytes | None
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: `written`, `present` (already there), `without_label` or `failed`."""

    frame: str
    status: str
    path: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    copies_differ: bool = False  # the raw file lies in two folders, with different contents


class Stage(ABC):
    """One preprocessing script: the frames it works on and how a raw file becomes a label."""

    kind: str  # processed kind that it writes
    raw_kind: str  # raw kind that it reads

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the script's own flags. Default: none."""

    @abstractmethod
    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        """Everything that decides what the files contain, for settings.json (JSON types only)."""

    def prepare(self, settings: dict[str, Any]) -> None:
        """Build look-up tables, once per worker process. Default: nothing."""

    @abstractmethod
    def convert(self, path: Path) -> Label:
        """The label that a raw file gives. Any exception means: this file is bad."""

    def suffix(self, settings: dict[str, Any]) -> str | None:
        """Ending of the files where the kind has several. Default: the kind's only one."""
        return None

    def searched(self, raw: RawData) -> Path:
        """The folder where the raw files are looked for, for error messages."""
        return raw.images_dir

    def jobs(self, raw: RawData) -> list[Any]:
        """Units of work in a fixed order, each with a scene. Default: every frame whose raw file exists."""
        return raw.frames(self.raw_kind)

    def labels(self, raw: RawData, job: Any) -> Iterator[tuple[Frame, Path, Callable[[], Label]]]:
        """The frames of one job, each with its raw file and the call that makes its label."""
        path = raw.path(self.raw_kind, job)
        yield job, path, lambda: self.convert(path)


def image_settings(args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
    """The part of the settings that the stages with an image size share."""
    return {"size": list(args.size), "calibration": Calibration.read(raw.calibration_path).to_json()}


# ---- command line ---------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def shard_of(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N, such as 2/8")
    return int(parts[0]), int(parts[1])


def parse_arguments(stage: Stage, argv: list[str] | None) -> argparse.Namespace:
    doc = (sys.modules[type(stage).__module__].__doc__ or "").strip()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=4, metavar="N", help="worker processes (default 4)")
    add_root_arguments(parser)
    parser.add_argument("--size", type=positive, nargs=2, default=(1024, 1024), metavar=("W", "H"))
    parser.add_argument("--scenes", nargs="+", metavar="SCENE", help="only these scenes")
    parser.add_argument("--shard", type=shard_of, metavar="I/N", help="only units I, I+N, I+2N ... of the list")
    parser.add_argument("--overwrite", action="store_true", help="replace the files that are there")
    stage.add_arguments(parser)
    return parser.parse_args(argv)


def run_stage(stage: Stage, argv: list[str] | None = None) -> int:
    """Run a preprocessing script. Returns the exit code: 0, or 1 if a frame failed. UserError for wrong usage."""
    args = parse_arguments(stage, argv)
    raw, processed = RawData(args.data_root), ProcessedData(args.processed_root)
    jobs = select_jobs(stage.jobs(raw), args.scenes, args.shard, stage.searched(raw))
    settings = stage.settings(args, raw)
    try:
        claim_folder(processed, stage.kind, settings, args)
    except OSError as error:
        raise UserError(f"can't write below {processed.root}: {error.strerror} (--processed-root)") from None
    worker = Worker(stage, raw, processed, settings, args.overwrite)
    report = Report(stage.kind, settings)
    with closing(run_jobs(worker, jobs, args.threads)) as results:
        for outcome in outcomes_of(results, len(jobs), stage.kind):
            report.add(outcome)
    processed.remove_abandoned(stage.kind)  # of workers that were still ending when this run began
    path = processed.report_path(stage.kind, args.shard)
    report.write(path)
    print(f"{report.summary()}; {path}")
    return 1 if report.failures else 0


def select_jobs(jobs: list[Any], scenes: list[str] | None, shard: tuple[int, int] | None, searched: Path) -> list[Any]:
    """The jobs of the scenes and the shard asked for. UserError where there is no data, or none of a scene."""
    if not jobs:
        raise UserError(f"no raw files for this stage below {searched}; 'sh get_data.sh' fetches them (or --data-root)")
    there = sorted({job.scene for job in jobs})
    if scenes is not None:
        if missing := sorted(set(scenes) - set(there)):
            raise UserError(f"--scenes: {', '.join(missing)} not found below {searched}; there are {', '.join(there)}")
        jobs = [job for job in jobs if job.scene in scenes]
    if shard is not None:
        jobs = jobs[shard[0] - 1 :: shard[1]]
    return jobs


def claim_folder(processed: ProcessedData, kind: str, settings: dict[str, Any], args: argparse.Namespace) -> None:
    """Make sure that the kind's folder holds files of these settings only; UserError where it holds others."""
    folder = processed.kind_dir(kind)
    partial = args.scenes is not None or args.shard is not None
    processed.describe(NAME)
    processed.remove_abandoned(kind)
    if args.overwrite and partial:
        processed.check_unpacked(kind)
    elif args.overwrite:
        processed.remove(kind)
    found = processed.settings(kind)
    if args.overwrite and found is not None and found != settings:
        raise UserError(
            f"{folder} {difference(found, settings)}; --overwrite with other settings replaces every file, so it can't "
            "be combined with --scenes or --shard"
        )
    if found is None and processed.frames(kind):
        raise UserError(f"{folder} holds files but no settings.json (an --overwrite cut short?); run with --overwrite")
    write_json_once(processed.settings_path(kind), settings)
    found = processed.settings(kind)
    if found != settings:
        raise UserError(f"{folder} {difference(found, settings)}; use --overwrite or another --processed-root")


def difference(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """'was made with size [256, 160], you ask for size [1024, 1024]'."""
    keys = [key for key in sorted({*found, *asked}) if found.get(key) != asked.get(key)]
    made = ", ".join(f"{key} {found.get(key)}" for key in keys)
    return f"was made with {made}, you ask for {', '.join(f'{key} {asked.get(key)}' for key in keys)}"


# ---- workers --------------------------------------------------------------------------------------------------


class Worker:
    """Turns one job into outcomes. Lives once in every worker process."""

    def __init__(self, stage: Stage, raw: RawData, processed: ProcessedData, settings: dict[str, Any], overwrite: bool):
        self.stage, self.raw, self.processed, self.settings = stage, raw, processed, settings
        self.overwrite = overwrite
        self.suffix = stage.suffix(settings)

    def prepare(self) -> None:
        cv2.setNumThreads(1)  # the pool already uses every core that was asked for
        self.stage.prepare(self.settings)

    def run(self, job: Any) -> list[Outcome]:
        try:
            return [self._run_frame(*label) for label in self.stage.labels(self.raw, job)]
        except BadSource as error:
            if self.overwrite:
                self.processed.remove_labels(self.stage.kind, [job.scene])
            return [Outcome(str(job), "failed", str(error.path), error.reason)]

    def _run_frame(self, frame: Frame, source: Path, make: Callable[[], Label]) -> Outcome:
        target = self.processed.path(self.stage.kind, frame, self.suffix)
        if not self.overwrite and self.processed.exists(self.stage.kind, frame, self.suffix):
            return Outcome(str(frame), "present")
        try:
            label = make()
        except Exception as error:  # whatever a broken file raises, it is named and the rest goes on
            target.unlink(missing_ok=True)
            return Outcome(str(frame), "failed", str(source), reason_of(error))
        if label.content is None:
            target.unlink(missing_ok=True)
            return Outcome(str(frame), "without_label", str(source), counts=label.counts)
        try:
            write_label(target, label.content)
        except OSError as error:
            raise UserError(f"can't write {target}: {error.strerror}; a rerun goes on from here") from None
        return Outcome(str(frame), "written", counts=label.counts, copies_differ=self._copies_differ(frame))

    def _copies_differ(self, frame: Frame) -> bool:
        copies = self.raw.copies(self.stage.raw_kind, frame) if self.stage.raw_kind in RAW_KINDS else []
        return len(copies) > 1 and not filecmp.cmp(*copies, shallow=False)


class BadSource(Exception):
    """A raw file that holds many frames can't be read at all."""

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason


def write_label(path: Path, content: np.ndarray | bytes) -> None:
    with whole_file(path) as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            np.save(file, content, allow_pickle=False)


_worker: Worker  # set once in every worker process


def _start_worker(worker: Worker) -> None:
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker.prepare()


def _end_with_parent() -> None:
    """Workers of a pool outlive a parent that is killed with -9; these do not."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_in_worker(job: Any) -> list[Outcome]:
    return _worker.run(job)


def run_jobs(worker: Worker, jobs: list[Any], threads: int) -> Iterator[list[Outcome]]:
    """Outcomes of each job, in the jobs' order; one worker runs in this process."""
    if threads == 1:
        worker.prepare()
        yield from map(worker.run, jobs)
        return
    # spawn: a forked child of a process with OpenCV's threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(threads, len(jobs) or 1), context, _start_worker, (worker,))
    try:
        yield from pool.map(_run_in_worker, jobs, chunksize=4)
    except BrokenProcessPool:
        raise UserError("a worker process was killed (out of memory?); use fewer --threads; a rerun goes on") from None
    finally:
        pool.shutdown(cancel_futures=True)


# ---- progress and report --------------------------------------------------------------------------------------


def outcomes_of(results: Iterable[list[Outcome]], total: int, name: str) -> Iterator[Outcome]:
    """Pass the outcomes on one by one; failures are shown when they occur."""
    for outcomes in progress(results, total, name):
        for outcome in outcomes:
            if outcome.status == "failed":
                warn(f"failed: {outcome.path}: {outcome.reason}")
            yield outcome


class Report:
    """Counts of one run, and every frame that failed or has no label by name."""

    def __init__(self, kind: str, settings: dict[str, Any]):
        self.kind, self.settings = kind, settings
        self.status: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.without_label: list[str] = []
        self.differing_copies: list[str] = []
        self.failures: list[dict[str, str]] = []

    def add(self, outcome: Outcome) -> None:
        self.status[outcome.status] += 1
        self.counts.update(outcome.counts)
        if outcome.status == "without_label":
            self.without_label.append(outcome.frame)
        if outcome.copies_differ:
            self.differing_copies.append(outcome.frame)
        if outcome.status == "failed":
            self.failures.append({key: asdict(outcome)[key] for key in ("frame", "path", "reason")})

    def summary(self) -> str:
        status = self.status
        return (
            f"{self.kind}: {status['written']} written, {status['present']} already there, "
            f"{status['without_label']} without label, {status['failed']} failed"
            + (f"; {len(self.differing_copies)} frames lie in two folders and differ" if self.differing_copies else "")
        )

    def write(self, path: Path) -> None:
        status = {key: self.status[key] for key in ("written", "present", "without_label", "failed")}
        names = {
            "without_label_frames": self.without_label,
            "differing_copies": self.differing_copies,
            "failures": self.failures,
        }
        content = {"kind": self.kind, **status, "counts": self.counts, **names, "settings": self.settings}
        write_json(path, content, indent=2)
