"""What tests of several packages share."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from signals import ENDING, when_ended
from tests.raw_files import small_raw_data

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "a2d2_real"

# the same examples on every machine, and no deadline: a slow machine is not a failure
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> RawData:
    """A few real A2D2 files; they may not be distributed with the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real A2D2 files in {REAL_DATA}")
    return RawData(REAL_DATA)


@pytest.fixture
def raw(tmp_path: Path) -> RawData:
    """An empty raw data set of 96x60 frames (tests/raw_files.py fills it)."""
    return small_raw_data(tmp_path / "raw")


@pytest.fixture
def processed(tmp_path: Path) -> ProcessedData:
    return ProcessedData(tmp_path / "processed")


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Scripts set and remove handlers; the next test starts as if nothing had happened."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD, *ENDING)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    when_ended(None)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A study sets torch's threads: more than a test's share of the cores would wait for each other for minutes."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)
