"""sh get_data.sh with both sources: which is asked first, and when the other one is."""

import shutil
import signal
import subprocess

import pytest

from tests.fetching.s3 import (
    ACCESS_DENIED,
    BOXES,
    BUCKET,
    BUS,
    ROOT,
    SEMANTIC,
    Fault,
    Place,
    make_bucket,
    replaced,
    stalled,
)
from tests.test_get_data import tar_of as packed

TARS = "aev-autonomous-driving-dataset"

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="get_data.sh needs curl")


def tar_of(place: Place, part: str) -> bytes:
    """A part as its archive: with its wrapper folder, calibration and class list."""
    files = {key: content for key, content in place.files.items() if key.startswith(f"{part}/")}
    if part != BUS:
        files[f"{part}/cams_lidars.json"] = place.files["cams_lidars.json"]
        files[f"{part}/class_list.json"] = place.files[f"{SEMANTIC}/class_list.json"]
        files[f"{part}/LICENSE"] = place.files["LICENSE"]
    return packed(files)


@pytest.fixture
def both(place: Place) -> Place:
    """The same data in both buckets."""
    make_bucket(TARS, {f"{part}.tar": tar_of(place, part) for part in (BOXES, BUS, SEMANTIC)})
    return place


def command(place: Place, *flags: str) -> list[str]:
    return ["sh", "get_data.sh", "--dest", str(place.dest), "--base-url", f"{place.proxy.url}/{TARS}", *flags]


def run(place: Place, *flags: str) -> subprocess.CompletedProcess[str]:
    asked = command(place, *flags)
    return subprocess.run(asked, env=place.environment(), capture_output=True, text=True, timeout=120, cwd=ROOT)


def buckets_asked(place: Place) -> set[str]:
    return {path.split("/")[1].split("?")[0] for path in place.proxy.asked}


def denied(bucket: str) -> Fault:
    return Fault(f"/{bucket}", replaced(403, ACCESS_DENIED))


def test_files_first(both: Place) -> None:
    done = run(both, "--source", "files")
    assert done.returncode == 0, done.stderr
    assert both.there() == both.expected(BOXES, BUS)
    assert buckets_asked(both) == {BUCKET}
    assert f"{both.dest}: 4 frames in 2 scenes, bus signals of 2 scenes" in done.stdout


def test_the_archives_where_access_to_the_files_is_denied(both: Place) -> None:
    both.proxy.faults.append(denied(BUCKET))
    done = run(both, "--source", "files")
    assert done.returncode == 0, done.stderr
    assert "access denied" in done.stderr
    assert "trying the other source, tar" in done.stdout
    assert both.there() == both.expected(BOXES, BUS)


@pytest.mark.parametrize("status", [403, 404])
def test_the_files_where_the_archives_are_not_to_be_had(both: Place, status: int) -> None:
    both.proxy.faults.append(Fault(f"/{TARS}", replaced(status, ACCESS_DENIED)))
    done = run(both, "--source", "tar")
    assert done.returncode == 0, done.stderr
    assert f"the server answers {status}" in done.stderr
    assert both.there() == both.expected(BOXES, BUS)


def test_archives_first_where_asked(both: Place) -> None:
    assert run(both, "--source", "tar").returncode == 0
    assert buckets_asked(both) == {TARS}
    assert both.there() == both.expected(BOXES, BUS)


def test_a_mirror_of_archives_alone_is_all_that_is_asked(both: Place) -> None:
    both.proxy.faults.append(denied(TARS))
    done = run(both)
    assert done.returncode == 1
    assert "nothing could be fetched from any source that was tried (tar)" in done.stderr
    assert buckets_asked(both) == {TARS}


def test_neither(both: Place) -> None:
    both.proxy.faults += [denied(TARS), denied(BUCKET)]
    done = run(both, "--source", "files")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: nothing could be fetched from any source that was tried (files tar)"
    )
    assert not both.there()


@pytest.mark.parametrize("source", ["files", "tar"])
def test_only_semantic_from_either(both: Place, source: str) -> None:
    done = run(both, "--source", source, "--only", "semantic")
    assert done.returncode == 0, done.stderr
    assert both.there() == both.expected(SEMANTIC)
    assert f"{both.dest}: 4 frames in 2 scenes" in done.stdout


def test_a_dry_run_of_both(both: Place) -> None:
    files, archives = run(both, "--source", "files", "--dry-run"), run(both, "--source", "tar", "--dry-run")
    assert f"from s3://{BUCKET}/{BOXES}/: 20 files" in files.stdout
    assert f"{BOXES}.tar: " in archives.stdout
    assert both.proxy.url in archives.stdout
    assert not both.there()


def test_a_failure_of_the_files_is_no_reason_for_the_archives(both: Place) -> None:
    key = next(key for key in both.files if key.startswith(BOXES))
    both.proxy.faults.append(Fault(key, replaced(404, b"")))
    done = run(both, "--source", "files")
    assert done.returncode == 1
    assert f"failed: {key}" in done.stderr
    assert buckets_asked(both) == {BUCKET}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_transfers_too(both: Place, how: signal.Signals) -> None:
    both.proxy.faults.append(Fault(f"/{BUCKET}/", stalled, times=1))
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    asked = command(both, "--source", "files")
    process = subprocess.Popen(
        asked,
        env=both.environment(),
        cwd=ROOT,
        **silent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert both.proxy.stalls.acquire(timeout=60)
    process.send_signal(how)
    assert process.wait(timeout=30) in (130, 143)
    both.proxy.faults.clear()
    assert run(both, "--source", "files").returncode == 0  # nobody holds the lock
    assert both.there() == both.expected(BOXES, BUS)
