"""Train, validation and test frames: deterministic, no frame in two parts, no near-copies across parts.

Labelled frames of one scene are seconds apart, so a random split would put near-copies of training frames into the
validation part. Frames are split by time within each scene with a gap, or by scene.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.a2d2.raw import seconds_of
from datasets.frames import Frame
from errors import UserError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The frames of each part, sorted; `unused` lie in the gaps between parts or in scenes of no part."""

    train: tuple[Frame, ...]
    val: tuple[Frame, ...]
    test: tuple[Frame, ...]
    unused: tuple[Frame, ...] = ()

    def part(self, name: str) -> tuple[Frame, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def summary(self) -> str:
        counts = ", ".join(f"{len(self.part(name))} {name}" for name in PARTS)
        return f"{counts}, {len(self.unused)} unused (gaps between parts)"

    def to_json(self) -> dict[str, list[str]]:
        """Part -> frames as 'SCENE/ID'."""
        return {name: [str(frame) for frame in getattr(self, name)] for name in (*PARTS, "unused")}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Split":
        return cls(**{name: tuple(map(Frame.parse, frames)) for name, frames in content.items()})


def split_by_time(
    frames: Iterable[Frame], fractions: Sequence[float] = (0.8, 0.1, 0.1), gap_frames: int = 2, gap_seconds: float = 10
) -> Split:
    """Each scene in order of time: first the training part, last the test part.

    Between two parts at least `gap_frames` frames lie unused and at least `gap_seconds` pass (a frame's number / 30 is
    its time). Validation and test get their full share of the scene; the gaps are taken from the training part.
    """
    parts: dict[str, list[Frame]] = {name: [] for name in PARTS}
    unused: list[Frame] = []
    for scene_frames in _by_scene(frames).values():
        rest = scene_frames
        for name, fraction in zip(("test", "val"), fractions[:0:-1], strict=True):
            share = round(fraction * len(scene_frames))
            cut = len(rest) - min(share, len(rest))
            rest, part = rest[:cut], rest[cut:]
            if not part:  # a short scene: the gap before the test part has taken everything
                continue
            parts[name] += part
            rest, gap = _cut_gap(rest, part[0], gap_frames, gap_seconds)
            unused += gap
        parts["train"] += rest
    return _checked(Split(*(tuple(parts[name]) for name in PARTS), tuple(sorted(unused))))


def split_by_scenes(frames: Iterable[Frame], scenes: dict[str, Sequence[str]]) -> Split:
    """Whole scenes: `scenes` maps train, val and test to scene names. UserError: a scene twice, or without frames."""
    named = [scene for name in PARTS for scene in scenes.get(name, ())]
    by_scene = _by_scene(frames)
    if twice := sorted({scene for scene in named if named.count(scene) > 1}):
        raise UserError(f"data.split: {', '.join(twice)} is listed twice; a scene belongs to one part")
    if missing := sorted(set(named) - set(by_scene)):
        raise UserError(f"data.split: no frames of {', '.join(missing)}; there are {', '.join(by_scene)}")
    parts = (tuple(frame for scene in sorted(scenes.get(name, ())) for frame in by_scene[scene]) for name in PARTS)
    unused = tuple(frame for scene, listed in by_scene.items() if scene not in named for frame in listed)
    return _checked(Split(*parts, unused))


def overfit(frames: Iterable[Frame]) -> Split:
    """The training frames validate: shows with a handful of frames that a network can learn at all."""
    frames = tuple(sorted(frames))
    return _checked(Split(frames, frames, ()))


def _by_scene(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    scenes = defaultdict(list)
    for frame in sorted(frames):
        scenes[frame.scene].append(frame)
    return dict(scenes)


def _cut_gap(frames: list[Frame], later: Frame, gap_frames: int, gap_seconds: float) -> tuple[list[Frame], list[Frame]]:
    """Cut the end of `frames` off that is too close to the frame `later` -> (what stays, the gap)."""
    keep = max(len(frames) - gap_frames, 0)
    while keep > 0 and seconds_of(later) - seconds_of(frames[keep - 1]) < gap_seconds:
        keep -= 1
    return frames[:keep], frames[keep:]


def _checked(split: Split) -> Split:
    if not split.train or not split.val:
        raise UserError(
            f"the split leaves {split.summary()}: nothing to train on or to validate with; use more frames, other "
            "data.split.fractions, or data.split.mode=overfit for a handful of frames"
        )
    return split
