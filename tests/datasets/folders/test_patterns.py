"""Which files a pattern finds and what its placeholders stand for."""

import re
from pathlib import Path

import pytest

from datasets.folders.patterns import Pattern
from errors import UserError


def found(root: Path, text: str) -> list[tuple[str, str, str]]:
    return [(match.scene, match.id, match.split) for match in Pattern(text).find(root)]


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_scene_id_and_split(tmp_path: Path) -> None:
    touch(tmp_path, "left/train/ulm/ulm_01_left.png", "left/val/bonn/b-2_left.png", "left/val/bonn/b-2_right.png")
    touch(tmp_path, "left/train/ulm/.hidden_left.png", "left/train/loose_left.png", "right/train/ulm/x_left.png")
    expected = [("ulm", "ulm_01", "train"), ("bonn", "b-2", "val")]
    assert found(tmp_path, "left/{split}/{scene}/{id}_left.png") == expected


def test_without_a_scene_it_is_all(tmp_path: Path) -> None:
    touch(tmp_path, "a.1.jpg", "b.jpg", "b.jpeg")
    assert found(tmp_path, "{id}.jpg") == [("all", "a.1", ""), ("all", "b", "")]


def test_two_placeholders_in_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "0001TP_00_9.png")
    assert found(tmp_path, "{scene}_{id}.png") == [("0001TP_00", "9", "")]


def test_a_second_one_stands_for_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "a/a_1.png", "a/b_2.png", "a_b/a_b_3.png", "x/1_1.png", "x/1_2.png")
    assert found(tmp_path, "{scene}/{scene}_{id}.png") == [("a", "1", ""), ("a_b", "3", "")]
    assert found(tmp_path, "{scene}/{id}_{id}.png") == [("x", "1", "")]


def test_a_star_stands_for_any_part_of_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "2011_09/d1/data/5.png", "2011_10/d2/data/5.png", "2011_10/d2/more/data/5.png")
    assert found(tmp_path, "*/{scene}/data/{id}.png") == [("d1", "5", ""), ("d2", "5", "")]


def test_dots_and_brackets_are_no_regular_expression(tmp_path: Path) -> None:
    touch(tmp_path, "a(1)/1.png", "a(1)/1_png")
    assert found(tmp_path, "a(1)/{id}.png") == [("all", "1", "")]


def test_a_folder_in_place_of_a_file_is_for_its_reader_to_name(tmp_path: Path) -> None:
    (tmp_path / "1.png").mkdir()
    assert [name for _, name, *_ in found(tmp_path, "{id}.png")] == ["1"]
    assert found(tmp_path, "nowhere/{id}.png") == []


@pytest.mark.parametrize("name", ["my picture.png", "a,b.png", "ä b.png"])
def test_a_name_that_no_frame_may_have(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(UserError, match="is not letters, digits") as caught:
        found(tmp_path, "{id}.png")
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{frame}/{id}.png", "unknown {frame}"),
        ("{id", "brace"),
        ("id}.png", "brace"),
        ("{}/{id}.png", "unknown {}"),
        ("/abs/{id}.png", "not a path"),
        ("../{id}.png", "not a path"),
        ("a//{id}.png", "not a path"),
        ("", "not a path"),
    ],
)
def test_what_is_no_pattern(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Pattern(text)


def test_match() -> None:
    pattern = Pattern("{scene}/IMG/center_{id}.jpg")
    assert pattern.match("a/IMG/center_5.jpg") == {"scene": "a", "id": "5"}
    assert pattern.match("IMG/center_5.jpg") is None
    assert pattern.match_name("center_5.jpg") == {"id": "5"}
    assert pattern.match_name("left_5.jpg") is None
