"""What configs/gpu sets fits the card that it is for, and is the largest that does."""

import pytest
import torch

from benchmarks.gpus import gpu_files, needed, next_larger
from benchmarks.memory import Case, shipped_cases

FILES = gpu_files()
CHEAP = ["single task: segmentation", "single task: steering", "single task: box"]  # seconds each; the others a minute


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
    larger = next_larger(case.micro_batch_size, case.config.portions().block_size)
    assert larger is None or needed(case, larger) > card


def test_the_next_larger_divides_the_block() -> None:
    assert (next_larger(2, 16), next_larger(2, 9), next_larger(8, 8)) == (4, 3, None)
