"""Train, validation and test frames: deterministic, no frame in two splits, no near-copies across splits.

Labelled frames of one scene are seconds apart, so a random choice would put near-copies of training frames among those
for validation. Frames are split by time within each scene with a gap, by scene, or as the data set itself says.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets.frames import Frame
from datasets.spec import SPLITS, DatasetSpec
from errors import UserError


@dataclass(frozen=True)
class Split:
    """The frames of each split, sorted; `unused` lie in the gaps between splits or in scenes of no split."""

    train: tuple[Frame, ...]
    val: tuple[Frame, ...]
    test: tuple[Frame, ...]
    unused: tuple[Frame, ...] = ()

    def of(self, name: str) -> tuple[Frame, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def with_val_in_train(self) -> "Split":
        """The same, its validation frames among those that train."""
        return replace(self, train=tuple(sorted(self.train + self.val)), val=())

    def summary(self) -> str:
        counts = ", ".join(f"{len(self.of(name))} {name}" for name in SPLITS)
        return f"{counts}, {len(self.unused)} unused (gaps between splits)"

    def to_json(self) -> dict[str, list[str]]:
        """Part -> frames as 'SCENE/ID'."""
        return {name: [str(frame) for frame in getattr(self, name)] for name in (*SPLITS, "unused")}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Split":
        return cls(**{name: tuple(map(Frame.parse, frames)) for name, frames in content.items()})


def split_by_time(
    frames: Iterable[Frame],
    seconds: Mapping[Frame, float],
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    gap_frames: int = 2,
    gap_seconds: float = 10,
) -> Split:
    """Each scene in order of time: first the training split, last the test split.

    Between two splits at least `gap_frames` frames lie unused and at least `gap_seconds` pass. Validation and test get
    their full share of the scene; the gaps are taken from the training frames. seconds: the time of each frame in its
    scene; a scene with a frame without one goes by the order of names (9 before 10), and by `gap_frames` alone.
    """
    parts: dict[str, list[Frame]] = {name: [] for name in SPLITS}
    unused: list[Frame] = []
    for scene_frames in _by_scene(frames).values():
        timed = all(frame in seconds for frame in scene_frames)
        rest = sorted(scene_frames, key=lambda frame: (seconds[frame] if timed else 0.0, _natural(frame.id)))
        for name, fraction in zip(("test", "val"), fractions[:0:-1], strict=True):
            share = round(fraction * len(scene_frames))
            cut = len(rest) - min(share, len(rest))
            rest, part = rest[:cut], rest[cut:]
            if not part:  # a short scene: the gap before the test split has taken everything
                continue
            parts[name] += part
            rest, gap = _cut_gap(rest, part[0], gap_frames, gap_seconds, seconds if timed else None)
            unused += gap
        parts["train"] += rest
    return Split(**{name: tuple(sorted(parts[name])) for name in SPLITS}, unused=tuple(sorted(unused)))


def split_by_scenes(frames: Iterable[Frame], scenes: Mapping[str, Sequence[str]]) -> Split:
    """Whole scenes: `scenes` maps train, val and test to names of scenes, SCENE or (of several data sets)
    DATASET/SCENE. UserError: a scene twice, or without frames."""
    by_scene = _by_scene(frames)
    named = {name: [_scene_named(scene, by_scene) for scene in scenes.get(name, ())] for name in SPLITS}
    chosen = [scene for found in named.values() for scene in found]
    if twice := sorted({scene for scene in chosen if chosen.count(scene) > 1}):
        raise UserError(f"data.split: {', '.join(twice)} is listed twice; a scene belongs to one split")
    splits = {
        part: tuple(frame for scene in sorted(found) for frame in by_scene[scene]) for part, found in named.items()
    }
    unused = tuple(frame for scene, listed in by_scene.items() if scene not in chosen for frame in listed)
    return Split(**splits, unused=unused)


def official_split(frames: Iterable[Frame], spec: DatasetSpec) -> Split:
    """As the data set's own lists of frames say; a frame of no list is unused, one without an image left out."""
    assert spec.split is not None
    there = {frame.in_dataset: frame for frame in frames}
    lists = {name: tuple(sorted(there[text] for text in spec.split[name] if text in there)) for name in SPLITS}
    listed = {frame for found in lists.values() for frame in found}
    if sum(map(len, lists.values())) > len(listed):
        raise UserError(f"the split in the dataset.json of {spec.name} has a frame in two lists")
    return Split(**lists, unused=tuple(sorted(set(there.values()) - listed)))


def joined(splits: Iterable[Split]) -> Split:
    """Of several data sets. UserError: nothing to train on or to validate with."""
    splits = list(splits)
    names = (*SPLITS, "unused")
    return _checked(
        Split(**{name: tuple(sorted(f for split in splits for f in getattr(split, name))) for name in names})
    )


def overfit(frames: Iterable[Frame]) -> Split:
    """The training frames validate: shows with a handful of frames that a network can learn at all."""
    frames = tuple(sorted(frames))
    return Split(frames, frames, ())


def _by_scene(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    """DATASET/SCENE -> its frames, sorted."""
    scenes = defaultdict(list)
    for frame in sorted(frames):
        scenes[f"{frame.dataset}/{frame.scene}"].append(frame)
    return dict(scenes)


def _scene_named(name: str, by_scene: Mapping[str, Sequence[Frame]]) -> str:
    found = [scene for scene in by_scene if name in (scene, scene.partition("/")[2])]
    if len(found) != 1:
        what = f"{name} is a scene of {len(found)} data sets" if found else f"no frames of {name}"
        raise UserError(f"data.split: {what}; there are {', '.join(by_scene)}")
    return found[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _cut_gap(
    frames: list[Frame], later: Frame, gap_frames: int, gap_seconds: float, seconds: Mapping[Frame, float] | None
) -> tuple[list[Frame], list[Frame]]:
    """Cut the end of `frames` off that is too close to the frame `later` -> (what stays, the gap)."""
    keep = max(len(frames) - gap_frames, 0)
    while seconds and keep > 0 and seconds[later] - seconds[frames[keep - 1]] < gap_seconds:
        keep -= 1
    return frames[:keep], frames[keep:]


def _checked(split: Split) -> Split:
    if not split.train or not split.val:
        raise UserError(
            f"the split leaves {split.summary()}: nothing to train on or to validate with; use more frames, other "
            "data.split.fractions, or data.split.mode=overfit for a handful of frames"
        )
    return split
