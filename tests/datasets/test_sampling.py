"""The order of samples: blocks of one pool, cut into micro-batches that change nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datasets.a2d2 import Sample
from datasets.layout import Frame
from datasets.sampling import MicroBatch, MicroBatchSampler, epoch_order

POOLS = (("depth",), ("box", "depth"), ("steering",))


def samples_of(*counts: int) -> list[Sample]:
    """So many samples of each pool, mixed."""
    pools = [pool for pool, count in zip(POOLS, counts, strict=False) for _ in range(count)]
    pools = pools[::2] + pools[1::2]
    return [Sample(Frame("20180807_145028", f"{place:09d}"), pool) for place, pool in enumerate(pools)]


def blocks_of(order: list[MicroBatch]) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    for part in order:
        blocks[-1] += part.samples
        if part.ends_block:
            blocks.append([])
    assert blocks.pop() == []  # the last micro-batch ends a block
    return blocks


counts = st.lists(st.integers(0, 40), min_size=3, max_size=3).filter(any)


@given(counts, st.sampled_from([(8, 8), (8, 4), (8, 1), (6, 3), (1, 1)]), st.integers(0, 3), st.integers(0, 3))
def test_every_sample_once_in_blocks_of_one_pool(
    counts: list[int], sizes: tuple[int, int], seed: int, epoch: int
) -> None:
    samples, (block_size, micro_batch_size) = samples_of(*counts), sizes
    order = epoch_order(samples, block_size, micro_batch_size, seed, epoch)
    assert sorted(place for part in order for place in part.samples) == list(range(len(samples)))
    assert all(1 <= len(part.samples) <= micro_batch_size for part in order)
    short: Counter[tuple[str, ...]] = Counter()
    for block in blocks_of(order):
        (pool,) = {samples[place].tasks for place in block}
        assert 1 <= len(block) <= block_size
        short[pool] += len(block) < block_size
    assert all(number <= 1 for number in short.values())  # only what is left of a pool


@given(counts, st.integers(0, 3))
def test_blocks_do_not_depend_on_the_micro_batch_size(counts: list[int], epoch: int) -> None:
    samples = samples_of(*counts)
    whole, cut, single = (blocks_of(epoch_order(samples, 8, size, 5, epoch)) for size in (8, 4, 1))
    assert whole == cut == single


def test_micro_batches_of_a_block() -> None:
    order = epoch_order(samples_of(11), 8, 4, 0, 0)
    assert sorted([len(part.samples), part.ends_block] for part in order) == [[3, True], [4, False], [4, True]]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    samples = samples_of(40, 30, 20)
    first = epoch_order(samples, 8, 4, seed=0, epoch=0)
    assert epoch_order(samples, 8, 4, seed=0, epoch=0) == first
    assert epoch_order(samples, 8, 4, seed=0, epoch=1) != first
    assert epoch_order(samples, 8, 4, seed=1, epoch=0) != first
    assert [part.samples for part in first] != sorted(part.samples for part in first)


def test_pools_are_mixed() -> None:
    samples = samples_of(40, 40)
    pools = [samples[block[0]].tasks for block in blocks_of(epoch_order(samples, 4, 4, 0, 0))]
    assert pools not in ([POOLS[0]] * 10 + [POOLS[1]] * 10, [POOLS[1]] * 10 + [POOLS[0]] * 10)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_keeps_the_order(workers: int) -> None:
    sampler = MicroBatchSampler()
    loader = DataLoader(list(range(20)), batch_sampler=sampler, num_workers=workers, collate_fn=tuple)
    for epoch in range(2):  # the loop sets a new order before each epoch
        sampler.order = epoch_order(samples_of(20), 8, 4, 0, epoch)
        assert len(loader) == len(sampler.order)
        assert list(loader) == [part.samples for part in sampler.order]
