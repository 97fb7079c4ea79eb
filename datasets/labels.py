"""Label regimes: which of its labels each training frame keeps. The study of partial labels needs them reproducible.

The choice for a frame depends on the seed and the frame alone, so all training scripts see the same frames with the
same labels, whatever tasks they train.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from datasets.layout import Frame

Labelled = dict[str, list[Frame]]  # task -> the frames that have its label, sorted


def keep_one(labelled: Mapping[str, Sequence[Frame]], proportions: Mapping[str, float], seed: int) -> Labelled:
    """Each frame keeps exactly one of the labels that it has, drawn by the tasks' proportions (1 where not listed)."""
    tasks_of: dict[Frame, list[str]] = {}
    for task in sorted(labelled):
        for frame in labelled[task]:
            tasks_of.setdefault(frame, []).append(task)
    kept: Labelled = {task: [] for task in labelled}
    for frame in sorted(tasks_of):
        tasks = [task for task in tasks_of[frame] if proportions.get(task, 1.0) > 0]
        if tasks:
            bounds = np.cumsum([proportions.get(task, 1.0) for task in tasks])
            place = np.searchsorted(bounds, _uniform(seed, frame) * bounds[-1], side="right")
            kept[tasks[place]].append(frame)
    return kept


def keep_fractions(labelled: Mapping[str, Sequence[Frame]], fractions: Mapping[str, float], seed: int) -> Labelled:
    """A share of the frames keeps a task's label: exactly round(fraction x frames) of them; all where not listed.

    A larger fraction keeps the frames of a smaller one.
    """
    return {
        task: sorted(
            sorted(frames, key=lambda frame, task=task: _uniform(seed, frame, task))[
                : round(fractions.get(task, 1.0) * len(frames))
            ]
        )
        for task, frames in labelled.items()
    }


def _uniform(seed: int, *key: object) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    return np.random.default_rng([seed, zlib.crc32(" ".join(map(str, key)).encode())]).random()
