"""Copies on node-local disks: whole, up to date, made once, and never at the cost of somebody's files."""

import argparse
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from datasets.files import locked
from datasets.processed import ProcessedData
from datasets.roots import stage_all
from datasets.staging import add_stage_argument, copied_bytes, stage
from errors import UserError
from preprocessing.pack import pack
from tests.processed_files import KINDS, content, contents, label_paths, write_label, write_labels
from tests.raw_files import OTHER_SCENE, SCENE, frames

FRAMES = frames(4) + frames(2, OTHER_SCENE)
SETTINGS = ["dataset.json", *(f"{kind}/settings.json" for kind in KINDS)]
PACKS = [f"packed/{SCENE}.tar", f"packed/{OTHER_SCENE}.tar"]
OWN_FILES = [".lock", "copied_from.json"]


@pytest.fixture
def full(processed: ProcessedData) -> ProcessedData:
    write_labels(processed, FRAMES)
    return processed


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Where the copy goes: there is no such folder yet."""
    return tmp_path / "node" / "copy"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def inodes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_ino for name in files(folder)}


def disk_with(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(free))


# ---- what is copied -------------------------------------------------------------------------------------------


def test_packs_and_settings_are_copied(full: ProcessedData, local: Path) -> None:
    pack(full, remove=True)
    expected = contents(full)
    full.report_path("depth").write_text("{}")
    copy = stage(full, local)
    assert files(local) == sorted([*SETTINGS, *PACKS, *OWN_FILES])
    assert copy.root == local
    shutil.rmtree(full.root)  # nothing is read from there any more
    assert contents(copy) == expected
    assert copy.settings("depth") == {"made_with": "depth", "size": [6, 4], "format": "npy"}


def test_loose_files_are_copied_where_there_are_no_packs(full: ProcessedData, local: Path) -> None:
    copy = stage(full, local)
    assert label_paths(local) == label_paths(full.root)
    assert contents(copy) == contents(full)


def test_loose_files_that_are_packed_are_not_copied(full: ProcessedData, local: Path) -> None:
    pack(full, remove=False)
    assert contents(stage(full, local)) == contents(full)
    assert label_paths(local) == {}


def test_loose_files_that_are_newer_than_their_pack_are_copied(full: ProcessedData, local: Path) -> None:
    pack(full, remove=False)
    write_label(full, "depth", FRAMES[0], 99)
    new = frames(6)[-1]
    write_label(full, "box", new, 7)
    copy = stage(ProcessedData(full.root), local)
    assert len(label_paths(local)) == 2
    assert copy.read("depth", FRAMES[0]) == content("depth", 99)
    assert contents(copy) == contents(ProcessedData(full.root))


def test_large_files_are_copied_in_pieces(full: ProcessedData, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.staging.PIECE", 100)
    pack(full, remove=True)
    assert contents(stage(full, local)) == contents(full)


def test_without_a_folder_the_set_is_read_where_it_lies(full: ProcessedData) -> None:
    assert [root.root for root in stage_all([full.root], None)] == [full.root]


def test_how_many_gb_are_copied_is_told(
    full: ProcessedData, local: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.staging.GB", 1000)  # bytes
    stage(full, local)
    told = float(capsys.readouterr().out.removeprefix("--stage-to: ").split(" GB to copy to ")[0])
    size = sum(len(found) for found in contents(ProcessedData(local)).values())
    assert size < 1000 * told < copied_bytes([full]) + 10  # with the settings


# ---- auto -----------------------------------------------------------------------------------------------------


def test_auto_is_a_folder_of_the_jobs_disk(
    full: ProcessedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (copy,) = stage_all([full.root], Path("auto"))
    assert copy.root.parent == tmp_path / "job"
    assert contents(copy) == contents(full)
    monkeypatch.delenv("SLURM_TMPDIR")
    (copy,) = stage_all([full.root], Path("auto"))
    assert copy.root.parent == tmp_path / "tmp"
    other = ProcessedData(tmp_path / "other")
    write_labels(other, FRAMES)
    (copy_of_other,) = stage_all([other.root], Path("auto"))  # on the same disk
    assert copy_of_other.root != copy.root


def test_auto_where_no_disk_is_named(full: ProcessedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "")
    with pytest.raises(UserError, match="--stage-to auto: neither SLURM_TMPDIR nor TMPDIR is set here"):
        stage_all([full.root], Path("auto"))


# ---- again ----------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_copied_again(full: ProcessedData, local: Path) -> None:
    pack(full, remove=True)
    stage(full, local)
    before = inodes(local)
    stage(full, local)
    assert inodes(local) == before

    write_label(full, "box", FRAMES[-1], 77)
    pack(ProcessedData(full.root), remove=True)
    copy = stage(ProcessedData(full.root), local)
    changed = {name for name, inode in inodes(local).items() if inode != before.get(name)}
    assert changed == {f"packed/{OTHER_SCENE}.tar"}
    assert copy.read("box", FRAMES[-1]) == content("box", 77)


def test_a_file_of_another_time_is_copied_again(full: ProcessedData, local: Path) -> None:
    copy = stage(full, local)
    path = copy.path("depth", FRAMES[0])
    path.write_bytes(content("depth", 99))  # as long as the right one
    os.utime(path, ns=(0, 0))
    stage(full, local)
    assert path.read_bytes() == full.read("depth", FRAMES[0])


def test_a_loose_copy_does_not_outlive_its_packing(full: ProcessedData, local: Path) -> None:
    """It would win over the pack."""
    stage(full, local)
    write_label(full, "depth", FRAMES[0], 99)
    pack(full, remove=True)
    copy = stage(ProcessedData(full.root), local)
    assert label_paths(local) == {}
    assert copy.read("depth", FRAMES[0]) == content("depth", 99)


def test_a_label_that_is_gone_goes_from_the_copy(full: ProcessedData, local: Path) -> None:
    stage(full, local)
    full.path("depth", FRAMES[0]).unlink()
    assert stage(full, local).frames("depth") == FRAMES[1:]


# ---- refused --------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small(full: ProcessedData, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(stamp.size for stamp in full.needed().values())
    disk_with(needed - 1, monkeypatch)
    with pytest.raises(UserError, match=rf"^{local} has .* GB free; .* GB are needed"):
        stage(full, local)
    assert files(local) == OWN_FILES
    disk_with(needed, monkeypatch)
    stage(full, local)
    disk_with(0, monkeypatch)  # nothing more is needed
    stage(full, local)


def test_labels_that_are_no_copy_are_not_touched(full: ProcessedData, local: Path) -> None:
    write_labels(ProcessedData(local), frames(1))
    before = label_paths(local)
    with pytest.raises(UserError, match=f"^--stage-to: {local} holds files that are no copy of {full.root}"):
        stage(full, local)
    assert label_paths(local) == before


def test_a_copy_of_another_set_is_not_touched(full: ProcessedData, local: Path, tmp_path: Path) -> None:
    other = ProcessedData(tmp_path / "other")
    write_labels(other, frames(1))
    stage(full, local)
    before = inodes(local)
    with pytest.raises(UserError, match=f"^--stage-to: {local} is a copy of another set: .*{full.root}"):
        stage(other, local)
    assert inodes(local) == before


def test_the_set_itself(full: ProcessedData) -> None:
    for folder in (full.root / "depth" / "..", full.root / "copy", full.root / "depth"):
        with pytest.raises(UserError, match="lies in the processed set itself"):
            stage(full, folder)
    assert not (full.root / "copy").exists()


def test_a_folder_with_other_files(full: ProcessedData) -> None:
    """Such as the data root, below which the processed set lies."""
    with pytest.raises(UserError, match=f"^--stage-to: {full.root.parent} holds files that are no copy"):
        stage(full, full.root.parent)


@pytest.mark.parametrize("text", ["", "  "])
def test_no_folder(capsys: pytest.CaptureFixture[str], text: str) -> None:
    parser = argparse.ArgumentParser()
    add_stage_argument(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--stage-to", text])
    assert "--stage-to: names no folder" in capsys.readouterr().err


def test_a_damaged_pack_is_not_copied(full: ProcessedData, local: Path) -> None:
    pack(full, remove=True)
    path = full.pack_path(SCENE)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(content("steering", 4000), content("steering", 4000).replace(b"steer", b"steel")))
    with pytest.raises(UserError, match=rf"^--stage-to: steering/{SCENE}/\S+ in {path} is damaged; ") as caught:
        stage(ProcessedData(full.root), local)
    assert "\n" not in str(caught.value)
    assert not ProcessedData(local).packed_scenes() or ProcessedData(local).packed_scenes() == [OTHER_SCENE]
    path.write_bytes(whole)
    assert contents(stage(ProcessedData(full.root), local)) == contents(ProcessedData(full.root))


def test_nothing_to_copy(processed: ProcessedData, local: Path) -> None:
    with pytest.raises(UserError, match=f"nothing to copy below {processed.root}"):
        stage(processed, local)
    assert not local.exists()


def test_a_folder_that_cannot_be_made(full: ProcessedData, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--stage-to: can't copy") as caught:
        stage(full, tmp_path / "file" / "copy")
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_copied(
    full: ProcessedData, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = full.needed()
    path = write_label(full, "box", FRAMES[0], 600)
    monkeypatch.setattr(ProcessedData, "needed", lambda self: listed)
    with pytest.raises(UserError, match=f"{path} changed while it was copied"):
        stage(full, local)
    assert not ProcessedData(local).exists("box", FRAMES[0])
    monkeypatch.undo()
    assert contents(stage(full, local)) == contents(full)


# ---- several processes ----------------------------------------------------------------------------------------

STAGE = """
import sys
from pathlib import Path
from datasets.processed import ProcessedData
from datasets.staging import stage
print("ready", flush=True)
sys.stdin.readline()
print(len(stage(ProcessedData(sys.argv[1]), Path(sys.argv[2])).frames("depth")), "frames")
"""


def start(full: ProcessedData, local: Path, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", STAGE, str(full.root), str(local)]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_one_of_several_processes_copies(full: ProcessedData, local: Path, root: Path) -> None:
    pack(full, remove=True)
    processes = [start(full, local, root) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(f"{len(FRAMES)} frames" in output for output in outputs)
    assert sum("files copied" in output for output in outputs) == 1


def test_the_others_wait_and_say_so(full: ProcessedData, local: Path, root: Path) -> None:
    pack(full, remove=True)
    with locked(ProcessedData(local).lock_path):
        process = start(full, local, root)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(f"another process is at work in {local}")
        assert process.poll() is None
        assert not ProcessedData(local).packed_dir.exists()
    assert f"{len(FRAMES)} frames" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_a_file_system_without_locks_costs_a_warning(
    full: ProcessedData, local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert contents(stage(full, local)) == contents(full)
    assert "can't be locked (Function not implemented)" in capsys.readouterr().err
