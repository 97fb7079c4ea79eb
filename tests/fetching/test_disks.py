"""Fetching onto disks that are full or read-only, and runs that are killed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetching import transfer
from tests.fetching.s3 import BOXES, BUCKET, BUS, Fault, Place, stalled


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_too_little_disk_is_told_before_anything_is_fetched(place: Place, small_disk: Path) -> None:
    place.dest = small_disk
    done = place.run()
    assert done.returncode == 2
    assert re.search(r"error: .* GB are needed", done.stderr)
    assert place.proxy.objects_asked() == []


def test_a_disk_that_fills_up_ends_the_run_and_leaves_whole_files(place: Place, small_disk: Path) -> None:
    place.dest = small_disk
    bucket, plan = place.bucket_and_plan()
    with pytest.raises(transfer.UserError, match="No space left on device; what is there stays, a rerun goes on"):
        transfer.fetch_all(bucket, plan.files, {}, transfers=4)
    expected = place.expected(BOXES, BUS)
    there = place.there()
    assert 0 < len(there) < len(expected)
    assert there == {path: expected[path] for path in there}


def test_a_read_only_destination(place: Place, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    place.dest = small_disk / "data"
    done = place.run()
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error == f"error: {place.dest}/.get_data/files.lock can't be made: Read-only file system"


def test_killed_at_ten_moments_and_run_again(place: Place) -> None:
    """Each time while the third file after a start is half on its way."""
    for _ in range(10):
        place.proxy.faults[:] = [Fault(f"/{BUCKET}/", stalled, times=1, after=2)]
        process = place.start("--transfers", "1")
        assert place.proxy.stalls.acquire(timeout=60)
        process.kill()
        process.wait()
        there, expected = place.there(), place.expected(BOXES, BUS)
        whole = {path: content for path, content in there.items() if path in expected}
        assert whole == {path: expected[path] for path in whole}
        assert all(path in expected or ".tmp-" in path.name for path in there)
    place.proxy.faults.clear()
    place.proxy.asked.clear()
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert place.there() == place.expected(BOXES, BUS)  # nothing temporary is left either
    assert len(place.proxy.objects_asked()) == 25 - 2 * 10  # resumed by what was there


def test_two_runs_at_once(place: Place) -> None:
    place.proxy.faults.append(Fault(f"/{BUCKET}/", stalled, times=1))
    first = place.start("--transfers", "1")
    assert place.proxy.stalls.acquire(timeout=60)
    second = place.run()
    assert second.returncode == 2
    assert "is in use by process" in second.stderr
    first.kill()
    first.wait()
