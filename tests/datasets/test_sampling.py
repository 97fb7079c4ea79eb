"""The order of samples: blocks of one pool, cut into micro-batches that change nothing."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datasets.a2d2 import Sample
from datasets.layout import Frame
from datasets.sampling import MicroBatchSampler, Sampling, epoch_order, micro_batches

POOLS = (("depth",), ("box", "depth"), ("steering",))


def samples_of(*counts: int) -> list[Sample]:
    """So many samples of each pool, mixed."""
    pools = [pool for pool, count in zip(POOLS, counts, strict=False) for _ in range(count)]
    pools = pools[::2] + pools[1::2]
    return [Sample(Frame("20180807_145028", f"{place:09d}"), pool) for place, pool in enumerate(pools)]


counts = st.lists(st.integers(0, 40), min_size=3, max_size=3).filter(any)


@given(counts, st.sampled_from([8, 6, 1]), st.integers(0, 3), st.integers(0, 3))
def test_every_sample_once_in_blocks_of_one_pool(counts: list[int], block_size: int, seed: int, epoch: int) -> None:
    samples = samples_of(*counts)
    order = epoch_order(samples, block_size, seed, epoch)
    assert sorted(place for block in order for place in block) == list(range(len(samples)))
    short: Counter[tuple[str, ...]] = Counter()
    for block in order:
        (pool,) = {samples[place].tasks for place in block}
        assert 1 <= len(block) <= block_size
        short[pool] += len(block) < block_size
    assert all(number <= 1 for number in short.values())  # only what is left of a pool


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_processes_share_a_block(length: int, size: int, processes: int) -> None:
    block = list(range(100, 100 + length))
    shares = [micro_batches(block, size, rank, processes) for rank in range(processes)]
    assert sorted(place for share in shares for part in share for place in part) == block
    assert all(1 <= len(part) <= size for share in shares for part in share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_micro_batches_of_a_short_block() -> None:
    assert micro_batches([5, 6, 7], 2) == [[5, 6], [7]]
    assert [micro_batches([5, 6, 7], 2, rank, 4) for rank in range(4)] == [[[5, 6]], [[7]], [], []]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    samples = samples_of(40, 30, 20)
    first = epoch_order(samples, 8, seed=0, epoch=0)
    assert epoch_order(samples, 8, seed=0, epoch=0) == first
    assert epoch_order(samples, 8, seed=0, epoch=1) != first
    assert epoch_order(samples, 8, seed=1, epoch=0) != first
    assert first != sorted(first)


def test_pools_are_mixed() -> None:
    samples = samples_of(40, 40)
    pools = [samples[block[0]].tasks for block in epoch_order(samples, 4, 0, 0)]
    assert pools not in ([POOLS[0]] * 10 + [POOLS[1]] * 10, [POOLS[1]] * 10 + [POOLS[0]] * 10)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_keeps_the_order(workers: int) -> None:
    sampler = MicroBatchSampler()
    loader = DataLoader(list(range(20)), batch_sampler=sampler, num_workers=workers, collate_fn=tuple)
    for epoch in range(2):  # the loop sets a new order before each epoch
        sampler.order = epoch_order(samples_of(20), 8, 0, epoch)
        assert len(loader) == len(sampler.order)
        assert list(loader) == [tuple(block) for block in sampler.order]


# ---- other samplings than proportional ------------------------------------------------------------------------

TASK_POOLS = ("depth", "box", "steering")


def one_task_samples(*counts: int) -> list[Sample]:
    """So many samples of each task, one task each."""
    tasks = [task for task, count in zip(TASK_POOLS, counts, strict=True) for _ in range(count)]
    return [Sample(Frame("20180807_145028", f"{place:09d}"), (task,)) for place, task in enumerate(tasks)]


def drawn(samples: list[Sample], sampling: Sampling, **options: int) -> Counter[int]:
    """Place of a sample -> how often an epoch visits it."""
    order = epoch_order(samples, 8, options.get("seed", 0), options.get("epoch", 0), sampling)
    return Counter(place for block in order for place in block)


def drawn_by_task(samples: list[Sample], sampling: Sampling) -> dict[str, int]:
    visits = drawn(samples, sampling)
    return {
        task: sum(visits[place] for place, sample in enumerate(samples) if sample.tasks == (task,))
        for task in TASK_POOLS
    }


some_of_each = st.lists(st.integers(1, 40), min_size=3, max_size=3)
weights = st.fixed_dictionaries({task: st.floats(0.1, 10) for task in TASK_POOLS})


@settings(max_examples=40)
@given(some_of_each, st.one_of(st.just("uniform"), weights))
def test_the_total_is_the_same_and_shares_hold_to_rounding(counts: list[int], sampling: Sampling) -> None:
    by_task = drawn_by_task(one_task_samples(*counts), sampling)
    shares = dict.fromkeys(TASK_POOLS, 1.0) if sampling == "uniform" else sampling
    assert sum(by_task.values()) == sum(counts)
    for task, count in by_task.items():
        assert abs(count - sum(counts) * shares[task] / sum(shares.values())) <= 1 + 1e-6


@settings(max_examples=40)
@given(some_of_each, st.one_of(st.just("uniform"), weights), st.integers(0, 3))
def test_small_pools_are_repeated_evenly(counts: list[int], sampling: Sampling, epoch: int) -> None:
    samples = one_task_samples(*counts)
    visits = drawn(samples, sampling, epoch=epoch)
    for task, size in zip(TASK_POOLS, counts, strict=True):
        times = [visits[place] for place, sample in enumerate(samples) if sample.tasks == (task,)]
        assert set(times) <= {sum(times) // size, -(-sum(times) // size)}


def test_uniform_by_hand() -> None:
    assert drawn_by_task(one_task_samples(40, 15, 5), "uniform") == {"depth": 20, "box": 20, "steering": 20}
    assert set(drawn(one_task_samples(40, 15, 5), "uniform").values()) == {1, 2, 4}


def test_weights_by_hand() -> None:
    samples = one_task_samples(40, 15, 5)
    weights = {"depth": 1, "box": 1, "steering": 2}
    assert drawn_by_task(samples, weights) == {"depth": 15, "box": 15, "steering": 30}


def test_the_frames_of_a_large_pool_take_turns() -> None:
    """An epoch sees half of the pool: not the same half every time."""
    samples = one_task_samples(40, 1, 1)
    epochs = [{place for place in drawn(samples, "uniform", epoch=epoch) if place < 40} for epoch in range(12)]
    assert {len(places) for places in epochs} == {14}
    assert len(set().union(*epochs)) == 40
    assert len({frozenset(places) for places in epochs}) == 12


def test_a_task_without_weight_is_not_drawn() -> None:
    samples = one_task_samples(10, 10, 10)
    assert drawn_by_task(samples, {"depth": 1.0, "box": 0.0}) == {"depth": 30, "box": 0, "steering": 0}


def test_a_weight_for_a_task_without_samples_changes_nothing() -> None:
    samples = one_task_samples(10, 20, 0)
    with_it, without = ({"depth": 1.0, "box": 1.0, **more} for more in ({"steering": 5.0, "lanes": 1.0}, {}))
    assert drawn(samples, with_it) == drawn(samples, without)
    assert drawn_by_task(samples, with_it) == {"depth": 15, "box": 15, "steering": 0}


@settings(max_examples=40)
@given(some_of_each, st.integers(0, 3))
def test_proportional_takes_each_once(counts: list[int], epoch: int) -> None:
    visits = drawn(one_task_samples(*counts), "proportional", epoch=epoch)
    assert visits == Counter(range(sum(counts)))


@pytest.mark.parametrize("sampling", ["uniform", {"depth": 3.0, "box": 1.0, "steering": 0.5}])
def test_blocks_are_of_one_task(sampling: Sampling) -> None:
    samples = one_task_samples(23, 11, 6)
    order = epoch_order(samples, 8, 0, 0, sampling)
    assert all(len({samples[place].tasks for place in block}) == 1 for block in order)
    assert sum(len(block) < 8 for block in order) <= 3
