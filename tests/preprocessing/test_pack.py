"""pack.py: the same labels in one tar a scene, nothing lost on the way, and preprocessing that knows what is packed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.a2d2.raw import RawData
from datasets.a2d2.stage import A2D2Stage
from datasets.locks import Lock
from datasets.packs import Source, Stamp, write_pack
from datasets.processed import ProcessedData
from errors import UserError
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera
from preprocessing.depth_preprocess import Depth
from preprocessing.pack import pack
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tests.processed_files import KINDS, content, contents, label_paths, write_label, write_labels
from tests.raw_files import OTHER_SCENE, SCENE, frames, write_every_kind
from tests.stages import run, statuses

FRAMES = frames(5) + frames(3, OTHER_SCENE)
STAGES: list[type[A2D2Stage]] = [Segmentation, Depth, Boxes, Steering, Camera]
SMALL = ("--size", "32", "20")

each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.kind)


def fresh(processed: ProcessedData) -> ProcessedData:
    """As the next process sees it."""
    return ProcessedData(processed.root)


def inodes(processed: ProcessedData) -> dict[str, int]:
    """Which tars were written anew shows in their inodes."""
    return {scene: processed.pack_path(scene).stat().st_ino for scene in processed.packed_scenes()}


def shell(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "preprocessing/pack.py", *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def labels(processed: ProcessedData) -> dict[tuple, bytes]:
    """Loose labels of every kind; what they hold."""
    write_labels(processed, FRAMES)
    return contents(processed)


# ---- packs ----------------------------------------------------------------------------------------------------


def test_packed_labels_are_the_loose_ones(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=True)
    assert processed.packed_scenes() == [SCENE, OTHER_SCENE]
    assert label_paths(processed.root) == {}
    assert len(labels) == len(FRAMES) * len(KINDS)
    assert contents(fresh(processed)) == labels


def test_settings_and_reports_stay_where_they_are(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    processed.report_path("depth").write_text("{}")
    pack(processed, remove=True)
    left = sorted(str(path.relative_to(processed.root)) for path in processed.root.rglob("*") if path.is_file())
    settings = ["dataset.json", *(f"{kind}/settings.json" for kind in KINDS)]
    assert left == sorted([*settings, "depth/report.json", f"packed/{SCENE}.tar", f"packed/{OTHER_SCENE}.tar"])
    assert fresh(processed).settings("depth") == {"made_with": "depth", "size": [6, 4], "format": "npy"}


def test_tar_gives_the_files_back(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    loose = label_paths(processed.root)
    times = {path: int((processed.root / path).stat().st_mtime) for path in loose}
    pack(processed, remove=True)
    for scene in processed.packed_scenes():
        subprocess.run(["tar", "xf", processed.pack_path(scene)], cwd=processed.root, check=True)
        processed.pack_path(scene).unlink()
    assert label_paths(processed.root) == loose
    assert {path: int((processed.root / path).stat().st_mtime) for path in loose} == times
    assert contents(fresh(processed)) == labels


def test_members_of_a_tar(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=False)
    with tarfile.open(processed.pack_path(OTHER_SCENE)) as tar:
        names = tar.getnames()
    assert re.fullmatch(rf"packed/{OTHER_SCENE}\.index-[0-9a-f]{{8}}\.json", names[0])
    expected = [path for path in label_paths(processed.root) if OTHER_SCENE in path]
    assert names[1:] == sorted(expected)


def test_without_remove_the_loose_files_stay(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    loose = label_paths(processed.root)
    pack(processed, remove=False)
    assert label_paths(processed.root) == loose


def test_the_script_as_a_user_runs_it(processed: ProcessedData, labels: dict[tuple, bytes], root: Path) -> None:
    done = shell(root, "--processed-root", str(processed.root), "--remove")
    assert (done.returncode, done.stderr) == (0, "")
    expected = f"2 scenes packed, 0 as they were, {len(labels)} loose files removed; {processed.packed_dir}"
    assert done.stdout.splitlines()[-1] == expected
    again = shell(root, "--processed-root", str(processed.root), "--remove")
    assert again.stdout.splitlines()[-1].startswith("0 scenes packed, 2 as they were, 0 loose files removed")
    assert contents(processed) == labels


def test_folders_without_labels_are_nothing_to_pack(tmp_path: Path, root: Path) -> None:
    """Such as the raw data's."""
    (tmp_path / "gateway" / "20180807_145028" / "bus").mkdir(parents=True)
    done = shell(root, "--processed-root", str(tmp_path))
    assert (done.returncode, done.stderr.startswith(f"error: no labels below {tmp_path}")) == (2, True)


def test_nothing_to_pack_is_one_line(tmp_path: Path, root: Path) -> None:
    done = shell(root, "--processed-root", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no labels below {tmp_path / 'nothing'}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "nothing").exists()


# ---- reruns ---------------------------------------------------------------------------------------------------


def test_a_rerun_packs_only_scenes_that_changed(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=False)
    before = inodes(processed)
    assert pack(fresh(processed), remove=False).startswith("0 scenes packed, 2 as they were")
    assert inodes(processed) == before

    write_label(processed, "box", frames(6)[-1], 7)
    assert pack(fresh(processed), remove=False).startswith("1 scenes packed, 1 as they were")
    after = inodes(processed)
    assert after[OTHER_SCENE] == before[OTHER_SCENE]
    assert after[SCENE] != before[SCENE]


def test_a_changed_file_of_the_same_size_is_packed_again(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=False)
    path = write_label(processed, "depth", FRAMES[0], 99)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # the clock's steps may be coarse
    pack(fresh(processed), remove=True)
    assert contents(fresh(processed)) == labels | {("depth", FRAMES[0]): content("depth", 99)}


def test_what_only_the_old_pack_holds_is_kept(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=True)
    new = frames(6)[-1]
    write_label(processed, "box", new, 7)
    write_label(processed, "depth", FRAMES[0], 99)
    pack(fresh(processed), remove=True)
    assert label_paths(processed.root) == {}
    changes = {("box", new): content("box", 7), ("depth", FRAMES[0]): content("depth", 99)}
    assert contents(fresh(processed)) == labels | changes


def test_empty_scene_folders_are_no_scenes(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    processed.path("box", frames(1, "20181204_170238")[0]).parent.mkdir(parents=True)
    pack(processed, remove=True)
    assert processed.packed_scenes() == [SCENE, OTHER_SCENE]


# ---- what may go wrong ----------------------------------------------------------------------------------------


def test_a_file_that_differs_from_its_packed_copy_is_not_removed(
    processed: ProcessedData, labels: dict[tuple, bytes]
) -> None:
    pack(processed, remove=False)
    path = processed.path("depth", FRAMES[0])
    status = path.stat()
    path.write_bytes(content("depth", 99))  # other bytes, but the same size and time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=rf"^{path} is not the same"):
        pack(fresh(processed), remove=True)
    assert path.read_bytes() == content("depth", 99)


def test_a_file_that_changes_meanwhile_leaves_no_pack(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    path = processed.path("depth", FRAMES[0])
    source = Source("depth", path.name, Stamp(10**6, 0), lambda: b"shorter")
    with open(processed.root / "x", "wb") as file, pytest.raises(UserError, match="changed while it was packed"):
        list(write_pack(file, "a2d2", SCENE, [source]))


def test_a_failure_in_the_middle_leaves_the_old_pack(
    processed: ProcessedData, labels: dict[tuple, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(processed, remove=True)
    write_label(processed, "steering", FRAMES[0], 5)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preprocessing.pack.read_whole", full)
    with pytest.raises(OSError, match="No space"):
        pack(fresh(processed), remove=True)
    monkeypatch.undo()
    assert sorted(path.name for path in processed.packed_dir.iterdir()) == [f"{SCENE}.tar", f"{OTHER_SCENE}.tar"]
    assert contents(fresh(processed)) == labels | {("steering", FRAMES[0]): content("steering", 5)}


@pytest.mark.parametrize(("remove", "is_enough"), [(False, False), (True, True)])
def test_disk_is_checked_before_anything_is_written(
    processed: ProcessedData,
    labels: dict[tuple, bytes],
    monkeypatch: pytest.MonkeyPatch,
    remove: bool,
    is_enough: bool,
) -> None:
    """With --remove the packs take the place of what they replace, one scene after the other."""
    largest = sum(map(len, (value for (_, frame), value in labels.items() if frame.scene == SCENE)))
    usage = namedtuple("usage", "free")(largest)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    if is_enough:
        pack(processed, remove)
    else:
        with pytest.raises(UserError, match=r"GB free; .* GB are needed"):
            pack(processed, remove)
        assert not processed.packed_dir.exists()


def test_two_at_once(processed: ProcessedData, labels: dict[tuple, bytes], root: Path) -> None:
    with Lock(processed.kind_lock_path("packed"), "the packs"):
        done = shell(root, "--processed-root", str(processed.root))
    assert done.returncode == 2
    assert f"in use by process {os.getpid()}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not processed.packed_dir.exists()
    assert shell(root, "--processed-root", str(processed.root)).returncode == 0


def with_index(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """A pack whose index says something else, with the right checksum."""

    def changed(tar: bytes) -> bytes:
        header = tarfile.TarInfo.frombuf(tar[:512], "utf-8", "strict")
        index = json.loads(tar[512 : 512 + header.size])
        change(index)
        new = json.dumps(index, separators=(",", ":")).encode()
        header.name = re.sub("-[0-9a-f]{8}", f"-{zlib.crc32(new):08x}", header.name)
        rest = tar[512 + -(-header.size // 512) * 512 :]
        header.size = len(new)
        return header.tobuf(tarfile.USTAR_FORMAT) + new + bytes(-len(new) % 512) + rest

    return changed


def first(index: dict[str, Any]) -> list[Any]:
    return next(iter(index["files"]["depth"].values()))


def offset(value: Any) -> Callable[[bytes], bytes]:
    return with_index(lambda index: first(index).__setitem__(0, value))


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda tar: tar[: len(tar) // 2],
    "cut off in the index": lambda tar: tar[:600],
    "cut off at its end": lambda tar: tar[:-512],
    "longer than its index says": lambda tar: tar + bytes(512),
    "empty": lambda tar: b"",
    "no tar": lambda tar: b"x" * len(tar),
    "another tar": lambda tar: tar[: tar.index(b".index-")] + b".INDEX-" + b"\0" * 2000,
    "a bit of the index": lambda tar: tar[:600] + bytes([tar[600] ^ 1]) + tar[601:],
    "no files": with_index(lambda index: index.update(files={})),
    "emptied": with_index(lambda index: index.update(files={kind: {} for kind in index["files"]})),
    "no scene": with_index(lambda index: index.pop("scene")),
    "nothing": with_index(lambda index: index.clear()),
    "a float": offset(512.0),
    "NaN": offset(float("nan")),
    "a text": offset("512"),
    "below 0": offset(-512),
    "petabytes": offset(10**15),
    "beyond 64 bits": offset(10**40),
    "two at one place": offset(1024),
    "a size of petabytes": with_index(lambda index: first(index).__setitem__(1, 10**15)),
    "no size": with_index(lambda index: first(index).pop()),
    "a file elsewhere": with_index(lambda index: index["files"]["depth"].update({"../x": first(index)})),
}
NO_FILES: dict[str, Callable[[Path], None]] = {"a folder": Path.mkdir, "a named pipe": os.mkfifo}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_pack_is_named_and_advised(processed: ProcessedData, labels: dict[tuple, bytes], broken: str) -> None:
    pack(processed, remove=True)
    path = processed.pack_path(SCENE)
    path.write_bytes(BREAKS[broken](path.read_bytes()))
    assert_named(processed)


@pytest.mark.parametrize("what", NO_FILES)
def test_something_else_in_a_packs_place(processed: ProcessedData, labels: dict[tuple, bytes], what: str) -> None:
    pack(processed, remove=True)
    processed.pack_path(SCENE).unlink()
    NO_FILES[what](processed.pack_path(SCENE))
    assert_named(processed)


def assert_named(processed: ProcessedData) -> None:
    """Every reader says so; the advice loses nothing."""
    path = processed.pack_path(SCENE)
    for read in (lambda: contents(fresh(processed)), lambda: pack(fresh(processed), remove=False)):
        with pytest.raises(
            UserError, match=rf"^{path} is no whole pack .*; put a good copy in its place; or"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert path.exists()


@pytest.mark.parametrize("copied", [True, False])
def test_a_pack_of_another_scene_is_refused(processed: ProcessedData, labels: dict[tuple, bytes], copied: bool) -> None:
    """Its labels would stand beside the other scene's images, in another split."""
    pack(processed, remove=True)
    ours, other = processed.pack_path(SCENE), processed.pack_path(OTHER_SCENE)
    shutil.copy(ours, other) if copied else ours.rename(processed.pack_path("20190101_000000"))
    with pytest.raises(UserError, match=rf"is the pack of a2d2/{SCENE}, not of a2d2/"):
        contents(fresh(processed))


def test_a_pack_of_another_data_set_is_refused(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    pack(processed, remove=True)
    processed.dataset_path.write_text('{"name": "cityscapes"}')
    with pytest.raises(UserError, match=r"is the pack of a2d2/(\w+), not of cityscapes/\1"):
        contents(fresh(processed))


def test_files_that_changed_places_are_not_taken_for_each_other(
    processed: ProcessedData, labels: dict[tuple, bytes]
) -> None:
    """Were the index wrong about them: the tar's headers beside the data hold the right names."""
    pack(processed, remove=True)

    def swap(index: dict[str, Any]) -> None:
        one, other, *_ = files = index["files"]["depth"]
        files[one], files[other] = files[other], files[one]

    path = processed.pack_path(SCENE)
    path.write_bytes(with_index(swap)(path.read_bytes()))
    for frame in FRAMES[:2]:
        with pytest.raises(ValueError, match="another file where its index has depth/"):
            fresh(processed).read("depth", frame)


def flipped(path: Path, old: bytes) -> str:
    """Change a bit in the midst of a file's bytes in a tar."""
    tar = path.read_bytes()
    place = tar.index(old) + len(old) // 2
    path.write_bytes(tar[:place] + bytes([tar[place] ^ 1]) + tar[place + 1 :])


def test_verify_names_what_is_damaged(processed: ProcessedData, labels: dict[tuple, bytes], root: Path) -> None:
    pack(processed, remove=True)
    flags = ("--processed-root", str(processed.root), "--verify")
    whole = shell(root, *flags)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout == f"2 of 2 packs are whole; {processed.packed_dir}\n"
    flipped(processed.pack_path(SCENE), labels["depth", FRAMES[0]])
    processed.pack_path(OTHER_SCENE).write_bytes(b"")
    done = shell(root, *flags)
    assert done.returncode == 1
    assert done.stdout == f"0 of 2 packs are whole; {processed.packed_dir}\n"
    first, second = done.stderr.splitlines()
    name = f"depth/{SCENE}/{FRAMES[0].id}.npy"
    assert first.startswith(f"error: {name} in {processed.pack_path(SCENE)} is damaged; put a good copy")
    assert second.startswith(f"error: {processed.pack_path(OTHER_SCENE)} is no whole pack")


def test_damage_is_not_packed_again(processed: ProcessedData, labels: dict[tuple, bytes]) -> None:
    """It would get a checksum that fits."""
    pack(processed, remove=True)
    flipped(processed.pack_path(SCENE), labels["depth", FRAMES[0]])
    write_label(processed, "box", FRAMES[0], 7)
    before = processed.pack_path(SCENE).read_bytes()
    with pytest.raises(UserError, match=rf"depth/{SCENE}/{FRAMES[0].id}.npy in \S+ is damaged"):
        pack(fresh(processed), remove=True)
    assert processed.pack_path(SCENE).read_bytes() == before
    assert fresh(processed).read("box", FRAMES[0]) == content("box", 7)


# ---- preprocessing over packed labels -------------------------------------------------------------------------


@pytest.fixture
def made(raw: RawData, processed: ProcessedData) -> ProcessedData:
    """Labels of every kind as the stages make them, packed."""
    write_every_kind(raw, FRAMES)
    for stage in STAGES:
        assert run(stage(), raw, processed, *SMALL) == 0
    pack(processed, remove=True)
    return fresh(processed)


@each_stage
def test_packed_frames_count_as_done(made: ProcessedData, raw: RawData, stage: type[A2D2Stage]) -> None:
    assert run(stage(), raw, made, *SMALL) == 0
    assert statuses(made, stage.kind) == (0, len(FRAMES), 0, 0)
    assert label_paths(made.root) == {}


def test_workers_see_packed_frames(made: ProcessedData, raw: RawData) -> None:
    assert run(Boxes(), raw, made, "--threads", "2") == 0
    assert statuses(made, "box") == (0, len(FRAMES), 0, 0)


@each_stage
def test_new_frames_are_made_beside_the_packs(made: ProcessedData, raw: RawData, stage: type[A2D2Stage]) -> None:
    more = [*FRAMES, *frames(7)[5:]]
    write_every_kind(raw, more)
    assert run(stage(), raw, made, *SMALL) == 0
    assert statuses(made, stage.kind) == (2, len(FRAMES), 0, 0)
    assert made.frames(stage.kind) == sorted(more)


@each_stage
@pytest.mark.parametrize("part", [(), ("--scenes", SCENE), ("--shard", "1/2")], ids=["all", "scenes", "shard"])
def test_overwrite_is_refused_while_packs_hold_the_kind(
    made: ProcessedData, raw: RawData, stage: type[A2D2Stage], part: tuple[str, ...]
) -> None:
    before = contents(made)
    with pytest.raises(UserError, match=rf"^\S*packed holds {stage.kind} labels.*tar xf.*delete the tars") as caught:
        run(stage(), raw, made, *SMALL, "--overwrite", *part)
    assert "\n" not in str(caught.value)
    assert contents(fresh(made)) == before
    assert made.settings(stage.kind) is not None


def test_overwrite_after_unpacking(made: ProcessedData, raw: RawData) -> None:
    for scene in made.packed_scenes():
        subprocess.run(["tar", "xf", made.pack_path(scene)], cwd=made.root, check=True)
        made.pack_path(scene).unlink()
    assert run(Depth(), raw, fresh(made), "--size", "16", "10", "--overwrite") == 0
    assert statuses(made, "depth") == (len(FRAMES), 0, 0, 0)


def test_overwrite_of_a_kind_that_is_not_packed(raw: RawData, processed: ProcessedData) -> None:
    write_every_kind(raw, FRAMES)
    assert run(Boxes(), raw, processed) == 0
    pack(processed, remove=True)
    assert run(Depth(), raw, processed, *SMALL) == 0
    assert run(Depth(), raw, processed, *SMALL, "--overwrite") == 0
    assert statuses(processed, "depth") == (len(FRAMES), 0, 0, 0)


def test_packed_labels_without_settings_are_not_mixed_with_others(made: ProcessedData, raw: RawData) -> None:
    shutil.rmtree(made.kind_dir("depth"))
    with pytest.raises(UserError, match="no settings"):
        run(Depth(), raw, made, "--size", "16", "10")
