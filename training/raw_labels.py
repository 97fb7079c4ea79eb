"""Labels at the size of their own raw files, by the converters of preprocessing: for metrics at full resolution.

Networks see what preprocessing made; here only what they are judged by is larger.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from datasets.a2d2.raw import RawData
from datasets.folders.found import Job
from datasets.folders.patterns import Pattern
from datasets.folders.stages import map_stage
from datasets.frames import Frame
from datasets.processed import ProcessedData
from errors import UserError, reason_of
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from tasks.base import Task
from training.restore import Restored

A2D2_STAGES: dict[str, type[Segmentation] | type[Depth]] = {"segmentation": Segmentation, "depth": Depth}
Converter = Callable[[Frame], Any | None]  # a frame -> its map, numpy; None: the raw file holds no label


class RawLabels:
    """Reads a task's labels in its place: what the converter of a frame's data set makes of the raw file."""

    def __init__(self, task: Task, converters: Mapping[str, Converter]):
        self.task, self.converters = task, converters
        self.lock = Lock()  # converters keep memory from frame to frame

    def read(self, processed: ProcessedData, frame: Frame) -> Any | None:
        """As Task.read. ValueError: whatever a broken file raises."""
        try:
            with self.lock:
                label = self.converters[frame.dataset](frame)
            return None if label is None else self.task.parse(label)
        except Exception as error:
            raise ValueError(reason_of(error)) from None


def read_raw_labels(network: Restored, data_root: Path) -> None:
    """Have a network judged by the labels below `data_root`, at their own size, where they are maps.

    UserError: none is, or the raw files are not there.
    """
    for name, task in network.tasks.items():
        roots = {root: network.roots[root].processed for root in network.bound[name]}
        if all(processed.map_shape(task.kind) for processed in roots.values()):
            converters = {root: converter_of(processed, task.kind, data_root) for root, processed in roots.items()}
            network.readers[name] = RawLabels(task, converters)


def converter_of(processed: ProcessedData, kind: str, data_root: Path) -> Converter:
    """UserError: the settings do not say what the labels were made from, or it is not below `data_root`."""
    settings, source = processed.settings(kind) or {}, str(processed.settings_path(kind))
    try:
        if "recipe" in settings:
            found = _of_recipe(processed.name, kind, settings, data_root)
        else:
            found = _of_a2d2(kind, settings, RawData(data_root))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"--full-resolution: {source} does not say how its labels were made ({reason_of(error)})"
        ) from None
    if found is None:
        raise UserError(f"--full-resolution: no raw {kind} files of {processed.name} below {data_root} (--data-root)")
    return found


def _of_a2d2(kind: str, settings: Mapping[str, Any], raw: RawData) -> Converter | None:
    """At the camera's resolution, with the calibration that the processed labels were made with."""
    stage = A2D2_STAGES[kind]()
    stage.prepare({**settings, "size": settings["calibration"]["resolution"]})
    if not raw.frames(stage.raw_kind):
        return None
    return lambda frame: stage.convert(raw.path(stage.raw_kind, frame)).content


def _of_recipe(name: str, kind: str, settings: Mapping[str, Any], root: Path) -> Converter | None:
    """As the recipe says, of whose section for the kind the settings hold all."""
    stage = map_stage(kind, settings, size=None)
    found = (match for text in stage.section.files for match in Pattern(text).find(root))
    paths = {Frame(name, match.scene, match.id): match.path for match in found}
    if not paths:
        return None

    def convert(frame: Frame) -> Any:
        if frame not in paths:
            raise FileNotFoundError(f"no raw {kind} file below {root}")
        return stage.convert(Job(frame, paths[frame], paths[frame])).content

    return convert
