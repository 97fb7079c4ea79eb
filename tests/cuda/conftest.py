"""Tests on a GPU: what the CPU gives, or as near as the precision allows. `pytest -m cuda`.

Skipped where there is none. A2D2_CUDA_TESTS=cpu runs on the CPU what can run there, to try the tests themselves.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datasets.processed import ProcessedData
from tests.training.golden import write_labels

DEVICE = os.environ.get("A2D2_CUDA_TESTS", "cuda")
# what deterministic trainings set: torch reads it at a process's first matrix product alone
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.cuda)
        if DEVICE == "cuda" and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
        elif DEVICE == "cpu" and item.get_closest_marker("gpu_only"):
            item.add_marker(pytest.mark.skip(reason="only a GPU can run it"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> ProcessedData:
    """24 frames with labels of every kind, by formula, at 32 x 32."""
    processed = ProcessedData(tmp_path_factory.mktemp("cuda") / "processed")
    write_labels(processed)
    return processed


@pytest.fixture(autouse=True)
def _global_settings() -> Iterator[None]:
    """Trainings set torch's determinism; TF32 would hide what differs."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
