"""What preprocessing shares, whatever the data set: worker pool, progress, resume, shards, the report.

A `Stage` is one step that writes one kind: it knows which frames a source has, and how a source file becomes a label.
`convert` runs it. A frame's file appears whole or not at all; a rerun does what is missing; a frame that can't be read
is named in the report and the rest goes on.
"""

import argparse
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import cv2
import numpy as np

import signals
from arguments import shard_of, whole
from datasets.files import whole_file, write_json, write_json_once
from datasets.frames import Frame
from datasets.images import check_pixels
from datasets.layout import add_root_arguments
from datasets.locks import alone, shared
from datasets.outcomes import Outcome, Report
from datasets.processed import ProcessedData
from errors import UserError, reason_of
from progress import progress, warn

Source = TypeVar("Source")  # where a data set's frames are found


@dataclass(frozen=True)
class Label:
    """One frame's result: what to write, and counts for the report (points dropped, duplicates removed, ...).

    content: None where the source file holds no label.
    """

    content: np.ndarray | bytes | None
    counts: dict[str, int] = field(default_factory=dict)


class Stage(ABC, Generic[Source]):
    """One preprocessing step: the frames that it finds in a source and how each becomes a label of its kind."""

    kind: str  # processed kind that it writes
    advice: ClassVar[str]  # what to do where no files are found, for messages
    describing: ClassVar[frozenset[str]] = frozenset()
    """Keys of the settings that decide no file's content: other values there replace the old ones."""

    def prepare(self, settings: dict[str, Any]) -> None:
        """Build look-up tables, once per worker process. Default: nothing."""

    def suffix(self, settings: dict[str, Any]) -> str | None:
        """Ending of the files where the kind has several. Default: the kind's only one."""
        return None

    @abstractmethod
    def searched(self, source: Source) -> Path:
        """The folder where the files are looked for, for error messages."""

    def raw_folders(self, source: Source) -> Iterable[Path]:
        """Folders below --data-root that hold raw data and nothing else. Default: none that is known."""
        return ()

    @abstractmethod
    def jobs(self, source: Source) -> list[Any]:
        """Units of work in a fixed order, each with a scene."""

    @abstractmethod
    def labels(self, source: Source, job: Any) -> Iterator[tuple[Frame, Path, Callable[[], Label]]]:
        """The frames of one job, each with its source file and the call that makes its label.

        Any exception of that call means: this file is bad.
        """

    def times(self, source: Source) -> dict[Frame, float]:
        """Seconds of the source's frames, for the camera's times.csv. Default: none are known."""
        return {}

    def copies_differ(self, source: Source, frame: Frame) -> bool:
        """Whether the frame's source file lies in two folders, with different contents. Default: no."""
        return False


# ---- command line ---------------------------------------------------------------------------------------------


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all preprocessing scripts have."""
    parser.add_argument(
        "--threads", type=whole(1), default=4, metavar="N", help="worker processes, such as 8 (default 4)"
    )
    add_root_arguments(parser)
    parser.add_argument(
        "--size",
        type=whole(1),
        nargs=2,
        default=(1024, 1024),
        metavar=("W", "H"),
        help="of images, masks and depth in pixels, such as 512 320 (default 1024 1024); boxes and steering angles do "
        "not depend on it",
    )
    parser.add_argument(
        "--scenes", nargs="+", metavar="SCENE", help="only these, such as 20180807_145028 (default: all)"
    )
    parser.add_argument(
        "--shard",
        type=shard_of,
        metavar="I/N",
        help="only units I, I+N, I+2N ... of the list, such as 2/8 in a job array (default: all)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files that are there (default: make what is missing)"
    )


def convert(
    stage: Stage[Source],
    source: Source,
    settings: dict[str, Any],
    args: argparse.Namespace,
    *,
    dataset: str,
    split: Mapping[str, list[str]] | None = None,
) -> int:
    """Run a stage on a source. Returns the exit code: 0, or 1 if a frame failed. UserError for wrong usage.

    settings: everything that decides what the files contain, for settings.json (JSON types only); dataset: its name;
    split: its official one, part -> frames as SCENE/ID.
    """
    try:
        check_pixels(*args.size)
    except ValueError as error:
        raise UserError(f"--size: {error}") from None
    processed = ProcessedData(args.processed_root)
    check_apart(processed.root, args.data_root, stage.raw_folders(source))
    jobs = select_jobs(stage, source, args)
    worker = Worker(stage, source, processed, settings, args.overwrite)
    hold = alone if replaces_all(args) else shared
    with hold(processed.kind_lock_path(stage.kind), f"{processed.kind_dir(stage.kind)}"):
        try:
            processed.describe(dataset, split, replace=replaces_all(args))
            claim_folder(worker, jobs, args)
            if times := stage.times(source):
                processed.write_times(times)
        except OSError as error:
            raise UserError(f"can't write below {processed.root}: {error.strerror} (--processed-root)") from None
        report = Report(stage.kind, settings)
        try:
            with closing(run_jobs(worker, jobs, args.threads)) as results:
                for outcome in outcomes_of(results, len(jobs), stage.kind):
                    report.add(outcome)
        finally:
            processed.remove_abandoned(stage.kind)  # of workers that were killed
        path = processed.report_path(stage.kind, args.shard)
        report.write(path)
    print(f"{report.summary()}; {path}")
    return 1 if report.failures else 0


def check_apart(processed: Path, data_root: Path, raw_folders: Iterable[Path]) -> None:
    """UserError where labels would be written among raw data, which is only read."""
    folder = processed.resolve()
    if folder == data_root.resolve() or any(folder.is_relative_to(raw.resolve()) for raw in raw_folders):
        raise UserError(f"--processed-root {processed} lies among the raw data of {data_root}; name another folder")


def select_jobs(stage: Stage[Source], source: Source, args: argparse.Namespace) -> list[Any]:
    """The jobs of the scenes and the shard asked for. UserError where there is no data, or none of a scene."""
    jobs, searched = stage.jobs(source), stage.searched(source)
    if not jobs:
        raise UserError(f"no raw files for this stage below {searched}; {stage.advice}")
    there = sorted({job.scene for job in jobs})
    if args.scenes is not None:
        if missing := sorted(set(args.scenes) - set(there)):
            raise UserError(f"--scenes: {', '.join(missing)} not found below {searched}; there are {', '.join(there)}")
        jobs = [job for job in jobs if job.scene in args.scenes]
    if args.shard is not None:
        jobs = jobs[args.shard[0] - 1 :: args.shard[1]]
    return jobs


def is_partial(args: argparse.Namespace) -> bool:
    """Whether only some of the frames are asked for."""
    return args.scenes is not None or args.shard is not None


def replaces_all(args: argparse.Namespace) -> bool:
    """Whether every file of the kind goes."""
    return args.overwrite and not is_partial(args)


def claim_folder(worker: "Worker", jobs: list[Any], args: argparse.Namespace) -> None:
    """Make sure that the kind's folder holds files of these settings only; UserError where it holds others.

    With --overwrite the old files go here, once a first new label could be made.
    """
    processed, stage, settings = worker.processed, worker.stage, worker.settings
    kind, folder = stage.kind, processed.kind_dir(stage.kind)
    wanted = deciding(settings, stage)
    processed.remove_abandoned(kind)
    if args.overwrite:
        processed.check_unpacked(kind)
    if args.overwrite or not os.path.lexists(processed.settings_path(kind)):
        worker.check(jobs if replaces_all(args) and processed.frames(kind) else ())
    if replaces_all(args):
        processed.remove(kind)
    found = processed.settings(kind)
    if args.overwrite and found is not None and (made := deciding(found, stage)) != wanted:
        raise UserError(
            f"{folder} {difference(made, wanted)}; --overwrite with other settings replaces every file, so it can't "
            "be combined with --scenes or --shard"
        )
    if found is None and processed.frames(kind):
        raise UserError(f"{folder} holds files but no settings.json (an --overwrite cut short?); run with --overwrite")
    write_json_once(processed.settings_path(kind), settings)
    found = processed.settings(kind)
    assert found is not None  # just written
    if (made := deciding(found, stage)) != wanted:
        raise UserError(f"{folder} {difference(made, wanted)}; use --overwrite or another --processed-root")
    if found != settings:
        write_json(processed.settings_path(kind), settings, indent=2)


def deciding(settings: dict[str, Any], stage: Stage[Any]) -> dict[str, Any]:
    """The settings without what only describes the files."""
    return {key: value for key, value in settings.items() if key not in stage.describing}


def difference(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """'was made with size [256, 160], you ask for size [1024, 1024]'."""
    keys = [key for key in sorted({*found, *asked}) if found.get(key) != asked.get(key)]
    made = ", ".join(f"{key} {found.get(key)}" for key in keys)
    return f"was made with {made}, you ask for {', '.join(f'{key} {asked.get(key)}' for key in keys)}"


# ---- workers --------------------------------------------------------------------------------------------------


class Worker(Generic[Source]):
    """Turns one job into outcomes. Lives once in every worker process."""

    def __init__(
        self,
        stage: Stage[Source],
        source: Source,
        processed: ProcessedData,
        settings: dict[str, Any],
        overwrite: bool,
    ):
        self.stage, self.source, self.processed, self.settings = stage, source, processed, settings
        self.overwrite = overwrite
        self.suffix = stage.suffix(settings)

    def prepare(self) -> None:
        cv2.setNumThreads(1)  # the pool already uses every core that was asked for
        self.stage.prepare(self.settings)

    def check(self, jobs: Iterable[Any]) -> None:
        """UserError unless these settings can be used, and a label of one of the jobs, if any, can be made."""
        reason, kind = "none has a label", self.stage.kind
        trial = copy(self)
        trial.stage = deepcopy(self.stage)  # what it prepares is not for the workers, which get this one
        try:
            trial.prepare()
        except (MemoryError, ValueError, cv2.error) as error:
            raise UserError(f"{kind} labels can't be made with these settings: {reason_of(error)}") from None
        for job in jobs:
            try:
                if any(make().content is not None for _, _, make in trial.stage.labels(self.source, job)):
                    return
            except Exception as error:  # whatever a broken file raises; the next one may be whole
                reason = f"{job}: {reason_of(error)}"
        if jobs:
            raise UserError(f"no new {kind} label can be made ({reason}), so the old files stay as they are")

    def run(self, job: Any) -> list[Outcome]:
        try:
            return [self._run_frame(*label) for label in self.stage.labels(self.source, job)]
        except BadSource as error:
            if self.overwrite:
                self.processed.remove_labels(self.stage.kind, [job.scene])
            return [Outcome(str(job), "failed", str(error.path), error.reason)]

    def _run_frame(self, frame: Frame, path: Path, make: Callable[[], Label]) -> Outcome:
        target = self.processed.path(self.stage.kind, frame, self.suffix)
        if not self.overwrite and self.processed.exists(self.stage.kind, frame, self.suffix):
            return Outcome(str(frame), "present")
        try:
            label = make()
        except Exception as error:  # whatever a broken file raises, it is named and the rest goes on
            target.unlink(missing_ok=True)
            return Outcome(str(frame), "failed", str(path), reason_of(error) or type(error).__name__)
        if label.content is None:
            target.unlink(missing_ok=True)
            return Outcome(str(frame), "without_label", str(path), counts=label.counts)
        try:
            write_label(target, label.content)
        except OSError as error:
            raise UserError(f"can't write {target}: {error.strerror}; a rerun goes on from here") from None
        differ = self.stage.copies_differ(self.source, frame)
        return Outcome(str(frame), "written", counts=label.counts, copies_differ=differ)


class BadSource(Exception):
    """A source file that holds many frames can't be read at all."""

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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker.prepare()


def _end_with_parent() -> None:
    """Workers of a pool outlive a parent that is killed with -9; these do not."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # of a worker
    parent.join()
    os._exit(1)


def _run_in_worker(job: Any) -> list[Outcome]:
    return _worker.run(job)


def run_jobs(worker: Worker, jobs: list[Any], threads: int) -> Generator[list[Outcome], None, None]:
    """Outcomes of each job, in the jobs' order; one worker runs in this process."""
    if threads == 1:
        worker.prepare()
        yield from map(worker.run, jobs)
        return
    # spawn: a forked child of a process with OpenCV's threads can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(threads, len(jobs) or 1), context, _start_worker, (worker,))
    try:
        with signals_left_to_parent():
            results = pool.map(_run_in_worker, jobs, chunksize=4)
        yield from results
    except BrokenProcessPool:
        raise UserError("a worker process was killed (out of memory?); use fewer --threads; a rerun goes on") from None
    except BaseException:
        for process in multiprocessing.active_children():  # labels appear whole or not at all
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def signals_left_to_parent() -> Iterator[None]:
    """Processes that are started within never see Ctrl-C and what else ends a script: the parent alone answers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *signals.ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- progress -------------------------------------------------------------------------------------------------


def outcomes_of(results: Iterable[list[Outcome]], total: int, name: str) -> Iterator[Outcome]:
    """Pass the outcomes on one by one; failures are shown when they occur."""
    for outcomes in progress(results, total, name):
        for outcome in outcomes:
            if outcome.status == "failed":
                warn(f"failed: {outcome.path}: {outcome.reason}")
            yield outcome
