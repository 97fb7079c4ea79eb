"""Label regimes: which of its labels each training frame keeps. The study of partial labels needs them reproducible.

The choice for a frame depends on the seed and the frame alone, so all training scripts see the same frames with the
same labels, whatever tasks they train.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from datasets.frames import Frame
from datasets.samples import Sample

Labelled = dict[str, list[Frame]]  # kind of label -> the frames that have it, sorted


def keep_one(
    labelled: Mapping[str, Sequence[Frame]], kinds: Sequence[str], proportions: Mapping[str, float], seed: int
) -> Labelled:
    """Each frame keeps exactly one of its labels of these kinds, drawn by their proportions (1 where not listed).

    An exponential race: of the frame's kinds the one with the least -log(u) / proportion wins, u uniform and the kind's
    own; so each wins with its share of the frame's proportions. A kind that joins the race wins frames from the
    others, but moves none between them. Proportion 0 does not race.
    """
    return _keep_first(lambda frame, count: 1, labelled, kinds, proportions, seed)


def keep_random(
    labelled: Mapping[str, Sequence[Frame]], kinds: Sequence[str], proportions: Mapping[str, float], seed: int
) -> Labelled:
    """Each frame keeps one or more of its labels of these kinds: from 1 to all of them, each number equally likely.

    Which ones: those that win the race of `keep_one`, whose label is thus among them.
    """

    def number(frame: Frame, count: int) -> int:
        return 1 + int(count * uniform(seed, frame, "number of labels"))

    return _keep_first(number, labelled, kinds, proportions, seed)


def _keep_first(
    number: Callable[[Frame, int], int],
    labelled: Mapping[str, Sequence[Frame]],
    kinds: Sequence[str],
    proportions: Mapping[str, float],
    seed: int,
) -> Labelled:
    """Of a frame's labels that race, the first ones: so many as `number` says of the frame and how many there are."""
    kept: Labelled = {kind: [] for kind in labelled}
    racing = [kind for kind in kinds if kind in labelled and proportions.get(kind, 1.0) > 0]
    kinds_of: dict[Frame, list[str]] = {}
    for kind in racing:
        for frame in labelled[kind]:
            kinds_of.setdefault(frame, []).append(kind)
    for frame in sorted(kinds_of):
        times = {kind: -math.log(uniform(seed, frame, kind)) / proportions.get(kind, 1.0) for kind in kinds_of[frame]}
        for kind in sorted(times, key=times.__getitem__)[: number(frame, len(times))]:
            kept[kind].append(frame)
    return kept


def keep_fractions(labelled: Mapping[str, Sequence[Frame]], fractions: Mapping[str, float], seed: int) -> Labelled:
    """A share of the frames keeps a kind of label: exactly round(fraction x frames) of them; all where not listed.

    A larger fraction keeps the frames of a smaller one.
    """
    return {
        kind: sorted(
            sorted(frames, key=partial(uniform, seed, kind=kind))[: round(fractions.get(kind, 1.0) * len(frames))]
        )
        for kind, frames in labelled.items()
    }


def uniform(seed: int, frame: Frame, kind: str) -> float:
    """A number strictly between 0 and 1 that depends on the seed, the frame and the kind of label alone."""
    digest = hashlib.blake2b(f"{seed} {frame} {kind}".encode(), digest_size=6).digest()
    return (int.from_bytes(digest) + 0.5) / 2**48


# ---- from labels to samples -------------------------------------------------------------------------------------


def frame_samples(labelled: Mapping[str, Sequence[Frame]], tasks: Sequence[str]) -> list[Sample]:
    """Each frame once, with those of the tasks' labels that it keeps; frames without any are left out. Sorted."""
    tasks_of: dict[Frame, list[str]] = {}
    for task in tasks:
        for frame in labelled[task]:
            tasks_of.setdefault(frame, []).append(task)
    return [Sample(frame, tuple(tasks_of[frame])) for frame in sorted(tasks_of)]


def label_samples(labelled: Mapping[str, Sequence[Frame]], tasks: Sequence[str]) -> list[Sample]:
    """Each label by itself: a frame comes as often as it keeps labels of the tasks."""
    return [Sample(frame, (task,)) for task in tasks for frame in labelled[task]]


def hash_of(samples: Sequence[Sample]) -> str:
    """Of an ordered list of samples: the frames, and the labels that each carries."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.frame} {'+'.join(sample.tasks)}\n".encode())
    return digest.hexdigest()
