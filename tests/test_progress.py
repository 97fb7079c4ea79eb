"""Progress in a job's log: plain lines, of items or of bytes."""

import pytest

import progress as shown


@pytest.fixture(autouse=True)
def _a_line_for_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0)


def test_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown.progress("ab", 2, "frames")) == ["a", "b"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["frames: 1/2", "frames: 2/2"]


def test_files_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [1_500_000_000, 500_000_000]
    done = []
    for size in shown.progress(sizes, sum(sizes), "fetching", lambda: f"{len(done)} files", int, in_bytes=True):
        done.append(size)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["fetching: 1.50G/2.00G", "fetching: 2.00G/2.00G"]
    assert lines[-1].endswith("B/s 2 files")
