"""A metric kept frame by frame: confusions and sums of errors, so that other questions need no new run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from datasets.files import whole_file
from tasks.base import Target, Task


class FrameByFrame:
    """Stands for a task's metric in training/evaluation.py and notes what each frame alone adds to its states."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self.frames: list[dict[str, np.ndarray]] = []  # of each frame, state -> value

    def to(self, device: torch.device) -> "FrameByFrame":
        self.metric.to(device)
        return self

    def update(self, predictions: Any, target: Target) -> None:
        self.metric.update(predictions, target)
        alone = self.metric.clone()
        for place in range(len(next(iter(target.values())))):
            alone.reset()
            alone.update(
                predictions[place : place + 1], {key: value[place : place + 1] for key, value in target.items()}
            )
            self.frames.append({name: as_array(getattr(alone, name)) for name in alone._defaults})

    def compute(self) -> dict[str, float]:
        return self.metric.compute()


class RecordedTask:
    """Stands for a task; the first metric that is asked of it, the one over the whole split, is kept frame by frame."""

    def __init__(self, task: Task):
        self.task = task
        self.recorded: FrameByFrame | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def metric(self) -> Metric | FrameByFrame:
        if self.recorded is not None:
            return self.task.metric()
        self.recorded = FrameByFrame(self.task.metric())
        return self.recorded


def as_array(state: Tensor | list[Tensor]) -> np.ndarray:
    """A metric's state; a list of parts as one flat array."""
    whole = state if isinstance(state, Tensor) else torch.cat([part.flatten() for part in state])
    return whole.cpu().numpy()


def save_frames(path: Path, names: Mapping[str, Sequence[str]], recorded: Mapping[str, FrameByFrame]) -> None:
    """Write all tasks' states into one compressed .npz: TASK/frames, and TASK/STATE with the frames first.

    States whose length differs from frame to frame lie one after the other, TASK/STATE/lengths beside them.
    ValueError: a frame of the split was not seen.
    """
    arrays: dict[str, np.ndarray] = {}
    for task, metric in recorded.items():
        if len(metric.frames) != len(names[task]):
            missing = len(names[task]) - len(metric.frames)
            raise ValueError(f"{task}: {missing} of {len(names[task])} frames could not be evaluated")
        arrays[f"{task}/frames"] = np.array(names[task])
        for state in metric.frames[0]:
            values = [frame[state] for frame in metric.frames]
            if len({value.shape for value in values}) == 1:
                arrays[f"{task}/{state}"] = small(np.stack(values))
            else:
                arrays[f"{task}/{state}"] = np.concatenate(values)
                arrays[f"{task}/{state}/lengths"] = np.array([len(value) for value in values])
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def small(values: np.ndarray) -> np.ndarray:
    """Counts in as few bytes as hold them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0)))) if values.dtype.kind == "i" else values
