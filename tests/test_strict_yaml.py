"""YAML files: their keys, and what is wrong with them in one line."""

from pathlib import Path

import pytest

from errors import UserError
from strict_yaml import StrictModel, read_yaml, validated


class Model(StrictModel):
    number: int
    share: float = 0.5


def test_keys_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("number: 3\nshare: 1e-3\n")
    assert validated(Model, read_yaml(tmp_path / "a.yaml"), "a.yaml") == Model(number=3, share=0.001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("number: [", "YAML"),
        ("- 1", "holds no keys"),
        ("", "holds no keys"),
        ("\xff", "holds no keys"),
        ("number: 1\nshare: 1.0\nnumber: 2\n", "line 3: number is there twice"),
        ("a: {b: [{c: 1, c: 2}]}", "line 1: c is there twice"),
        ("number: one", "a.yaml: number: Input should be a valid integer"),
        ("number: 1\nother: 2\n", "a.yaml: other: Extra inputs are not permitted"),
        ("number: 1\nshare: .nan\n", "a.yaml: share: Input should be a finite number"),
        ("other: 1\n", "(and 1 more)"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        validated(Model, read_yaml(tmp_path / "a.yaml"), "a.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_key_in_two_sections_and_of_two_types_is_not_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: {x: 1}\nb: {x: 1}\n1: x\n'1': y\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1}, 1: "x", "1": "y"}
