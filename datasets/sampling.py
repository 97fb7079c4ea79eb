"""The order of samples in an epoch: blocks that mix tasks, and the micro-batches that they are processed in.

Optimisers step at the border of a block only, so a result depends neither on how a block is cut into micro-batches nor
on the processes that share them. Blocks are dealt so that every one of them is the epoch in small: after each, the
number of samples with each set of labels, and with each task's label, is as near its share of the epoch as whole
samples allow. (Drawn at random, a step of the backbone would see another mixture of the tasks each time.)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from datasets.samples import Sample, Visit

Block = list[Visit]
LabelSet = tuple[str, ...]  # the tasks whose labels a sample carries

# "proportional": every sample once an epoch; "uniform": as many of each pool; or a weight for each task's pool
Sampling = Literal["proportional", "uniform"] | Mapping[str, float]


def epoch_order(
    samples: Sequence[Sample], block_size: int, seed: int, epoch: int, sampling: Sampling = "proportional"
) -> list[Block]:
    """As many samples as there are, in blocks whose order depends on the seed and the epoch alone.

    Proportional sampling takes each sample exactly once; the others repeat small pools. The last block may be short: no
    sample is lost.
    """
    random = np.random.default_rng([seed, epoch])
    pools: dict[LabelSet, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        pools[sample.tasks].append(place)
    draws = _draws({tasks: len(pool) for tasks, pool in pools.items()}, sampling)
    drawn = [iter(_draw(random, pool, draws[tasks])) for tasks, pool in pools.items()]
    visited: Counter = Counter()
    order = []
    for shares in dealt(tuple(draws.items()), block_size):
        places = [next(pool) for pool, share in zip(drawn, shares, strict=True) for _ in range(share)]
        block = []
        for place in random.permutation(places).tolist():
            frame = samples[place].frame
            block.append(Visit(place, visited[frame]))
            visited[frame] += 1
        order.append(block)
    return order


def micro_batches(block: Block, size: int, rank: int = 0, processes: int = 1) -> list[Block]:
    """The part of a block that one process trains on, in portions of at most `size`.

    Portions are dealt in turn, so a process may get none of a short block.
    """
    return [block[start : start + size] for start in range(0, len(block), size)][rank::processes]


class MicroBatchSampler:
    """The DataLoader's batch sampler: the micro-batches that the loop sets before each epoch."""

    def __init__(self) -> None:
        self.order: Sequence[Block] = ()

    def __iter__(self) -> Iterator[Block]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


# ---- how many samples of each label set a block gets ----------------------------------------------------------------


@lru_cache(maxsize=4)  # of the run in hand: every epoch deals the same numbers
def dealt(totals: tuple[tuple[LabelSet, int], ...], block_size: int) -> list[list[int]]:
    """Label sets with their numbers of samples -> for each block, how many it gets of each.

    After every block the samples so far of each label set differ from its exact share by less than one. Within this,
    the label sets that are rounded up are chosen so that the tasks' numbers are near their shares as well.

    Rounding in one block can make it impossible to keep the rule later: then those go first that are due soonest
    (earliest due date keeps every such rule that can be kept: Steiner and Yeomans, "Level Schedules for Mixed-Model,
    Just-in-Time Processes", 1993).
    """
    sizes = np.array([size for _, size in totals], np.int64)
    total = int(sizes.sum())
    ends = np.minimum(np.arange(block_size, total + block_size, block_size), total)  # samples after each block
    shares = np.outer(ends, sizes)  # times `total`: whole numbers, so that nothing is rounded
    least, most = shares // total, -(-shares // total)
    tasks = list(dict.fromkeys(task for tasks, _ in totals for task in tasks))
    counts_for = np.array(
        [[task in label_set for task in tasks] for label_set, _ in totals], np.float64
    )  # sets x tasks

    blocks = []
    before = np.zeros_like(sizes)
    for i, end in enumerate(ends):
        lowest = np.maximum(before, least[i])
        spare = int(end - lowest.sum())
        after = _nearest(lowest, most[i], spare, shares[i] / total, counts_for)
        if not _can_go_on(after, ends[i:], least[i:]):
            after = _soonest_due(lowest, most[i], spare, least[i:])
        blocks.append((after - before).tolist())
        before = after
    return blocks


def _nearest(
    lowest: np.ndarray, most: np.ndarray, spare: int, shares: np.ndarray, counts_for: np.ndarray
) -> np.ndarray:
    """`lowest` with `spare` label sets rounded up so that sets and tasks are near their shares (least squares).

    First those that lack most, then exchanges of one set for another as long as one of them helps.
    """
    after = lowest.copy()
    free = np.flatnonzero(lowest < most)
    after[free[(lowest - shares)[free].argsort(kind="stable")][:spare]] += 1
    while True:
        up, down = np.flatnonzero(after < most), np.flatnonzero(after > lowest)
        if not (len(up) and len(down)):
            return after
        excess = after - shares
        slope = 2 * (excess + counts_for @ (excess @ counts_for))
        distance = np.square(counts_for[up, None] - counts_for[down]).sum(2)  # up x down: tasks that one of both has
        change = slope[up, None] - slope[down] + 2 + distance  # of the sum of squares
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] > -1e-9:
            return after
        after[up[i]] += 1
        after[down[j]] -= 1


def _can_go_on(after: np.ndarray, ends: np.ndarray, least: np.ndarray) -> bool:
    """Whether all that is due by the end of any later block still fits; the first of `ends` is now."""
    due = np.maximum(least - after, 0).sum(1)
    return bool((due <= ends - ends[0]).all())


def _soonest_due(lowest: np.ndarray, most: np.ndarray, spare: int, least: np.ndarray) -> np.ndarray:
    """`lowest` with the `spare` label sets rounded up that must be soonest."""
    due = (least <= lowest).sum(0)  # blocks until one more is due
    free = np.flatnonzero(lowest < most)
    after = lowest.copy()
    after[free[due[free].argsort(kind="stable")][:spare]] += 1
    return after


def _draws(sizes: Mapping[LabelSet, int], sampling: Sampling) -> dict[LabelSet, int]:
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
    rounds = [random.permutation(pool) for _ in range(math.ceil(count / len(pool)))]
    return np.concatenate([np.empty(0, int), *rounds])[:count].tolist()
