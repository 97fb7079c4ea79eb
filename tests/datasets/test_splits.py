"""Training, validation and test frames never share a frame or stand close to each other."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.a2d2.raw import RawData, seconds_of
from datasets.frames import Frame
from datasets.spec import SPLITS
from datasets.splits import Split, joined, overfit, split_by_scenes
from datasets.splits import split_by_time as split_one
from errors import UserError

SCENES = ("20180807_145028", "20180810_142822", "20181108_091945")


def frames_of(numbers: list[int], scene: str = SCENES[0]) -> list[Frame]:
    return [Frame("a2d2", scene, f"{number:09d}") for number in numbers]


def every(seconds: int, count: int, scene: str = SCENES[0]) -> list[Frame]:
    return frames_of([30 * seconds * index for index in range(count)], scene)


def split_by_time(frames, *how, **more) -> Split:
    """Of A2D2's frames, whose number is their time; UserError as for a run."""
    return joined([split_one(frames, {frame: seconds_of(frame) for frame in frames}, *how, **more)])


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


numbers = st.lists(st.integers(0, 20_000), unique=True, max_size=60)
fractions = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.3, 0.1), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)])


@given(st.lists(numbers, min_size=1, max_size=3), fractions, st.integers(0, 4), st.sampled_from([0.0, 10.0, 33.4]))
def test_parts_share_no_frame_and_keep_their_distance(
    scenes: list[list[int]], shares: tuple[float, ...], gap_frames: int, gap_seconds: float
) -> None:
    frames = [frame for scene, found in zip(SCENES, scenes, strict=False) for frame in frames_of(found, scene)]
    try:
        split = split_by_time(frames, shares, gap_frames, gap_seconds)
    except UserError:  # too few frames
        return
    everything = [*split.train, *split.val, *split.test, *split.unused]
    assert sorted(everything) == sorted(frames)  # nothing lost, nothing twice
    order = {frame: place for place, frame in enumerate(sorted(frames))}
    for first, second in combinations(SPLITS, 2):
        for a in split.of(first):
            for b in split.of(second):
                if a.scene == b.scene:
                    assert order[b] - order[a] > gap_frames  # a is the earlier one: train, val, test
                    assert int(b.id) - int(a.id) >= gap_seconds * 30 - 1e-6


def test_default_gap_is_two_frames_and_ten_seconds() -> None:
    dense = split_by_time(frames_of(list(range(0, 3000, 15))))  # two frames a second
    for earlier, later in (("train", "val"), ("val", "test")):
        assert int(dense.of(later)[0].id) - int(dense.of(earlier)[-1].id) == pytest.approx(300, abs=15)
    sparse = split_by_time(every(20, 50))
    assert [int(sparse.val[0].id) - int(sparse.train[-1].id)] == [3 * 20 * 30]  # two frames lie between


def test_validation_and_test_get_their_share_and_training_pays_for_the_gaps() -> None:
    split = split_by_time(every(10, 100) + every(10, 50, SCENES[1]), (0.6, 0.3, 0.1))
    assert [len(split.of(name)) for name in SPLITS] == [56 + 26, 30 + 15, 10 + 5]
    assert len(split.unused) == 2 * 4
    assert max(split.train[:56]) < min(split.val[:30]) < max(split.val[:30]) < min(split.test[:10])
    assert split.summary() == "82 train, 45 val, 15 test, 8 unused (gaps between splits)"


def test_a_part_without_a_share_leaves_no_gap() -> None:
    split = split_by_time(every(10, 20), (0.5, 0.5, 0.0))
    assert not split.test
    assert (len(split.train), len(split.val), len(split.unused)) == (8, 10, 2)


def test_order_of_the_frames_does_not_matter() -> None:
    frames = every(7, 40) + every(3, 90, SCENES[2])
    assert split_by_time(frames) == split_by_time(frames[::-1])
    assert list(split_by_time(frames).train) == sorted(split_by_time(frames).train)


def test_too_few_frames_to_split_is_the_users_to_mend() -> None:
    with pytest.raises(UserError) as error:
        split_by_time(every(1, 4))
    assert "overfit" in one_line(error)
    with pytest.raises(UserError):
        split_by_time(every(10, 100), (1.0, 0.0, 0.0))


def test_whole_scenes() -> None:
    frames = [frame for scene in SCENES for frame in every(1, 3, scene)]
    split = split_by_scenes(frames, {"train": [SCENES[1]], "val": [SCENES[0]], "test": []})
    assert split.train == tuple(every(1, 3, SCENES[1]))
    assert split.val == tuple(every(1, 3, SCENES[0]))
    assert split.test == ()
    assert split.unused == tuple(every(1, 3, SCENES[2]))


def test_a_scene_in_two_parts_or_without_frames_is_refused() -> None:
    frames = [frame for scene in SCENES for frame in every(1, 3, scene)]
    with pytest.raises(UserError) as error:
        split_by_scenes(frames, {"train": [SCENES[0], SCENES[1]], "val": [SCENES[1]]})
    assert SCENES[1] in one_line(error)
    assert SCENES[0] not in str(error.value)
    with pytest.raises(UserError) as error:
        split_by_scenes(frames, {"train": [SCENES[0]], "val": ["20200101_000000"]})
    assert "20200101_000000" in one_line(error)
    with pytest.raises(UserError):
        joined([split_by_scenes(frames, {"train": [SCENES[0]]})])


def test_overfit_validates_on_the_training_frames() -> None:
    frames = every(1, 4)
    assert overfit(reversed(frames)) == Split(tuple(frames), tuple(frames), ())
    with pytest.raises(UserError):
        joined([overfit([])])


def test_json_round_trip() -> None:
    split = split_by_time(every(10, 50) + every(10, 30, SCENES[1]))
    content = json.loads(json.dumps(split.to_json()))
    assert content["val"][0] == str(split.val[0])
    assert Split.from_json(content) == split


def test_a_frame_of_either_folder_falls_into_the_part_of_its_neighbours(tmp_path: Path) -> None:
    """Every second frame lies in the folder without boxes, some in both: the parts do not know."""
    raw, frames = RawData(tmp_path), every(3, 200)
    for number, frame in enumerate(frames):
        in_folders = {0: raw.images_dirs[:1], 1: raw.images_dirs[1:], 2: raw.images_dirs}[number % 3]
        for folder in in_folders:
            path = raw.path_in(folder, "camera", frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    split = split_by_time(raw.frames("camera"))
    assert split == split_by_time(frames)
    for part, others in (("train", (*split.val, *split.test)), ("val", split.test)):
        assert all(abs(seconds_of(frame) - seconds_of(other)) >= 10 for frame in split.of(part) for other in others)
