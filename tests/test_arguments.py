"""Flags take what their type says; everything else is refused by argparse, which names the flag."""

import argparse

import pytest
import torch

from arguments import add_device_argument, number, shard_of, whole
from training import distributed


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("007", 7), ("65536", 65536)])
def test_a_whole_number(text: str, value: int) -> None:
    assert whole(1, 65536)(text) == value


@pytest.mark.parametrize("text", ["0", "-3", "65537", "1.5", "1e3", "", " ", "many", "9" * 5000, "--4", "²"])
def test_what_is_no_whole_number_in_the_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 to 65536") as refused:
        whole(1, 65536)(text)
    assert len(str(refused.value)) < 100


def test_a_range_without_an_end_does_not_name_one() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"'0' is not a whole number of at least 1$"):
        whole(1)("0")


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1.01", "x", "", "1e400"])
def test_what_is_no_number_in_the_range(text: str) -> None:
    assert number(0, 1)("0.25") == 0.25
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 to 1"):
        number(0, 1)(text)


def test_a_shard() -> None:
    assert shard_of("2/8") == (2, 8)
    for text in ("0/8", "9/8", "2", "2/8/9", "2/8/x", "a/b", "-1/8", "1/" + "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match="is not I/N with 1 <= I <= N"):
            shard_of(text)


def test_a_device_that_is_not_given_is_settled_later() -> None:
    parser = argparse.ArgumentParser()
    add_device_argument(parser)
    assert parser.parse_args([]).device is None
    assert parser.parse_args(["--device", "cuda:1"]).device == "cuda:1"
    assert distributed.start(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
