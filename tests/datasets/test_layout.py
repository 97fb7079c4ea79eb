"""Paths, frame lists, and files that appear whole or not at all."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from datasets.a2d2.raw import RAW_KINDS, RawData, parse_bus_frame_name, seconds_of
from datasets.files import read_json, whole_file, write_json, write_json_once
from datasets.frames import Frame
from datasets.layout import RunDir, add_root_arguments, add_runs_root_argument
from datasets.processed import ProcessedData, suffixes_of
from errors import UserError

KINDS = ("camera", "segmentation", "depth", "box", "steering")
SCENE = "20180807_145028"
FRAME = Frame("a2d2", SCENE, "000000091")


def described(root: Path) -> ProcessedData:
    """An empty processed root."""
    processed = ProcessedData(root)
    processed.describe("a2d2")
    return processed


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- raw data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("camera", "camera/cam_front_center/20180807145028_camera_frontcenter_000000091.png"),
        ("lidar", "lidar/cam_front_center/20180807145028_lidar_frontcenter_000000091.npz"),
        ("label", "label/cam_front_center/20180807145028_label_frontcenter_000000091.png"),
        ("label3D", "label3D/cam_front_center/20180807145028_label3D_frontcenter_000000091.json"),
    ],
)
def test_raw_paths_are_those_of_a2d2(kind: str, expected: str) -> None:
    assert RawData("D").path(kind, FRAME) == Path("D/camera_lidar_semantic_bboxes", SCENE, expected)


def test_other_raw_paths() -> None:
    raw = RawData("D")
    assert raw.calibration_path == Path("D/camera_lidar_semantic_bboxes/cams_lidars.json")
    assert raw.class_list_path == Path("D/camera_lidar_semantic_bboxes/class_list.json")
    assert raw.bus_path(SCENE) == Path(f"D/gateway/{SCENE}/bus/20180807145028_bus_signals.json")


@pytest.mark.parametrize("kind", RAW_KINDS)
def test_frames_lists_only_this_camera_and_kind_sorted(tmp_path: Path, kind: str) -> None:
    raw = RawData(tmp_path)
    expected = [
        Frame("a2d2", scene, frame_id)
        for scene in ("20180807_145028", "20181204_170238")
        for frame_id in ("000000091", "000000135", "000010000")
    ]
    for frame in reversed(expected):
        touch(raw.path(kind, frame))
    folder = raw.path(kind, FRAME).parent
    name = raw.path(kind, FRAME).name
    touch(raw.calibration_path)
    touch(raw.images_dir / "README.txt")
    touch(raw.images_dir / "20180807_14502" / kind / folder.name / name)  # a name that is no scene's
    touch(raw.images_dir / "20180807_145028_old" / kind / folder.name / name)
    touch(folder / f".{name}.tmp-host-12-0123abcd")
    touch(folder / f"{name}.part")
    touch(folder / name.replace("frontcenter", "sideleft"))
    touch(folder / name.replace("000000091", "91"))
    touch(folder / name.replace("20180807145028", "20180807145029"))  # another scene's file
    touch(folder.with_name("cam_side_left") / name)
    touch(folder / "20180807145028_camera_frontcenter_000000777.json")  # the file beside each camera PNG
    assert raw.frames(kind) == expected
    assert raw.frames(kind, ["20181204_170238"]) == expected[3:]
    assert raw.frames(kind, ["20181204_170238", "20180807_145028"]) == expected
    assert raw.frames(kind, ["19990101_000000"]) == []
    assert raw.scenes() == ["20180807_145028", "20181204_170238"]


def test_frames_of_nothing(tmp_path: Path) -> None:
    raw = RawData(tmp_path / "missing")
    assert (raw.scenes(), raw.frames("camera"), raw.bus_paths()) == ([], [], {})
    assert not (tmp_path / "missing").exists()


def test_bus_files_lie_in_gateway_itself_or_in_one_folder_below(tmp_path: Path) -> None:
    raw = RawData(tmp_path)
    other = "20181108_091945"
    name = f"{other}/bus/20181108091945_bus_signals.json"
    bare = touch(raw.bus_path(SCENE))
    wrapped = touch(raw.gateway_dir / "camera_lidar_semantic_bus" / name)
    touch(raw.gateway_dir / "a" / "b" / name.replace("20181108", "20181109"))  # two folders deep
    touch(raw.gateway_dir / "README.txt")
    (raw.gateway_dir / "20181107_132300" / "bus").mkdir(parents=True)  # a scene without the file
    assert list(raw.bus_paths().items()) == [(SCENE, bare), (other, wrapped)]


def test_a_scene_that_is_there_twice_is_read_from_gateway_itself(tmp_path: Path) -> None:
    raw = RawData(tmp_path)
    bare = touch(raw.bus_path(SCENE))
    touch(raw.gateway_dir / "wrapper" / SCENE / "bus" / bare.name)
    assert raw.bus_paths() == {SCENE: bare}


def test_bus_frame_names() -> None:
    assert parse_bus_frame_name("20180807145028_camera_frontcenter_000000091.json") == FRAME
    assert parse_bus_frame_name("20180807145028_camera_frontcenter_000000091.png") == FRAME
    assert parse_bus_frame_name("20180807145028_camera_frontcenter_000000091") == FRAME
    for name in (
        "20180807145028_camera_sideleft_000000091.json",
        "20180807145028_camera_frontleft_000000091.json",
        "20180807145028_lidar_frontcenter_000000091.json",
        "20180807145028_camera_frontcenter_91.json",
        "x20180807145028_camera_frontcenter_000000091.json",
        "20180807145028_camera_frontcenter_000000091.json.bak",
        "",
    ):
        assert parse_bus_frame_name(name) is None


def test_a_frames_time_is_its_number_at_30_frames_a_second() -> None:
    assert seconds_of(Frame("a2d2", SCENE, "000000091")) == pytest.approx(91 / 30)
    assert str(FRAME) == f"a2d2/{SCENE}/000000091"


# ---- processed data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_processed_frames(tmp_path: Path, kind: str) -> None:
    processed = described(tmp_path)
    expected = [
        Frame("a2d2", SCENE, "000000001"),
        Frame("a2d2", SCENE, "000000002"),
        Frame("a2d2", "20181204_170238", "000000001"),
    ]
    for frame in reversed(expected):
        touch(processed.path(kind, frame))
    touch(processed.settings_path(kind))
    touch(processed.report_path(kind))
    touch(processed.path(kind, FRAME).with_name(".000000003.npy.tmp-host-1-0123abcd"))
    touch(processed.path(kind, FRAME).with_name("000000004.txt"))
    assert processed.frames(kind) == expected
    assert processed.path(kind, FRAME) == tmp_path / kind / SCENE / f"000000091{suffixes_of(kind)[0]}"


def test_camera_files_have_one_of_two_endings(tmp_path: Path) -> None:
    processed = described(tmp_path)
    touch(processed.path("camera", FRAME, ".jpg"))
    assert processed.path("camera", FRAME, ".jpg").name == "000000091.jpg"
    assert processed.frames("camera") == [FRAME]


def test_settings(tmp_path: Path) -> None:
    processed = described(tmp_path)
    assert processed.settings("depth") is None
    write_json(processed.settings_path("depth"), {"splat": 3, "size": [6, 4]})
    assert processed.settings("depth") == {"splat": 3, "size": [6, 4]}
    assert tmp_path / "depth/settings.json" == processed.settings_path("depth")
    assert processed.report_path("depth") == tmp_path / "depth/report.json"
    assert processed.report_path("depth", (2, 8)) != processed.report_path("depth", (3, 8))


def test_remove_takes_all_of_one_kind_and_nothing_else(tmp_path: Path) -> None:
    processed = described(tmp_path)
    for suffix in (".npy", ".jpg"):
        touch(processed.path("camera", FRAME, suffix))
    touch(processed.settings_path("camera"))
    touch(processed.report_path("camera"))
    touch(processed.report_path("camera", (1, 2)))
    others = [touch(tmp_path / "camera" / "notes.txt"), touch(tmp_path / "camera" / SCENE / "mine.txt")]
    others += [touch(processed.path("depth", FRAME)), touch(processed.settings_path("depth"))]
    processed.remove("camera")
    assert files_below(tmp_path) == sorted(
        str(path.relative_to(tmp_path)) for path in [*others, processed.dataset_path]
    )


def test_remove_takes_the_settings_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processed = described(tmp_path)
    touch(processed.path("depth", FRAME))
    touch(processed.settings_path("depth"))
    removed = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (removed.append(path.name), unlink(path, **options)))
    processed.remove("depth")
    assert removed[0] == "settings.json"
    assert "000000091.npy" in removed[1:]


def test_remove_of_nothing(tmp_path: Path) -> None:
    ProcessedData(tmp_path).remove("depth")
    assert files_below(tmp_path) == []


# ---- files that appear whole or not at all --------------------------------------------------------------------


def test_whole_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert files_below(tmp_path) == ["new/file.bin"]
    assert path.read_bytes() == b"half"


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_file_keeps_the_old_file_when_writing_fails(
    tmp_path: Path, error: type[BaseException], durable: bool
) -> None:
    path = tmp_path / "file.bin"
    with whole_file(path, durable) as file:
        file.write(b"old")
    with pytest.raises(error), whole_file(path, durable) as file:  # noqa: PT012
        file.write(b"new")
        raise error
    assert files_below(tmp_path) == ["file.bin"]
    assert path.read_bytes() == b"old"
    with whole_file(path, durable) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"newer"


def test_whole_file_leaves_nothing_where_there_was_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), whole_file(tmp_path / "file.bin"):
        raise ValueError("broken")
    assert files_below(tmp_path) == []


def test_write_json_once_keeps_the_first(tmp_path: Path) -> None:
    path = tmp_path / "kind" / "settings.json"
    write_json_once(path, {"first": 1})
    write_json_once(path, {"second": 2})
    assert read_json(path) == {"first": 1}
    assert files_below(tmp_path) == ["kind/settings.json"]


def test_write_json_once_by_threads_at_once(tmp_path: Path) -> None:
    count, seen = 8, []
    barrier = threading.Barrier(count)

    def write(number: int) -> None:
        barrier.wait()
        write_json_once(tmp_path / "settings.json", {"writer": number, "padding": "x" * 100_000})
        seen.append(read_json(tmp_path / "settings.json")["writer"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == count
    assert len(set(seen)) == 1  # what one has read once never changes
    assert files_below(tmp_path) == ["settings.json"]


WRITE_ONCE = """
import sys, time
from pathlib import Path
from datasets.files import read_json, write_json_once
folder, number = Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready-{number}").touch()
while not (folder / "go").exists():
    pass
write_json_once(folder / "settings.json", {"writer": number, "padding": "x" * 100_000})
print(read_json(folder / "settings.json")["writer"])
"""


def test_write_json_once_by_processes_at_once(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", WRITE_ONCE, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(n)], cwd=root, stdout=subprocess.PIPE, text=True) for n in range(3)]
    while len(list(tmp_path.glob("ready-*"))) < len(writers):
        assert all(writer.poll() is None for writer in writers)
    (tmp_path / "go").touch()
    seen = {writer.communicate(timeout=60)[0].strip() for writer in writers}
    assert all(writer.returncode == 0 for writer in writers)
    assert seen == {str(read_json(tmp_path / "settings.json")["writer"])}
    assert files_below(tmp_path) == ["go", "ready-0", "ready-1", "ready-2", "settings.json"]


HANG_IN_WHOLE_FILE = """
import sys, time
from pathlib import Path
from datasets.files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(1000)
"""


def killed_while_writing(path: Path, root: Path) -> None:
    command = [sys.executable, "-c", HANG_IN_WHOLE_FILE, str(path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)


def test_remove_abandoned_takes_files_of_dead_processes_only(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processed = ProcessedData(tmp_path)
    killed_while_writing(processed.path("depth", FRAME), root)
    killed_while_writing(processed.settings_path("depth"), root)
    killed_while_writing(processed.path("box", FRAME), root)  # of another kind
    label = touch(processed.path("depth", Frame("a2d2", SCENE, "000000001")))
    assert len(files_below(tmp_path)) == 4
    with whole_file(processed.path("depth", Frame("a2d2", SCENE, "000000002"))) as file:  # this process lives
        file.write(b"mine")
        processed.remove_abandoned("depth")
    processed.remove_abandoned("steering")  # no such folder
    mine = processed.path("depth", Frame("a2d2", SCENE, "000000002"))
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.parts[-3] != "box"]
    assert sorted(left) == [label, mine]

    (dead,) = (tmp_path / "box" / SCENE).iterdir()
    monkeypatch.setattr("socket.gethostname", lambda: "another-node")
    processed.remove_abandoned("box")  # nobody knows here whether that machine's process lives
    assert dead.exists()
    monkeypatch.undo()
    processed.remove_abandoned("box")
    assert not dead.exists()


def test_a_killed_process_is_dead_before_its_parent_takes_notice(tmp_path: Path, root: Path) -> None:
    """A zombie still has a process id: a worker whose parent, or a container's first process, never waits for it."""
    processed = ProcessedData(tmp_path)
    command = [sys.executable, "-c", HANG_IN_WHOLE_FILE, str(processed.path("depth", FRAME))]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended; nobody has taken notice yet
        processed.remove_abandoned("depth")
    assert files_below(tmp_path) == []


def test_remove_abandoned_leaves_other_users_processes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_mine(pid: int, number: int) -> None:
        raise PermissionError

    processed = described(tmp_path)
    with whole_file(processed.path("depth", FRAME)) as file:
        monkeypatch.setattr(os, "kill", not_mine)
        processed.remove_abandoned("depth")
        file.write(b"whole")
    assert processed.path("depth", FRAME).read_bytes() == b"whole"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_read_json_names_a_broken_file_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_json_names_a_key_that_stands_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": [{"size": 1, "other": 2, "size": 1}]}')
    with pytest.raises(UserError, match=r"file\.json can't be read as JSON: the key 'size' stands there twice"):
        read_json(path)


def test_read_json_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json does not exist"):
        read_json(tmp_path / "missing.json")


def test_write_json_gives_back_what_went_in(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None], "b": {"c": "é"}}
    write_json(tmp_path / "file.json", content)
    assert json.loads((tmp_path / "file.json").read_text()) == content


def test_run_dir(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "first")
    assert not run.exists()
    touch(run.config)
    assert run.exists()
    assert run.config == tmp_path / "first" / "config.yaml"


@pytest.mark.parametrize("name", ["config", "split", "best", "last", "metrics", "interrupted"])
def test_a_pipe_in_the_place_of_a_runs_file(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path, "first")
    path: Path = getattr(run, name)
    touch(path)
    run.check_files()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{path.name} is a folder, pipe or device, where the run has a file"):
        run.check_files()


@pytest.mark.parametrize(
    ("flag", "variable", "default"),
    [
        ("data_root", "A2D2_DATA", "Datasets"),
        ("processed_root", "A2D2_PROCESSED", "Datasets/processed"),
        ("runs_root", "A2D2_RUNS", "runs"),
    ],
)
def test_roots_come_from_the_flag_then_the_environment_then_the_default(
    flag: str, variable: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*argv: str) -> Path:
        parser = argparse.ArgumentParser()
        add_root_arguments(parser)
        add_runs_root_argument(parser)
        return getattr(parser.parse_args(argv), flag)

    monkeypatch.delenv(variable, raising=False)
    assert parsed() == Path(default)
    monkeypatch.setenv(variable, "")  # as `export A2D2_DATA=` in a batch script
    assert parsed() == Path(default)
    monkeypatch.setenv(variable, "/scratch/a")
    assert parsed() == Path("/scratch/a")
    assert parsed(f"--{flag.replace('_', '-')}", "elsewhere") == Path("elsewhere")


CAMERA_FILE = f"{SCENE}/camera/cam_front_center/20180807145028_camera_frontcenter_000000091"


@pytest.mark.parametrize("name", [f"{CAMERA_FILE}.png", f"{CAMERA_FILE}.json"])
def test_a_servers_name_becomes_a_path(name: str) -> None:
    raw = RawData("D")
    assert raw.member_path(raw.images_dir, name) == raw.images_dir / name
    assert raw.member_path(raw.semantic_dir, name) == raw.semantic_dir / name


def test_a_servers_bus_file_becomes_a_path() -> None:
    raw = RawData("D")
    assert raw.member_path(raw.gateway_dir, f"{SCENE}/bus/20180807145028_bus_signals.json") == raw.bus_path(SCENE)


@pytest.mark.parametrize(
    "name",
    [
        f"../{CAMERA_FILE}.png",
        f"/{CAMERA_FILE}.png",
        f"{CAMERA_FILE}.sh",
        f"{CAMERA_FILE}.png\n",
        f"{CAMERA_FILE}.npz",
        CAMERA_FILE.replace("/camera/", "/label/") + ".png",
        CAMERA_FILE.replace("20180807145028", "20190807145028") + ".png",
        CAMERA_FILE.replace("frontcenter", "frontleft") + ".png",
        f"{SCENE}/label3D/cam_front_center/20180807145028_label3D_frontcenter_000000091.png",
        f"{SCENE}/bus/20190807145028_bus_signals.json",
        f"{SCENE}/bus/../../x_bus_signals.json",
        "",
    ],
)
def test_any_other_name_of_a_server_does_not(name: str) -> None:
    raw = RawData("D")
    assert raw.member_path(raw.images_dir, name, all_cameras=True) is None


def test_other_cameras_only_where_asked() -> None:
    raw = RawData("D")
    name = CAMERA_FILE.replace("front_center", "side_left").replace("frontcenter", "sideleft") + ".png"
    assert raw.member_path(raw.images_dir, name) is None
    assert raw.member_path(raw.images_dir, name, all_cameras=True) == raw.images_dir / name


# ---- two folders of frames ----------------------------------------------------------------------------------------


def test_the_frames_of_both_folders_are_one_set(tmp_path: Path) -> None:
    raw = RawData(tmp_path)
    both, boxes, classes = (Frame("a2d2", SCENE, f"{number:09d}") for number in (1, 2, 3))
    elsewhere = Frame("a2d2", "20181016_082154", "000000001")
    for folder, frames in ((raw.images_dir, (both, boxes)), (raw.semantic_dir, (both, classes, elsewhere))):
        for frame in frames:
            touch(raw.path_in(folder, "label", frame))
    assert raw.frames("label") == [both, boxes, classes, elsewhere]
    assert raw.scenes() == [SCENE, elsewhere.scene]
    assert raw.frames("label", [elsewhere.scene]) == [elsewhere]
    assert [raw.path("label", frame).is_relative_to(raw.images_dir) for frame in (both, boxes, classes)] == [
        True,
        True,
        False,
    ]
    assert [len(raw.copies("label", frame)) for frame in (both, boxes, classes)] == [2, 1, 1]
    assert raw.copies("camera", both) == []


def test_calibration_and_class_list_of_either_folder(tmp_path: Path) -> None:
    raw = RawData(tmp_path)
    assert raw.calibration_path.parent == raw.images_dir
    second = touch(raw.semantic_dir / "cams_lidars.json")
    assert raw.calibration_path == second
    first = touch(raw.images_dir / "cams_lidars.json")
    assert raw.calibration_path == first


def test_pictures_of_two_data_sets_have_files_of_their_own(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "run")
    frames = [Frame(name, "scene", "0001") for name in ("rooms", "streets")]
    assert len({run.image(1, "depth", frame) for frame in frames}) == 2
