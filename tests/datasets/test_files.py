"""Reading files from several threads; what a file may be written over."""

import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from datasets.files import check_writable, npy_array
from errors import UserError


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


def test_a_file_takes_the_place_of_nothing_but_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to nothing").symlink_to("gone")
    for name in ("pipe", "to pipe", "loop", "to nothing"):
        with pytest.raises(UserError, match=f"{name} is a pipe, a device or a link that leads nowhere"):
            check_writable(tmp_path / name)
    (tmp_path / "file").write_text("")
    (tmp_path / "to file").symlink_to("file")
    for name in ("file", "to file", "new", "folder/new"):
        check_writable(tmp_path / name)
