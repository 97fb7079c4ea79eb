"""Which frames a synthetic data set has, and which quirk falls on which, before anything is rendered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np

from datasets.a2d2.raw import FRAMES_PER_SECOND, NAME, seconds_of
from datasets.frames import Frame
from datasets.synthetic.render import Moment
from datasets.synthetic.world import World

QUIRKS = (
    "no boxes",
    "duplicates",
    "empty sweep",
    "beside",
    "no steering",
    "rgba",
    "sentinel",
    "prefixed",
    "other camera",
)
FEWEST_FRAMES_FOR_QUIRKS = 6


@dataclass(frozen=True)
class FramePlan:
    """What is known of a frame before anything is rendered."""

    frame: Frame
    scene_index: int
    seed: int
    quirks: frozenset[str]
    has_boxes: bool = True  # else it lies in the second folder only

    @property
    def rng_seed(self) -> list[int]:
        return [self.seed, self.scene_index, int(self.frame.id)]

    @property
    def world(self) -> World:
        return _world(self.seed, self.scene_index)


@lru_cache(maxsize=16)
def _world(seed: int, scene_index: int) -> World:
    return World((seed, scene_index))


def scene_name(index: int, seed: int) -> str:
    """A name like 20180807_145028, later for each further scene."""
    rng = np.random.default_rng([seed, index, 1])
    day = datetime(2018, 8, 7) + timedelta(days=3 * index)
    return (day + timedelta(seconds=int(rng.integers(8 * 3600, 17 * 3600)))).strftime("%Y%m%d_%H%M%S")


def frame_numbers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers (30 a second) of a scene's labelled frames: gaps of 2.9 s median, 23 % of them under 1 s."""
    short = rng.random(count) < 0.23
    gaps = np.where(short, rng.uniform(0.15, 0.95, count), rng.uniform(1.5, 5.5, count))
    return 90 + np.cumsum(np.rint(gaps * FRAMES_PER_SECOND).astype(int))


def plan_scene(index: int, frames: int, seed: int, semantic: int = 0) -> list[FramePlan]:
    """The frames of a scene, in order of time: `frames` with boxes and, all over its time, `semantic` without."""
    rng = np.random.default_rng([seed, index, 2])
    name, numbers = scene_name(index, seed), frame_numbers(frames + semantic, rng)
    quirks: list[set[str]] = [set() for _ in range(frames)]
    if frames >= FEWEST_FRAMES_FOR_QUIRKS:
        order = rng.permutation(frames)
        for place, quirk in enumerate(QUIRKS):
            quirks[order[place % frames]].add(quirk)
    with_boxes = np.arange(frames) * len(numbers) // frames  # evenly: a split by time has its share of them
    odd = dict(zip(with_boxes.tolist(), quirks, strict=True))
    return [
        FramePlan(
            Frame(NAME, name, f"{number:09d}"), index, seed, frozenset(odd.get(place, ())), has_boxes=place in odd
        )
        for place, number in enumerate(numbers)
    ]


def moment_of(plan: FramePlan) -> Moment:
    """The world at the time of a frame."""
    overtaken = bool(plan.quirks & {"beside", "duplicates"})
    return Moment(plan.world, seconds_of(plan.frame), traffic="no boxes" not in plan.quirks, overtaken=overtaken)
