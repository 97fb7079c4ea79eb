"""The order of samples in an epoch: blocks, and the micro-batches that they are processed in.

A block holds `block_size` samples of one pool (samples that want the same tasks). Optimisers step at the border of a
block only, so a result does not depend on how a block is cut into micro-batches.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.a2d2 import Sample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Places of samples in the list of samples; `ends_block`: the optimisers may step after it."""

    samples: tuple[int, ...]
    ends_block: bool


# "proportional": every sample once an epoch; "uniform": as many of each pool; or a weight for each task's pool
Sampling = Literal["proportional", "uniform"] | Mapping[str, float]


def epoch_order(
    samples: Sequence[Sample],
    block_size: int,
    micro_batch_size: int,
    seed: int,
    epoch: int,
    sampling: Sampling = "proportional",
) -> list[MicroBatch]:
    """As many samples as there are, in an order that depends on the seed and the epoch alone.

    Proportional sampling takes each sample exactly once; the others repeat small pools. The last block of each pool may
    be short: no sample is lost.
    """
    random = np.random.default_rng([seed, epoch])
    pools: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        pools[sample.tasks].append(place)
    draws = _draws({tasks: len(pool) for tasks, pool in pools.items()}, sampling)
    drawn = {tasks: _draw(random, pool, draws[tasks]) for tasks, pool in pools.items()}
    blocks = [block for pool in drawn.values() for block in _cut(pool, block_size)]
    order = []
    for i in random.permutation(len(blocks)):
        parts = _cut(blocks[i], micro_batch_size)
        order += [MicroBatch(tuple(part), ends_block=part is parts[-1]) for part in parts]
    return order


def _draws(sizes: Mapping[tuple[str, ...], int], sampling: Sampling) -> dict[tuple[str, ...], int]:
    """How many samples each pool gives in an epoch; together as many as there are samples."""
    if sampling == "proportional":
        return dict(sizes)
    weights = {
        tasks: 1.0 if sampling == "uniform" else sum(sampling.get(task, 0.0) for task in tasks) for tasks in sizes
    }
    bounds = np.rint(np.cumsum([0.0, *weights.values()]) / sum(weights.values()) * sum(sizes.values())).astype(int)
    return dict(zip(weights, np.diff(bounds).tolist(), strict=True))


def _draw(random: np.random.Generator, pool: list[int], count: int) -> list[int]:
    """`count` samples of a pool: whole permutations of it, one after the other, as far as they are needed."""
    rounds = [random.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate([np.empty(0, int), *rounds])[:count].tolist()


def _cut(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class MicroBatchSampler:
    """The DataLoader's batch sampler: the micro-batches that the loop sets before each epoch."""

    def __init__(self) -> None:
        self.order: Sequence[MicroBatch] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch.samples) for batch in self.order)

    def __len__(self) -> int:
        return len(self.order)
