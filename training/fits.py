"""What a run learns from its own training labels before it starts: tasks' fits and constant baselines.

Both are functions of the run's training labels alone: validation and test labels decide nothing. They are kept below
the runs' folder under a hash of all that they depend on, since a start that reads every label again can take an hour.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from datasets.files import whole_file
from datasets.frames import Frame
from datasets.labels import hash_of
from datasets.processed import ProcessedData
from datasets.roots import Roots
from datasets.samples import Sample
from errors import UserError
from models.tensor_files import read_tensors
from progress import warn
from tasks.base import Task

VERSION = 1  # of the functions that are kept: raise it where one of them changes
READERS = 8  # threads: reading waits for the file system, and gives way to other threads meanwhile


class LabelReader(Protocol):
    """A task, or what reads its labels from elsewhere."""

    def read(self, processed: ProcessedData, frame: Frame) -> Any | None: ...


class Fits:
    """Fits and constant baselines of tasks over some data sets, read from `folder` where they are kept there."""

    def __init__(self, roots: Roots, folder: Path):
        self.roots, self.folder = roots, folder
        self._new: dict[Path, Any] = {}

    def keep(self) -> None:
        """Write those that were not there: once a run is sure to start, so that a mistake leaves nothing behind."""
        for path, content in self._new.items():
            try:
                with whole_file(path) as file:
                    torch.save(content, file)
            except OSError as error:
                warn(f"warning: {path} can't be written ({error.strerror}): the labels will be read again next time")
        self._new = {}

    def state(self, task: Task, frames: Sequence[Frame], source: str = "") -> dict[str, torch.Tensor]:
        """What the task learns from the frames' labels. UserError, begun with `source`: it can't."""

        def fit() -> dict[str, torch.Tensor]:
            task.fit(labels_of(task, self.roots, frames))
            return task.state()

        return self._kept("fit", task, frames, fit, source)

    def constant(self, task: Task, frames: Sequence[Frame], source: str = "") -> Any:
        """The task's constant baseline over the frames' labels. UserError, begun with `source`: no label."""
        return self._kept("constant", task, frames, lambda: task.constant(labels_of(task, self.roots, frames)), source)

    def _kept(self, what: str, task: Task, frames: Sequence[Frame], make: Callable[[], Any], source: str) -> Any:
        path = self.folder / f"{what}-{task.name}-{self._hash(task, frames)}.pt"
        if path.is_file():
            try:
                return read_tensors(path)
            except Exception as error:  # torch promises no type of error for a damaged file
                warn(f"warning: {path} can't be read ({type(error).__name__}): the labels are read again")
        try:
            self._new[path] = make()
        except ValueError as error:
            raise UserError(f"{source}{task.name}: {error}") from None
        return self._new[path]

    def _hash(self, task: Task, frames: Sequence[Frame]) -> str:
        """Of the frames, of what the labels say and when they last changed, and of the task's settings."""
        content = {
            "version": VERSION,
            "task": [type(task).__name__, task.settings.model_dump(mode="json"), task.spec.to_json()],
            "samples": hash_of([Sample(frame, (task.name,)) for frame in frames]),
            "labels": [self.roots[name].processed.changed(task.kind) for name in sorted({f.dataset for f in frames})],
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def labels_of(reader: LabelReader, roots: Roots, frames: Iterable[Frame]) -> Iterator[Any]:
    """A task's labels of the frames, in their order; those that can't be read are named and left out."""
    for frame, label in read_ahead(lambda frame: _read(reader, roots, frame), frames):
        if isinstance(label, Exception):
            warn(f"warning: left out: {frame}: {label}")
        elif label is not None:
            yield label


def _read(reader: LabelReader, roots: Roots, frame: Frame) -> Any:
    try:
        return reader.read(roots[frame.dataset].processed, frame)
    except (ValueError, OSError) as error:
        return error


def read_ahead(read: Callable[[Frame], Any], frames: Iterable[Frame]) -> Iterator[tuple[Frame, Any]]:
    """Each frame with what `read` gives of it, in their order; a few are read at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[tuple[Frame, Any]] = deque()
        for frame in frames:
            ahead.append((frame, pool.submit(read, frame)))
            if len(ahead) > 2 * READERS:
                first, reading = ahead.popleft()
                yield first, reading.result()
        for frame, reading in ahead:
            yield frame, reading.result()


def evaluate_constant(
    task: Task,
    roots: Roots,
    labelled: Sequence[Frame],
    samples: Sequence[Sample],
    fits: Fits,
    source: str = "",
    reader: LabelReader | None = None,
) -> dict[str, float]:
    """The metrics of a task's constant baseline, fitted to the `labelled` frames, over the samples' labels.

    No image is read. reader: what reads the labels that are evaluated (default: the task).
    """
    prediction, metric = fits.constant(task, labelled, source), task.metric()
    metric.distributed_available_fn = lambda: False  # one process does it for all
    frames = (sample.frame for sample in samples if task.name in sample.tasks)
    for label in labels_of(reader or task, roots, frames):
        target = task.collate([label])
        metric.update(task.constant_at_size_of(target, prediction), target)
    return metric.compute()
