"""What configs/gpu sets fits the card that it is for, is the largest that does, and the committed numbers are true."""

import json
from itertools import groupby
from typing import Any

import pytest
import torch

from benchmarks.gpus import gpu_files, needed, next_larger
from benchmarks.memory import Case, shipped_cases
from benchmarks.readme import RESULTS, gpus_table

FILES = gpu_files()
CHEAP = ["single task: segmentation", "single task: steering", "single task: box"]  # seconds each; the others a minute


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """What was estimated of all modes."""
    return json.loads((RESULTS / "gpus.json").read_text())["rows"]


def cases(card: float) -> dict[str, Case]:
    return {case.name: case for case in shipped_cases(FILES[card])}


def test_there_is_a_file_a_card() -> None:
    assert list(FILES) == [12e9, 24e9, 80e9]


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("card", FILES)
def test_the_largest_that_fits(card: float, name: str) -> None:
    torch.set_num_threads(1)
    case = cases(card)[name]
    assert needed(case) <= card
    larger = next_larger(case.micro_batch_size, case.config.block_size_of(case.mode))
    assert larger is None or needed(case, larger) > card


@pytest.mark.parametrize("card", FILES)
def test_every_shipped_mode_fits(card: float, rows: list[dict[str, Any]]) -> None:
    of_card = {row["case"]: row for row in rows if row["card"] == card}
    sizes = {name: row["micro_batch_size"] for name, row in of_card.items()}
    assert sizes == {name: case.micro_batch_size for name, case in cases(card).items()}, (
        "run `python -m benchmarks.gpus`"
    )
    assert not [name for name, row in of_card.items() if row["needed"] > card]


@pytest.mark.parametrize("card", FILES)
def test_no_larger_micro_batch_does(card: float, rows: list[dict[str, Any]]) -> None:
    """Balancing methods share the key of symmetric training: the largest is that of the hungriest."""
    of_card = [row for row in rows if row["card"] == card]
    for _, of_key in groupby(of_card, key=lambda row: row["case"].partition(",")[0]):
        larger = [row["larger_needed"] for row in of_key if row["larger"]]
        assert not larger or max(larger) > card


def test_the_next_larger_divides_the_block() -> None:
    assert (next_larger(2, 16), next_larger(2, 9), next_larger(8, 8)) == (4, 3, None)


def test_the_table_has_a_line_a_case() -> None:
    rows = [{"card": card, "case": "a", "micro_batch_size": 2, "needed": 0.5 * card} for card in (12e9, 24e9)]
    assert gpus_table({"rows": rows}).splitlines()[-1] == "| a | 2: 6.0 | 2: 12.0 |"
