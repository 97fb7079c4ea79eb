"""What all five scripts promise: resume, shards, whole files, bad input by name, exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.a2d2.raw import RawData
from datasets.a2d2.stage import A2D2Stage
from datasets.files import read_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from errors import UserError
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tests.conftest import ROOT
from tests.processes import PATIENCE, descendants, is_gone, state_of, wait_until
from tests.raw_files import (
    HEIGHT,
    OTHER_SCENE,
    SCENE,
    WIDTH,
    box,
    bus_entry,
    frames,
    label_files,
    random_label,
    random_sweep,
    write_boxes,
    write_bus,
    write_every_kind,
    write_png,
    write_sweep,
)
from tests.stages import failures, report_of, roots, run, statuses

STAGES: list[type[A2D2Stage]] = [Segmentation, Depth, Boxes, Steering, Camera]
SCRIPTS = {
    "segmentation": "segmentation.py",
    "depth": "depth_preprocess.py",
    "box": "bounding_box.py",
    "steering": "steering_angle.py",
    "camera": "camera.py",
}
SMALL = ("--size", "32", "20")
FRAMES = frames(5) + frames(4, OTHER_SCENE)

each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.kind)


@pytest.fixture
def filled(raw: RawData) -> RawData:
    """Nine frames in two scenes, with files of every kind."""
    write_every_kind(raw, FRAMES)
    return raw


def script(root: Path, kind: str, *flags: str) -> list[str]:
    return [sys.executable, str(root / "preprocessing" / SCRIPTS[kind]), *flags]


def shell(root: Path, kind: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, from the project's root."""
    command = [sys.executable, f"preprocessing/{SCRIPTS[kind]}", *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=False)


# ---- a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCRIPTS)
def test_each_script_runs_as_a_user_runs_it(filled: RawData, processed: ProcessedData, root: Path, kind: str) -> None:
    first = shell(root, kind, *roots(filled, processed), *SMALL, "--threads", "1")
    assert (first.returncode, first.stderr) == (0, "")
    report = processed.report_path(kind)
    assert first.stdout.splitlines()[-1].startswith(
        f"{kind}: 9 written, 0 already there, 0 without label, 0 failed; {report}"
    )
    assert processed.frames(kind) == FRAMES
    content = read_json(report)
    assert (content["written"], content["failures"]) == (9, [])
    assert content["settings"] == processed.settings(kind)


@each_stage
def test_a_second_run_finds_everything_there(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(stage(), filled, processed, *SMALL) == 0
    before = {path: path.stat().st_mtime_ns for path in processed.root.rglob("0*")}
    assert run(stage(), filled, processed, *SMALL) == 0
    assert statuses(processed, stage.kind) == (0, 9, 0, 0)
    assert "0 written, 9 already there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in processed.root.rglob("0*")} == before


@each_stage
def test_a_rerun_makes_only_what_is_missing(filled: RawData, processed: ProcessedData, stage: type[A2D2Stage]) -> None:
    run(stage(), filled, processed, *SMALL)
    expected = label_files(processed, stage.kind)
    for frame in FRAMES[::4]:
        processed.path(stage.kind, frame).unlink()
    assert run(stage(), filled, processed, *SMALL) == 0
    assert statuses(processed, stage.kind) == (3, 6, 0, 0)
    assert label_files(processed, stage.kind) == expected


@each_stage
def test_raw_data_is_never_written_to(filled: RawData, processed: ProcessedData, stage: type[A2D2Stage]) -> None:
    before = {path: path.read_bytes() for path in filled.root.rglob("*") if path.is_file()}
    run(stage(), filled, processed, *SMALL, "--overwrite")
    assert {path: path.read_bytes() for path in filled.root.rglob("*") if path.is_file()} == before


def test_scenes(filled: RawData, processed: ProcessedData) -> None:
    for stage in (Boxes, Steering):
        assert run(stage(), filled, processed, "--scenes", OTHER_SCENE) == 0
        assert processed.frames(stage.kind) == FRAMES[5:]


@each_stage
def test_the_number_of_workers_changes_no_byte(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], tmp_path: Path
) -> None:
    many = ProcessedData(tmp_path / "many")
    assert run(stage(), filled, processed, *SMALL) == 0
    assert run(stage(), filled, many, *SMALL, "--threads", "3") == 0
    assert label_files(many, stage.kind) == label_files(processed, stage.kind)
    assert report_of(many, stage.kind) == report_of(processed, stage.kind)


@each_stage
def test_shards_together_are_one_run(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], tmp_path: Path
) -> None:
    run(stage(), filled, processed, *SMALL)
    shards = ProcessedData(tmp_path / "shards")
    for number in (3, 1, 2):
        assert run(stage(), filled, shards, *SMALL, "--shard", f"{number}/3") == 0
    assert label_files(shards, stage.kind) == label_files(processed, stage.kind)
    reports = [report_of(shards, stage.kind, (number, 3)) for number in (1, 2, 3)]
    assert sum(report["written"] for report in reports) == 9
    assert all(report["present"] == 0 for report in reports)  # no frame belongs to two shards
    if stage is not Steering:  # whose unit is a scene, of which there are two
        assert [report["written"] for report in reports] == [3, 3, 3]
    whole = report_of(processed, stage.kind)["counts"]
    assert {name: sum(report["counts"].get(name, 0) for report in reports) for name in whole} == whole


def test_a_shard_takes_every_nth_frame(filled: RawData, processed: ProcessedData) -> None:
    run(Boxes(), filled, processed, "--shard", "2/4")
    assert processed.frames("box") == FRAMES[1::4]


def test_more_shards_than_frames(filled: RawData, processed: ProcessedData) -> None:
    assert run(Boxes(), filled, processed, "--shard", "20/20") == 0
    assert statuses(processed, "box", (20, 20)) == (0, 0, 0, 0)


# ---- bad input ------------------------------------------------------------------------------------------------

GOOD = frames(6)[1:]
BAD = frames(1)[0]


def png_bytes(raw: RawData, kind: str) -> bytes:
    path = raw.path(kind, BAD)
    write_png(path, random_label(np.random.default_rng(0)))
    return path.read_bytes()


def truncated_png(kind: str, share: float) -> Callable[[RawData], Path]:
    def write(raw: RawData) -> Path:
        content, path = png_bytes(raw, kind), raw.path(kind, BAD)
        path.write_bytes(content[: int(share * len(content))])
        return path

    return write


def corrupt_png(kind: str) -> Callable[[RawData], Path]:
    def write(raw: RawData) -> Path:
        content, path = bytearray(png_bytes(raw, kind)), raw.path(kind, BAD)
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        return path

    return write


def wrong_size(kind: str) -> Callable[[RawData], Path]:
    def write(raw: RawData) -> Path:
        write_png(raw.path(kind, BAD), np.zeros((HEIGHT, WIDTH - 1, 3), np.uint8))
        return raw.path(kind, BAD)

    return write


def raw_bytes(kind: str, content: bytes) -> Callable[[RawData], Path]:
    def write(raw: RawData) -> Path:
        path = raw.path(kind, BAD)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def bad_sweep(change: Callable[[dict[str, Any]], Any], prefix: str = "") -> Callable[[RawData], Path]:
    def write(raw: RawData) -> Path:
        arrays = random_sweep(np.random.default_rng(0))
        change(arrays)
        return write_sweep(raw, BAD, arrays, prefix)

    return write


def truncated_sweep(raw: RawData) -> Path:
    path = write_sweep(raw, BAD, random_sweep(np.random.default_rng(0)))
    path.write_bytes(path.read_bytes()[:-200])
    return path


def bad_boxes(bad: dict[str, Any]) -> Callable[[RawData], Path]:
    return lambda raw: write_boxes(raw, BAD, [box("Car", [1, 2, 3, 4]), bad])


def with_nan(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays[name].__setitem__(7, np.nan)


# stage, what is written, words that the reason must hold
BAD_INPUT: dict[str, tuple[type[A2D2Stage], Callable[[RawData], Path], str]] = {
    **{
        f"{stage.kind}: {case}": (stage, write(stage.raw_kind, *more), reason)
        for stage in (Segmentation, Camera)
        for case, write, more, reason in [
            ("truncated after half", truncated_png, (0.5,), "not a whole PNG"),
            ("truncated after 95 %", truncated_png, (0.95,), "not a whole PNG"),
            ("truncated in its header", truncated_png, (0.002,), "not a whole PNG"),
            ("corrupt byte", corrupt_png, (), "not a whole PNG"),
            ("empty", raw_bytes, (b"",), "not a whole PNG"),
            ("no PNG", raw_bytes, (b"GIF89a" + b"\0" * 500,), "not a whole PNG"),
            ("wrong size", wrong_size, (), "95x60"),
        ]
    },
    "depth: missing array": (Depth, bad_sweep(lambda arrays: arrays.pop("row")), "row"),
    "depth: missing prefixed array": (Depth, bad_sweep(lambda arrays: arrays.pop("depth"), "pcloud_attr."), "depth"),
    "depth: pickled objects": (
        Depth,
        bad_sweep(lambda arrays: arrays.update(row=arrays["row"].astype(object))),
        "Object arrays are not read",
    ),
    "depth: NaN row": (Depth, bad_sweep(with_nan("row")), "not finite"),
    "depth: NaN depth": (Depth, bad_sweep(with_nan("depth")), "not finite"),
    "depth: lengths differ": (
        Depth,
        bad_sweep(lambda arrays: arrays.update(col=arrays["col"][:-1])),
        "not of one length",
    ),
    "depth: two dimensions": (
        Depth,
        bad_sweep(lambda arrays: arrays.update({name: array.reshape(2, -1) for name, array in arrays.items()})),
        "not of one length",
    ),
    "depth: valid of another length": (Depth, bad_sweep(lambda arrays: arrays.update(valid=np.ones(3, bool))), "valid"),
    "depth: text": (Depth, bad_sweep(lambda arrays: arrays.update(row=np.array(["x"] * 400))), "not numbers"),
    "depth: truncated": (Depth, truncated_sweep, "zip"),
    "depth: empty file": (Depth, raw_bytes("lidar", b""), "not a zip"),
    "depth: no archive": (Depth, raw_bytes("lidar", b"nonsense"), "not a zip"),
    "box: broken JSON": (Boxes, raw_bytes("label3D", b'{"box_0": {'), "JSONDecodeError"),
    "box: not UTF-8": (Boxes, raw_bytes("label3D", b"\xff\xfe\xff"), "Unicode"),
    "box: a list": (Boxes, raw_bytes("label3D", b"[]"), "list"),
    "box: box is a number": (Boxes, raw_bytes("label3D", b'{"box_3": 1}'), "box_3"),
    "box: unknown class": (Boxes, bad_boxes(box("Spaceship", [1, 2, 3, 4])), "Spaceship"),
    "box: NaN": (Boxes, bad_boxes(box("Car", [1, 2, 3, float("nan")])), "finite"),
    "box: three edges": (Boxes, bad_boxes(box("Car", [1, 2, 3])), "box_1"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_a_bad_frame_is_named_and_the_rest_goes_on(
    raw: RawData, processed: ProcessedData, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, write, words = BAD_INPUT[case]
    write_every_kind(raw, GOOD)
    path = write(raw)
    assert run(stage(), raw, processed, *SMALL) == 1
    ((failed, reason),) = failures(processed, stage.kind).items()
    assert failed == path
    assert words in reason
    assert "\n" not in reason
    assert report_of(processed, stage.kind)["failures"][0]["frame"] == str(BAD)
    assert processed.frames(stage.kind) == GOOD
    assert statuses(processed, stage.kind) == (5, 0, 0, 1)
    shown = capsys.readouterr()
    assert f"failed: {path}: {reason}" in shown.err
    assert "1 failed" in shown.out


BAD_BUS_FILES = {
    "broken JSON": b'[{"frame_name": ',
    "a dict": b"{}",
    "entry without a name": b'[{"timestamp": 1}]',
    "entry is a number": b"[1]",
    "name is a number": b'[{"frame_name": 1}]',
    "not UTF-8": b"\xff\xfe\xff",
}


@pytest.mark.parametrize("case", BAD_BUS_FILES)
def test_a_bad_bus_file_is_named_and_the_other_scenes_go_on(raw: RawData, processed: ProcessedData, case: str) -> None:
    write_every_kind(raw, FRAMES)
    path = raw.bus_path(SCENE)
    path.write_bytes(BAD_BUS_FILES[case])
    assert run(Steering(), raw, processed) == 1
    assert list(failures(processed, "steering")) == [path]
    assert processed.frames("steering") == FRAMES[5:]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_bad_frame_in_a_real_run(filled: RawData, processed: ProcessedData, root: Path, threads: str) -> None:
    path = truncated_png("label", 0.5)(filled)
    done = shell(root, "segmentation", *roots(filled, processed), *SMALL, "--threads", threads)
    assert done.returncode == 1
    assert done.stderr.startswith(f"failed: {path}: not a whole PNG")
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "segmentation: 8 written, 0 already there, 0 without label, 1 failed"
    )


def test_a_mended_frame_is_done_by_a_rerun(filled: RawData, processed: ProcessedData) -> None:
    path = filled.path("label3D", FRAMES[2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert run(Boxes(), filled, processed) == 1
    path.write_bytes(whole)
    assert run(Boxes(), filled, processed) == 0
    assert statuses(processed, "box") == (1, 8, 0, 0)
    assert processed.frames("box") == FRAMES


# ---- wrong usage: exit code 2 and one line --------------------------------------------------------------------


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("kind", SCRIPTS)
def test_no_data(processed: ProcessedData, root: Path, tmp_path: Path, kind: str) -> None:
    line = error_line(shell(root, kind, *roots(RawData(tmp_path / "nowhere"), processed)))
    folder = "gateway" if kind == "steering" else "camera_lidar_semantic_bboxes"
    assert str(tmp_path / "nowhere" / folder) in line
    assert "get_data.sh" in line
    assert not processed.root.exists()


def test_errors_leave_the_command_with_one_line(filled: RawData, processed: ProcessedData, root: Path) -> None:
    line = error_line(shell(root, "box", *roots(filled, processed), "--scenes", SCENE, "20990101_000000"))
    assert "20990101_000000" in line
    assert OTHER_SCENE in line  # what there is
    assert not processed.root.exists()


@pytest.mark.parametrize(
    "flags",
    [
        *(["--shard", bad] for bad in ("0/3", "4/3", "1", "a/b", "1/0", "1/3/5", "-1/3", "1.0/3")),
        ["--threads", "0"],
        ["--threads", "many"],
        ["--size", "0", "10"],
        ["--size", "10"],
        ["--splat", "2"],
        ["--splat", "-1"],
        ["--measure", "height"],
        ["--no-such-flag"],
    ],
    ids=" ".join,
)
def test_bad_flags(
    filled: RawData, processed: ProcessedData, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(Depth(), filled, processed, *flags)
    assert caught.value.code == 2
    assert (
        f"error: {'unrecognized arguments' if flags == ['--no-such-flag'] else 'argument ' + flags[0]}"
        in (capsys.readouterr().err.splitlines()[-1])
    )
    assert not processed.root.exists()


def test_a_bad_shard_shows_no_traceback(filled: RawData, processed: ProcessedData, root: Path) -> None:
    done = shell(root, "box", *roots(filled, processed), "--shard", "4/3")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "'4/3' is not I/N with 1 <= I <= N" in done.stderr.splitlines()[-1]


def test_a_processed_root_that_is_a_file(filled: RawData, root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = error_line(shell(root, "box", *roots(filled, ProcessedData(tmp_path / "file"))))
    assert str(tmp_path / "file") in line


def test_a_broken_calibration(filled: RawData, processed: ProcessedData, root: Path) -> None:
    filled.calibration_path.write_text("{")
    assert str(filled.calibration_path) in error_line(shell(root, "depth", *roots(filled, processed)))
    assert processed.frames("depth") == []


# ---- settings and --overwrite ---------------------------------------------------------------------------------

OTHER_SETTINGS: list[tuple[type[A2D2Stage], list[str], str, str]] = [
    (Segmentation, ["--size", "40", "30"], "[32, 20]", "[40, 30]"),
    (Camera, ["--size", "40", "30"], "[32, 20]", "[40, 30]"),
    (Camera, [*SMALL, "--format", "jpeg"], "npy", "jpeg"),
    (Depth, [*SMALL, "--splat", "3"], "splat 1", "splat 3"),
    (Depth, [*SMALL, "--measure", "distance"], "measure depth", "measure distance"),
    (Steering, ["--signal", "steering_angle"], "signal steering_angle_calculated", "signal steering_angle"),
]
each_change = pytest.mark.parametrize(("stage", "flags", "made", "asked"), OTHER_SETTINGS)


@each_change
def test_other_settings_are_refused(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], flags: list[str], made: str, asked: str
) -> None:
    run(stage(), filled, processed, *SMALL)
    before = label_files(processed, stage.kind)
    for more in ([], ["--shard", "1/2"], ["--scenes", SCENE], ["--overwrite", "--shard", "1/2"],
                 ["--overwrite", "--scenes", SCENE]):  # fmt: skip
        with pytest.raises(UserError) as caught:
            run(stage(), filled, processed, *flags, *more)
        message = str(caught.value)
        assert message.index(made) < message.rindex(asked)
        assert str(processed.kind_dir(stage.kind)) in message
        assert "\n" not in message
        assert label_files(processed, stage.kind) == before


@each_change
def test_overwrite_replaces_everything(
    filled: RawData,
    processed: ProcessedData,
    tmp_path: Path,
    stage: type[A2D2Stage],
    flags: list[str],
    made: str,
    asked: str,
) -> None:
    run(stage(), filled, processed, *SMALL)
    run(stage(), filled, processed, *SMALL, "--shard", "1/2")
    fresh = ProcessedData(tmp_path / "fresh")
    assert run(stage(), filled, fresh, *flags) == 0
    assert run(stage(), filled, processed, *flags, "--overwrite") == 0
    assert statuses(processed, stage.kind) == (9, 0, 0, 0)
    assert label_files(processed, stage.kind) == label_files(fresh, stage.kind)
    reports = [path.name for path in processed.kind_dir(stage.kind).glob("report*")]
    assert reports == ["report.json"]  # the shard's report told of files that are gone


def test_other_settings_by_another_calibration(filled: RawData, processed: ProcessedData) -> None:
    run(Depth(), filled, processed, *SMALL)
    content = read_json(filled.calibration_path)
    content["cameras"]["front_center"]["CamMatrix"][0][0] += 1
    filled.calibration_path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="calibration"):
        run(Depth(), filled, processed, *SMALL)


def test_other_settings_end_the_script_with_one_line(filled: RawData, processed: ProcessedData, root: Path) -> None:
    run(Depth(), filled, processed, *SMALL)
    line = error_line(shell(root, "depth", *roots(filled, processed), "--size", "64", "40"))
    assert "[32, 20]" in line
    assert "[64, 40]" in line
    assert "--overwrite" in line


@each_stage
def test_overwrite_of_a_part_with_the_same_settings(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage]
) -> None:
    run(stage(), filled, processed, *SMALL)
    expected = label_files(processed, stage.kind)
    for frame in FRAMES:
        processed.path(stage.kind, frame).write_bytes(b"old")
    assert run(stage(), filled, processed, *SMALL, "--overwrite", "--scenes", OTHER_SCENE) == 0
    found = label_files(processed, stage.kind)
    assert {name for name in expected if found[name] == expected[name]} == {
        name for name in expected if name.startswith(OTHER_SCENE) or name in ("settings.json", "times.csv")
    }
    assert all(found[name] == b"old" for name in expected if name.startswith(SCENE))


def test_overwrite_removes_the_settings_before_the_first_label(
    filled: RawData, processed: ProcessedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short between the two, the old labels must not pass for valid ones."""

    class CutShortError(Exception):
        pass

    def cut_short(self: ProcessedData, kind: str, scenes: list[str] | None = None) -> list[Frame]:
        raise CutShortError

    run(Boxes(), filled, processed)
    with monkeypatch.context() as patch:
        patch.setattr(ProcessedData, "remove_labels", cut_short)
        with pytest.raises(CutShortError):
            run(Boxes(), filled, processed, "--overwrite")
    assert processed.settings("box") is None
    assert processed.frames("box") == FRAMES
    with pytest.raises(UserError, match=r"no settings\.json"):
        run(Boxes(), filled, processed)
    assert run(Boxes(), filled, processed, "--overwrite") == 0
    assert statuses(processed, "box") == (9, 0, 0, 0)


@pytest.mark.parametrize("part", [[], ["--shard", "1/1"], ["--scenes", SCENE, OTHER_SCENE]], ids=str)
@each_stage
def test_overwrite_leaves_no_stale_label_of_a_frame_that_fails(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], part: list[str]
) -> None:
    run(stage(), filled, processed, *SMALL)
    bad = filled.bus_path(SCENE) if stage is Steering else filled.path(stage.raw_kind, FRAMES[0])
    bad.write_bytes(b"{")
    assert run(stage(), filled, processed, *SMALL, "--overwrite", *part) == 1
    assert processed.frames(stage.kind) == (FRAMES[5:] if stage is Steering else FRAMES[1:])


def test_overwrite_leaves_no_stale_label_of_a_frame_that_has_none_now(
    filled: RawData, processed: ProcessedData
) -> None:
    run(Depth(), filled, processed, *SMALL)
    write_sweep(filled, FRAMES[0], {})
    assert run(Depth(), filled, processed, *SMALL, "--overwrite", "--shard", "1/1") == 0
    assert processed.frames("depth") == FRAMES[1:]


def test_a_broken_settings_file_is_named_and_overwrite_mends_it(filled: RawData, processed: ProcessedData) -> None:
    run(Boxes(), filled, processed)
    for content in ("{", "[]", ""):
        processed.settings_path("box").write_text(content)
        with pytest.raises(UserError):
            run(Boxes(), filled, processed)
        assert run(Boxes(), filled, processed, "--overwrite") == 0


DESCRIBED = {
    "segmentation": {"colours", "merged"},
    "depth": {"range"},
    "box": {"colours"},
    "steering": {"unit"},
    "camera": {"resolution"},
}


@each_stage
def test_what_only_describes_the_files_is_brought_up_to_date(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage]
) -> None:
    """A root made before there were colours, ranges and units gets them without making a label again."""
    run(stage(), filled, processed, *SMALL)
    settings = read_json(processed.settings_path(stage.kind))
    labels = label_files(processed, stage.kind)
    assert set(settings) >= DESCRIBED[stage.kind]
    old = {key: value for key, value in settings.items() if key not in DESCRIBED[stage.kind]}
    processed.settings_path(stage.kind).write_text(json.dumps(old))
    assert run(stage(), filled, processed, *SMALL) == 0
    assert statuses(processed, stage.kind) == (0, 9, 0, 0)
    assert read_json(processed.settings_path(stage.kind)) == settings
    assert label_files(processed, stage.kind).keys() == labels.keys()


# ---- kill -9 --------------------------------------------------------------------------------------------------

MANY = frames(24) + frames(9, OTHER_SCENE)
LARGE = ("--size", "700", "500")  # 1 MB a frame: writing takes long enough to be hit


def run_until_killed(command: list[str], processed: ProcessedData, files: int) -> None:
    """Kill -9 a run as soon as `files` frames are there, the next ones under way; wait until its workers are gone."""
    folder = processed.kind_dir("camera")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def reached() -> bool:
            assert process.poll() is None, "the run ended before it was killed"
            return len(list(folder.glob("*/0*.npy"))) >= files

        wait_until(reached, f"{files} files")
        workers = {pid: state[2] for pid in descendants(process.pid) if (state := state_of(pid))}
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: all(is_gone(pid, start) for pid, start in workers.items()), "the workers' end")


def block(raw: RawData, frame: Frame) -> Callable[[], None]:
    """`blocked_camera` waits before it reads this frame, until the result is called."""
    mark = raw.path("camera", frame).with_suffix(".blocked")
    mark.touch()
    return mark.unlink


def blocked_camera(*flags: str) -> list[str]:
    return [sys.executable, "-m", "tests.blocked_camera", *flags]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc, which only Linux has")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_kill_and_resume(
    raw: RawData, processed: ProcessedData, root: Path, tmp_path: Path, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs in a row are killed; each goes on where the one before was. The last frame blocks, so none can end."""
    write_every_kind(raw, MANY)
    undisturbed = ProcessedData(tmp_path / "undisturbed")
    assert run(Camera(), raw, undisturbed, *LARGE) == 0
    unblock = block(raw, MANY[-1])
    monkeypatch.chdir(root)
    command = blocked_camera(*roots(raw, processed), *LARGE, "--threads", threads)
    for files in (1, 9, 23):
        run_until_killed(command, processed, files)
        assert processed.frames("camera") != MANY
    unblock()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert statuses(processed, "camera")[1] >= 23
    assert label_files(processed, "camera") == label_files(undisturbed, "camera")  # and nothing temporary


STOP_IN_MID_WRITE = """
import os, signal, sys
import numpy as np
from datasets.a2d2.stage import run_stage
from preprocessing.camera import Camera

def half(file, array, **options):
    file.write(array.tobytes()[:1000])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

frames = iter(range(10))
save = np.save
np.save = lambda *args, **options: (half if next(frames) == 3 else save)(*args, **options)
run_stage(Camera(), sys.argv[1:])
"""


def test_kill_in_mid_write(filled: RawData, processed: ProcessedData, root: Path, tmp_path: Path) -> None:
    undisturbed = ProcessedData(tmp_path / "undisturbed")
    run(Camera(), filled, undisturbed, *SMALL)
    command = [sys.executable, "-c", STOP_IN_MID_WRITE, *roots(filled, processed), *SMALL, "--threads", "1"]
    done = subprocess.run(command, cwd=root, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert processed.frames("camera") == FRAMES[:3]
    left = set(label_files(processed, "camera")) - set(label_files(undisturbed, "camera"))
    assert len(left) == 1  # the half-written file, under a name that nobody takes for a label
    assert run(Camera(), filled, processed, *SMALL) == 0
    assert statuses(processed, "camera") == (6, 3, 0, 0)
    assert label_files(processed, "camera") == label_files(undisturbed, "camera")


@pytest.mark.parametrize("shards", [((), ()), (("--shard", "1/2"), ()), (("--shard", "1/3"), ("--shard", "1/2"))])
def test_two_runs_at_once_do_no_harm(
    raw: RawData, processed: ProcessedData, root: Path, tmp_path: Path, shards: tuple[tuple[str, ...], ...]
) -> None:
    write_every_kind(raw, MANY)
    alone = ProcessedData(tmp_path / "alone")
    for flags in shards:
        assert run(Camera(), raw, alone, *LARGE, *flags) == 0
    command = script(root, "camera", *roots(raw, processed), *LARGE, "--threads", "1")
    runs = [subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) for flags in shards]
    for process in runs:
        assert process.communicate(timeout=PATIENCE)[1] == ""
        assert process.returncode == 0
    assert label_files(processed, "camera") == label_files(alone, "camera")


def test_a_killed_worker_ends_the_run_with_one_line(filled: RawData, processed: ProcessedData, root: Path) -> None:
    unblock = block(filled, FRAMES[-1])
    command = blocked_camera(*roots(filled, processed), *SMALL, "--threads", "2")
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(processed.frames("camera")) == len(FRAMES) - 1, "all frames but the last")
        for pid in descendants(process.pid):
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: a worker process was killed")
    assert "Traceback" not in err
    unblock()
    assert run(Camera(), filled, processed, *SMALL) == 0
    assert processed.frames("camera") == FRAMES


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(
    ("number", "times", "code", "line"),
    [
        (signal.SIGTERM, 1, 143, "ended by SIGTERM"),
        (signal.SIGINT, 1, 130, "interrupted"),
        (signal.SIGINT, 3, 130, "interr"),
    ],
)
def test_a_signal_ends_the_run_with_one_line(
    filled: RawData, processed: ProcessedData, root: Path, number: int, times: int, code: int, line: str, threads: str
) -> None:
    """And with its workers: all of a job's processes get it, in whatever they are busy with."""
    unblock = block(filled, FRAMES[-1])
    command = blocked_camera(*roots(filled, processed), *SMALL, "--threads", threads)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=root, start_new_session=True, **pipes) as process:
        wait_until(lambda: len(processed.frames("camera")) == len(FRAMES) - 1, "all frames but the last")
        workers = descendants(process.pid)
        for _ in range(times):
            os.killpg(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
    wait_until(lambda: not any(map(state_of, workers)), "the workers' end")
    unblock()
    assert run(Camera(), filled, processed, *SMALL) == 0
    assert processed.frames("camera") == FRAMES


# ---- one at a time --------------------------------------------------------------------------------------------


def test_overwrite_is_alone(filled: RawData, processed: ProcessedData, root: Path) -> None:
    run(Camera(), filled, processed, *SMALL)
    before = label_files(processed, "camera")
    unblock = block(filled, FRAMES[0])
    flags = [*roots(filled, processed), "--threads", "1", "--overwrite", "--size"]
    with subprocess.Popen(blocked_camera(*flags, "40", "30"), cwd=root) as first:
        wait_until(processed.kind_lock_path("camera").exists, "the first has the lock")
        for more in (["--overwrite"], [], ["--shard", "1/2"]):
            with pytest.raises(UserError, match=rf"camera is in use by process {first.pid} on {socket.gethostname()}"):
                run(Camera(), filled, processed, *SMALL, *more)
        assert label_files(processed, "camera") == before
        unblock()
        assert first.wait(PATIENCE) == 0
    assert processed.settings("camera")["size"] == [40, 30]
    assert {array.shape for array in map(processed.read_array, ["camera"] * 9, FRAMES)} == {(30, 40, 3)}


def test_overwrite_waits_for_no_shard(filled: RawData, processed: ProcessedData, root: Path) -> None:
    unblock = block(filled, FRAMES[-1])
    command = blocked_camera(*roots(filled, processed), *SMALL, "--threads", "1", "--shard", "1/2")
    with subprocess.Popen(command, cwd=root) as shard:
        wait_until(lambda: len(processed.frames("camera")) == 4, "all frames of the shard but the last")
        with pytest.raises(UserError, match=f"in use by process {shard.pid}"):
            run(Camera(), filled, processed, "--size", "40", "30", "--overwrite")
        assert run(Camera(), filled, processed, *SMALL, "--shard", "2/2") == 0  # beside the first
        unblock()
        assert shard.wait(PATIENCE) == 0
    assert processed.frames("camera") == FRAMES


@pytest.mark.parametrize(
    ("size", "words"), [(["100000", "100000"], "--size: image of 100000x100000"), (["20000", "20000"], "--size: image")]
)
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@each_stage
def test_an_impossible_size_removes_nothing(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage], size: list[str], words: str, more: list[str]
) -> None:
    run(stage(), filled, processed, *SMALL)
    before = label_files(processed, stage.kind)
    with pytest.raises(UserError, match=words):
        run(stage(), filled, processed, "--size", *size, *more)
    assert label_files(processed, stage.kind) == before


@each_stage
def test_overwrite_removes_nothing_where_no_new_label_can_be_made(
    filled: RawData, processed: ProcessedData, stage: type[A2D2Stage]
) -> None:
    run(stage(), filled, processed, *SMALL)
    before = label_files(processed, stage.kind)
    for path in filled.root.rglob("*20*.*"):
        path.write_bytes(b"{")
    with pytest.raises(UserError, match=f"no new {stage.kind} label can be made .* stay as they are"):
        run(stage(), filled, processed, *SMALL, "--overwrite")
    assert label_files(processed, stage.kind) == before


def test_nothing_is_shown_as_a_bar_without_a_terminal(
    filled: RawData, processed: ProcessedData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain line every so often instead; here after each frame."""
    monkeypatch.setattr("progress.SECONDS_BETWEEN_LINES", 0)
    run(Boxes(), filled, processed)
    shown = capsys.readouterr()
    assert [line.split(",")[0] for line in shown.out.splitlines()[:-1]] == [f"box: {n}/9" for n in range(1, 10)]
    assert shown.err == ""


def test_the_default_size_is_1024(raw: RawData, processed: ProcessedData) -> None:
    (frame,) = frames(1)
    write_png(raw.path("label", frame), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert cv2.imread(str(raw.path("label", frame))) is not None
    run(Segmentation(), raw, processed)
    assert np.load(processed.path("segmentation", frame), allow_pickle=False).shape == (1024, 1024)


def test_a_bus_file_whose_frames_failed_before_is_read_again(raw: RawData, processed: ProcessedData) -> None:
    first, second = frames(2)
    write_bus(raw, SCENE, [bus_entry(first, [1.0, 2.0], [0]), bus_entry(second, [3.0], [0])])
    assert run(Steering(), raw, processed) == 1
    write_bus(raw, SCENE, [bus_entry(first, [1.0, 2.0], [0, 0]), bus_entry(second, [3.0], [0])])
    assert run(Steering(), raw, processed) == 0
    assert statuses(processed, "steering") == (1, 1, 0, 0)


def test_the_list_of_stages_names_every_script_that_is_one() -> None:
    """What `make demo` and slurm/chain.sh run."""
    listed = (ROOT / "datasets/a2d2/stages.txt").read_text().split()
    stages = [path.stem for path in (ROOT / "preprocessing").glob("*.py") if "run_stage(" in path.read_text()]
    assert sorted(listed) == sorted(stages)


# ---- raw data is only read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [".", "gateway", "camera_lidar_semantic_bboxes/processed", "camera_lidar_semantic"])
def test_labels_are_never_written_among_raw_data(raw: RawData, where: str) -> None:
    write_every_kind(raw, FRAMES)
    link = raw.root.with_name("link")
    link.symlink_to(raw.root / where)
    before = sorted(raw.root.rglob("*"))
    for place in (raw.root / where, link):
        with pytest.raises(UserError, match=f"--processed-root {place} lies among the raw data of {raw.root}"):
            run(Segmentation(), raw, ProcessedData(place), *SMALL)
    assert sorted(raw.root.rglob("*")) == before


def test_labels_may_lie_beside_the_raw_folders(raw: RawData) -> None:
    write_every_kind(raw, FRAMES)
    assert run(Segmentation(), raw, ProcessedData(raw.root / "processed"), *SMALL) == 0
