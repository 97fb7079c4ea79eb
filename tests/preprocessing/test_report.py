"""The reports of a job array become one."""

import json
from pathlib import Path

import pytest

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import UserError
from preprocessing import report
from preprocessing.depth_preprocess import Depth
from tests.raw_files import OTHER_SCENE, SCENE, frames, small_raw_data, write_every_kind
from tests.stages import run

SHARDS = 3


@pytest.fixture
def data(tmp_path: Path) -> tuple[RawData, ProcessedData]:
    raw, processed = small_raw_data(tmp_path / "raw"), ProcessedData(tmp_path / "processed")
    write_every_kind(raw, frames(5, SCENE) + frames(5, OTHER_SCENE))
    raw.path("lidar", frames(5)[1]).write_bytes(b"no sweep")
    return raw, processed


def run_shards(data: tuple[RawData, ProcessedData], *numbers: int, of: int = SHARDS) -> None:
    for number in numbers:
        run(Depth(), *data, "--size", "64", "64", "--shard", f"{number}/{of}")


def call(monkeypatch: pytest.MonkeyPatch, processed: ProcessedData, *flags: str) -> int:
    monkeypatch.setattr("sys.argv", ["report.py", "--processed-root", str(processed.root), *flags])
    return report.main()


def test_it_is_the_report_of_a_plain_run(
    data: tuple[RawData, ProcessedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    raw, processed = data
    run_shards(data, 1, 2, 3)
    capsys.readouterr()
    assert call(monkeypatch, processed) == 1  # a frame has failed
    shown = capsys.readouterr().out
    assert "depth: 9 written, 0 already there, 0 without label, 1 failed" in shown
    assert str(raw.path("lidar", frames(5)[1])) in shown
    plain = ProcessedData(tmp_path / "plain")
    run(Depth(), raw, plain, "--size", "64", "64")
    assert json.loads(processed.report_path("depth").read_text()) == json.loads(plain.report_path("depth").read_text())


def test_a_shard_without_a_report_is_named(
    data: tuple[RawData, ProcessedData], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run_shards(data, 1, 3)
    assert call(monkeypatch, data[1], "--kinds", "depth") == 1
    assert "shards without a report: 2 of 3; submit them again: --array=2" in capsys.readouterr().out
    assert not data[1].report_path("depth").exists()


def test_reports_of_an_earlier_cut_are_left_out(
    data: tuple[RawData, ProcessedData], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data[0].path("lidar", frames(5)[1]).unlink()
    run_shards(data, 1, 2, of=2)
    run_shards(data, 1, 2, 3)
    assert call(monkeypatch, data[1]) == 0
    assert "0 written, 9 already there" in capsys.readouterr().out


def test_nothing_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in ([], ["--kinds", "depth"]):
        with pytest.raises(UserError, match="--shard I/N"):
            call(monkeypatch, ProcessedData(tmp_path), *flags)
