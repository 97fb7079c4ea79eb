"""The order of samples in an epoch: blocks, and the micro-batches that they are processed in.

A block holds `block_size` samples of one pool (samples that want the same tasks). Optimisers step at the border of a
block only, so a result depends neither on how a block is cut into micro-batches nor on the processes that share them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from datasets.a2d2 import Sample

Block = list[int]  # places of samples in the list of samples

# "proportional": every sample once an epoch; "uniform": as many of each pool; or a weight for each task's pool
Sampling = Literal["proportional", "uniform"] | Mapping[str, float]


def epoch_order(
    samples: Sequence[Sample], block_size: int, seed: int, epoch: int, sampling: Sampling = "proportional"
) -> list[Block]:
    """As many samples as there are, in blocks whose order depends on the seed and the epoch alone.

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
    return [blocks[i] for i in random.permutation(len(blocks))]


def micro_batches(block: Block, size: int, rank: int = 0, processes: int = 1) -> list[Block]:
    """The part of a block that one process trains on, in portions of at most `size`.

    Portions are dealt in turn, so a process may get none of a short block.
    """
    return _cut(block, size)[rank::processes]


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
        self.order: Sequence[Block] = ()

    def __iter__(self) -> Iterator[Block]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
