"""What a processed root says of itself: its name, its official split, the times of its frames."""

from pathlib import Path

import pytest

from datasets.files import read_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.staging import stage
from errors import UserError
from tests.processed_files import write_label

FRAMES = [Frame("toy", "a", "1"), Frame("toy", "a", "2"), Frame("toy", "b.c", "x-1")]
TIMES = {FRAMES[0]: 0.1, FRAMES[1]: 12.5, FRAMES[2]: 1 / 3}
SPLIT = {"train": ["a/1"], "val": ["a/2"], "test": []}


@pytest.fixture
def toy(processed: ProcessedData) -> ProcessedData:
    processed.describe("toy")
    return processed


def test_the_split_is_written_beside_the_name(processed: ProcessedData) -> None:
    processed.describe("toy", SPLIT)
    assert read_json(processed.dataset_path) == {"name": "toy", "split": SPLIT}
    processed.describe("toy", SPLIT)  # the same again


def test_without_a_split_there_is_none(toy: ProcessedData) -> None:
    assert read_json(toy.dataset_path) == {"name": "toy"}


def test_another_name_is_refused(toy: ProcessedData) -> None:
    for replace in (False, True):
        with pytest.raises(UserError, match="holds the data set toy, not toys"):
            toy.describe("toys", replace=replace)
    assert read_json(toy.dataset_path) == {"name": "toy"}


@pytest.mark.parametrize("other", [None, SPLIT | {"test": ["b.c/x-1"]}])
def test_another_split_is_refused_unless_it_may_be_replaced(processed: ProcessedData, other: dict | None) -> None:
    processed.describe("toy", SPLIT)
    with pytest.raises(UserError, match=r"dataset\.json has another split; use --overwrite"):
        processed.describe("toy", other)
    assert read_json(processed.dataset_path)["split"] == SPLIT
    processed.describe("toy", other, replace=True)
    assert read_json(processed.dataset_path).get("split") == other


def test_times_come_back_as_they_were_written(toy: ProcessedData) -> None:
    assert toy.times() == {}
    toy.write_times(dict(reversed(TIMES.items())))
    assert toy.times() == TIMES
    assert toy.times_path == toy.root / "camera" / "times.csv"
    assert toy.times_path.read_text().splitlines()[:3] == ["frame,seconds", "a/1,0.1", "a/2,12.5"]


def test_the_same_times_are_not_written_again(toy: ProcessedData) -> None:
    toy.write_times(TIMES)
    before = toy.times_path.stat()
    toy.write_times(TIMES)
    assert (toy.times_path.stat().st_ino, toy.times_path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    toy.write_times({FRAMES[0]: 2.0})
    assert toy.times() == {FRAMES[0]: 2.0}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "header"),
        ("frame,time\n", "header"),
        ("frame,seconds\na/1\n", "unpack"),
        ("frame,seconds\na/1,soon\n", "soon"),
        ("frame,seconds\na/1,nan\n", "not finite"),
        ("frame,seconds\n1,2.0\n", "toy/1"),
    ],
)
def test_broken_times_are_named_in_one_line(toy: ProcessedData, content: str, words: str) -> None:
    toy.write_times(TIMES)
    toy.times_path.write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        toy.times()
    assert str(toy.times_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_copy_has_the_times(toy: ProcessedData, tmp_path: Path) -> None:
    write_label(toy, "camera", FRAMES[0], 0)
    toy.write_times(TIMES)
    assert stage(toy, tmp_path / "copy").times() == TIMES


def test_times_go_with_the_images_that_they_were_made_with(toy: ProcessedData) -> None:
    toy.write_times(TIMES)
    toy.remove("depth")
    assert toy.times() == TIMES
    toy.remove("camera")
    assert toy.times() == {}
