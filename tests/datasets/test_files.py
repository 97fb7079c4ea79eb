"""Reading files from several threads."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest

from datasets.files import npy_array


@pytest.fixture
def _threads_that_change_often() -> Iterator[None]:
    """Also in the midst of Python's own parser, where the garbage collector runs."""

    def work(phase: str, info: dict[str, int]) -> None:
        sum(range(50))

    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(work)
    gc.set_threshold(1)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.callbacks.remove(work)


@pytest.mark.usefixtures("_threads_that_change_often")
def test_a_whole_array_is_read_whatever_other_threads_read() -> None:
    file = BytesIO()
    np.save(file, np.arange(6, dtype=np.uint8).reshape(2, 3))
    content = np.frombuffer(file.getvalue(), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda _: int(npy_array(content).sum()), range(200)))
    assert sums == [15] * 200
