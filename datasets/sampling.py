"""The order of samples in an epoch: blocks, and the micro-batches that they are processed in.

A block holds `block_size` samples of one pool (samples that want the same tasks). Optimisers step at the border of a
block only, so a result does not depend on how a block is cut into micro-batches.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.a2d2 import Sample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Places of samples in the list of samples; `ends_block`: the optimisers may step after it."""

    samples: tuple[int, ...]
    ends_block: bool


def epoch_order(
    samples: Sequence[Sample], block_size: int, micro_batch_size: int, seed: int, epoch: int
) -> list[MicroBatch]:
    """Every sample exactly once, in an order that depends on the seed and the epoch alone.

    The last block of each pool may be short: no sample is lost.
    """
    random = np.random.default_rng([seed, epoch])
    pools: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        pools[sample.tasks].append(place)
    blocks = [block for pool in pools.values() for block in _cut(random.permutation(pool).tolist(), block_size)]
    order = []
    for i in random.permutation(len(blocks)):
        parts = _cut(blocks[i], micro_batch_size)
        order += [MicroBatch(tuple(part), ends_block=part is parts[-1]) for part in parts]
    return order


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
