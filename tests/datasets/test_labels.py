"""Label regimes: who keeps what depends on the seed and the frame alone."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.frames import Frame
from datasets.labels import (
    Labelled,
    frame_samples,
    hash_of,
    keep_fractions,
    keep_one,
    keep_random,
    label_samples,
    uniform,
)
from datasets.samples import Sample

TASKS = ("segmentation", "steering", "box", "depth")


def frames(count: int, scene: str = "20180807_145028") -> list[Frame]:
    return [Frame("a2d2", scene, f"{91 + 30 * number:09d}") for number in range(count)]


def fully_labelled(count: int) -> Labelled:
    return {task: frames(count) for task in TASKS}


def counts(labelled: Labelled) -> dict[str, int]:
    return {task: len(kept) for task, kept in labelled.items()}


def kept_by(labelled: Labelled) -> dict[Frame, str]:
    """Frame -> the task that keeps it, where only one does."""
    return {frame: task for task, kept in labelled.items() for frame in kept}


# label sets of 30 frames: each frame has any of the tasks, or none
partly = st.lists(st.sets(st.sampled_from(TASKS)), min_size=30, max_size=30).map(
    lambda sets: {task: [f for f, has in zip(frames(30), sets, strict=True) if task in has] for task in TASKS}
)

# ---- one label a frame ----------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(partly, st.integers(0, 5))
def test_every_frame_with_a_label_keeps_exactly_one_of_its_own(labelled: Labelled, seed: int) -> None:
    kept = keep_one(labelled, TASKS, {"box": 3.0}, seed)
    assert list(kept) == list(labelled)
    assert Counter(frame for some in kept.values() for frame in some) == Counter(set().union(*labelled.values()))
    for task, some in kept.items():
        assert set(some) <= set(labelled[task])
        assert some == sorted(some)


@pytest.mark.parametrize(
    "proportions",
    [{}, {"depth": 3.0}, {"segmentation": 0.1, "steering": 0.2, "box": 0.3, "depth": 0.4}, {"box": 0.0, "depth": 5.0}],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_proportions_are_respected(proportions: dict[str, float], seed: int) -> None:
    """To 4.5 standard deviations of the binomial distribution: 4,000 frames, the same ones in every run."""
    total = 4000
    shares = {task: proportions.get(task, 1.0) for task in TASKS}
    for task, count in counts(keep_one(fully_labelled(total), TASKS, proportions, seed)).items():
        share = shares[task] / sum(shares.values())
        assert abs(count - total * share) <= 4.5 * (total * share * (1 - share)) ** 0.5


def test_proportions_hold_among_the_labels_that_a_frame_has() -> None:
    labelled = fully_labelled(3000) | {"depth": [], "box": []}
    kept = counts(keep_one(labelled, TASKS, {"segmentation": 3.0, "depth": 100.0}, 0))
    assert kept["segmentation"] + kept["steering"] == 3000
    assert kept["segmentation"] == pytest.approx(2250, abs=110)


def test_a_task_of_proportion_0_keeps_nothing() -> None:
    only_box = frames(10, "20181108_091945")
    labelled = fully_labelled(500)
    labelled["box"] = labelled["box"] + only_box
    kept = keep_one(labelled, TASKS, {"box": 0.0}, 3)
    assert kept["box"] == []
    assert sum(counts(kept).values()) == 500  # the frames that have nothing but a box are left out
    assert not set(only_box) & set(kept_by(kept))


@settings(max_examples=30)
@given(st.sets(st.integers(0, 39), min_size=1), st.integers(0, 5))
def test_one_depends_on_seed_and_frame_not_on_the_other_frames(places: set[int], seed: int) -> None:
    everyone = kept_by(keep_one(fully_labelled(40), TASKS, {"depth": 2.0}, seed))
    some = [frames(40)[place] for place in sorted(places)]
    alone = kept_by(keep_one(dict.fromkeys(TASKS, some), TASKS, {"depth": 2.0}, seed))
    assert alone == {frame: everyone[frame] for frame in some}


def test_one_does_not_depend_on_the_order_of_tasks_or_frames() -> None:
    shuffled = {task: frames(200)[::-1] for task in reversed(TASKS)}
    assert keep_one(shuffled, TASKS, {"box": 2.0}, 1) == keep_one(fully_labelled(200), TASKS, {"box": 2.0}, 1)


def test_one_depends_on_the_seed() -> None:
    first, again, other = (kept_by(keep_one(fully_labelled(400), TASKS, {}, seed)) for seed in (0, 0, 1))
    assert first == again
    same = sum(first[frame] == other[frame] for frame in first)
    assert same == pytest.approx(100, abs=40)  # as independent draws agree: one in four


def test_a_kind_that_joins_the_race_moves_no_frame_between_the_others() -> None:
    """It wins some frames of each; whoever keeps its label keeps the same one."""
    four = kept_by(keep_one(fully_labelled(1000), TASKS, {}, 0))
    five = kept_by(keep_one(fully_labelled(1000) | {"lanes": frames(1000)}, [*TASKS, "lanes"], {}, 0))
    moved = {frame for frame in four if five[frame] != four[frame]}
    assert {five[frame] for frame in moved} == {"lanes"}
    assert len(moved) == pytest.approx(200, abs=55)


def test_kinds_that_are_not_in_the_race_keep_nothing_and_change_nothing() -> None:
    among_three = keep_one(fully_labelled(300), TASKS[:3], {}, 0)
    assert among_three[TASKS[3]] == []
    assert among_three == keep_one({task: frames(300) for task in TASKS[:3]}, TASKS[:3], {}, 0) | {TASKS[3]: []}


def test_draws_stay_what_they_are() -> None:
    """Numbers by the formula in the docstring, worked out apart: older runs must find their labels again."""
    frame = Frame("a2d2", "20180807_145028", "000000091")
    digest = hashlib.blake2b(b"3 a2d2/20180807_145028/000000091 box", digest_size=6).hexdigest()
    assert uniform(3, frame, "box") == (int(digest, 16) + 0.5) / 2**48


# ---- one or more labels a frame ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(partly, st.integers(0, 5))
def test_random_keeps_of_each_frame_the_label_of_one_and_others_of_its_own(labelled: Labelled, seed: int) -> None:
    one, kept = keep_one(labelled, TASKS, {"box": 3.0}, seed), keep_random(labelled, TASKS, {"box": 3.0}, seed)
    assert list(kept) == list(labelled)
    for task, some in kept.items():
        assert set(one[task]) <= set(some) <= set(labelled[task])
        assert some == sorted(set(some))


def test_each_number_of_labels_is_equally_likely() -> None:
    """And so is each label: of four it is among those of 1, 2, 3 or 4 in 5 of 8 frames. To 4.5 standard deviations."""
    kept = keep_random(fully_labelled(4000), TASKS, {}, 0)
    numbers = Counter(Counter(frame for some in kept.values() for frame in some).values())
    assert sorted(numbers) == [1, 2, 3, 4]
    for count in numbers.values():
        assert abs(count - 1000) <= 4.5 * (4000 * 0.25 * 0.75) ** 0.5
    for some in kept.values():
        assert abs(len(some) - 2500) <= 4.5 * (4000 * 0.625 * 0.375) ** 0.5


def test_random_depends_on_seed_and_frame_alone() -> None:
    kept = keep_random(fully_labelled(200), TASKS, {"box": 2.0}, 1)
    assert keep_random({task: frames(200)[::-1] for task in reversed(TASKS)}, TASKS, {"box": 2.0}, 1) == kept
    assert keep_random(fully_labelled(50), TASKS, {"box": 2.0}, 1) == {
        task: [frame for frame in some if frame in frames(50)] for task, some in kept.items()
    }
    assert keep_random(fully_labelled(200), TASKS, {"box": 2.0}, 2) != kept


# ---- fractions ------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(partly, st.floats(0, 1), st.integers(0, 5))
def test_the_share_is_exact_and_others_are_untouched(labelled: Labelled, fraction: float, seed: int) -> None:
    kept = keep_fractions(labelled, {"box": fraction}, seed)
    assert len(kept["box"]) == round(fraction * len(labelled["box"]))
    assert set(kept["box"]) <= set(labelled["box"])
    assert kept["box"] == sorted(set(kept["box"]))
    assert {**kept, "box": None} == {**labelled, "box": None}


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_a_larger_fraction_keeps_the_frames_of_a_smaller_one(a: float, b: float, seed: int) -> None:
    smaller, larger = (
        keep_fractions(fully_labelled(30), {"depth": fraction}, seed)["depth"] for fraction in sorted((a, b))
    )
    assert set(smaller) <= set(larger)


def test_fractions_0_and_1() -> None:
    kept = keep_fractions(fully_labelled(50), {"box": 0.0, "depth": 1.0}, 0)
    assert (kept["box"], kept["depth"]) == ([], frames(50))


def test_fractions_depend_on_the_seed_and_differ_between_tasks() -> None:
    share = dict.fromkeys(TASKS, 0.5)
    first, again, other = (keep_fractions(fully_labelled(400), share, seed) for seed in (0, 0, 1))
    assert first == again
    assert len(set(first["box"]) & set(other["box"])) == pytest.approx(100, abs=30)
    assert len(set(first["box"]) & set(first["depth"])) == pytest.approx(100, abs=30)  # not always the same frames


def test_the_order_among_frames_does_not_depend_on_the_others() -> None:
    """Of the frames that a part keeps, those of the whole come first: the ranks are the frames' own."""
    whole = set(keep_fractions({"box": frames(200)}, {"box": 0.3}, 4)["box"])
    part = frames(200)[50:150]
    kept = set(keep_fractions({"box": part}, {"box": 0.3}, 4)["box"])
    within = whole & set(part)
    assert within <= kept or kept <= within
    assert len(within) == pytest.approx(30, abs=14)


# ---- samples ----------------------------------------------------------------------------------------------------


def test_samples_a_frame_and_samples_a_label() -> None:
    a, b, c = frames(3)
    labelled = {"segmentation": [a, c], "steering": [], "box": [c], "depth": [a, b]}
    assert frame_samples(labelled, ["segmentation", "box", "steering"]) == [
        Sample(a, ("segmentation",)),
        Sample(c, ("segmentation", "box")),
    ]
    assert label_samples(labelled, ["segmentation", "box"]) == [
        Sample(a, ("segmentation",)),
        Sample(c, ("segmentation",)),
        Sample(c, ("box",)),
    ]


def test_the_hash_tells_lists_of_samples_apart() -> None:
    a, b = frames(2)
    lists = [[], [Sample(a, ("box",))], [Sample(a, ("depth",))], [Sample(a, ("box", "depth"))], [Sample(b, ("box",))]]
    lists += [[Sample(a, ("box",)), Sample(b, ("box",))], [Sample(b, ("box",)), Sample(a, ("box",))]]
    assert len({hash_of(samples) for samples in lists}) == len(lists)
    assert hash_of(lists[-1]) == hash_of(list(lists[-1]))
