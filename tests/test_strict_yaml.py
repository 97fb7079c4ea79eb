"""YAML files: their keys, and what is wrong with them in one line."""

import os
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
        ("number: 1\nother: 2\n", "a.yaml: other: there is no such key; there are number, share"),
        ("number: 1\nshare: .nan\n", "a.yaml: share: Input should be a finite number"),
        ("number: x\nshare: y\n", "(and 1 more)"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        validated(Model, read_yaml(tmp_path / "a.yaml"), "a.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("1e-3", 0.001), ("1:30", "1:30"), ("20180807_160028", "20180807_160028"), ("on", "on"),
        ("2018-08-07", "2018-08-07"), ("0x1f", 31), ("-.5", -0.5), ("True", True), ("~", None), ("'1'", "1"),
        ("[20180807_160028, 1_000]", ["20180807_160028", "1_000"]), ("", None),
    ],
)  # fmt: skip
def test_plain_values_are_what_people_mean(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "a.yaml").write_text(f"key: {text}\r\n")
    (found,) = read_yaml(tmp_path / "a.yaml").values()
    assert (found, type(found)) == (value, type(value))


def test_aliases_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("\ufeffa: &x {b: 1}\nc: *x\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": 1}, "c": {"b": 1}}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "an alias holds itself"),
        ("a: &a {b: *a}", "an alias holds itself"),
        ("a: " + "[" * 100_000, "nested too deep"),
        ("a:\n  b: " + "9" * 5000, "line 2: 99999999999999999999... can't be read as a number"),
        ("a: !!timestamp 2018-08-07", "line 1: the tag tag:yaml.org,2002:timestamp is not read"),
        ("a: !!python/object:os.system {}", "python/object:os.system is not read"),
        ("{[1, 2]: 3}", "a key that is no plain value is not read"),
        ("a: !!int b", "b can't be read as a number; put a text in quotes"),
        ("a: 1\n0x1: b\n1: c", "line 3: 1 is there twice"),
        ("a: 1\x00", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_what_no_configuration_needs_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert str(caught.value).startswith(str(tmp_path / "a.yaml"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="a folder, pipe or device"):
            read_yaml(path)


def test_the_same_key_in_two_sections_and_of_two_types_is_not_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: {x: 1}\nb: {x: 1}\n1: x\n'1': y\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1}, 1: "x", "1": "y"}
