"""Checkpoints: whole or not there, and no code is run from them."""

import os
import random
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from tests.training.checkpoints import content
from tests.training.test_loop import assert_same_state
from training import checkpoint


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path, saved = tmp_path / "run" / "last.pt", content()
    checkpoint.save(path, saved)
    loaded = checkpoint.load(path)
    assert loaded.pop("format") == checkpoint.FORMAT
    assert_same_state(loaded, saved)
    assert loaded["updates"]["groups"]["steering"]["gradients"][1].dtype == torch.float64
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(1))

    def full_disk(whole: Any, file: Any) -> None:
        file.write(b"PK half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match="No space"):
        checkpoint.save(path, content(2))
    monkeypatch.undo()
    assert checkpoint.load(path)["position"]["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_kill_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(1))

    def killed(whole: Any, file: Any) -> None:
        file.write(b"PK half a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(torch, "save", killed)
    child = os.fork()
    if child == 0:
        try:
            checkpoint.save(path, content(2))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    monkeypatch.undo()
    assert checkpoint.load(path)["position"]["epoch"] == 1
    checkpoint.save(path, content(3))
    assert checkpoint.load(path)["position"]["epoch"] == 3


class Evil:
    """Runs code when unpickled in the ordinary way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL_DIR"],)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_DIR", str(tmp_path / "evil"))
    path = tmp_path / "best.pt"
    torch.save({"format": checkpoint.FORMAT, "model": Evil()}, path)
    with pytest.raises(UserError):
        checkpoint.load(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("junk", [b"", b"garbage" * 9, b"PK\x03\x04 and no more", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(junk)
    with pytest.raises(UserError, match="is not a checkpoint of this project") as error:
        checkpoint.load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)  # torch advises to load it in the unsafe way


def test_other_formats_and_missing_files(tmp_path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT + 1}, tmp_path / "newer.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("newer.pt", "list.pt"):
        with pytest.raises(UserError, match=f"{name} is not a checkpoint"):
            checkpoint.load(tmp_path / name)
    with pytest.raises(UserError, match=r"no\.pt does not exist"):
        checkpoint.load(tmp_path / "no.pt")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_something_else_in_its_place(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt is not a checkpoint of this project \(no file\)"):
        checkpoint.load(tmp_path / "best.pt")


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    """torch itself reads most of them as other numbers. In padding and unused fields of the zip they say nothing."""
    path, rng, found = tmp_path / "best.pt", random.Random(0), 0
    whole = content()
    whole["model"]["weight"] = torch.rand(64, 64)
    checkpoint.save(path, whole)
    good = bytearray(path.read_bytes())
    for _ in range(100):
        changed = bytearray(good)
        changed[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            loaded = checkpoint.load(path)
        except UserError:
            found += 1
        else:
            assert loaded.pop("format") == checkpoint.FORMAT
            assert_same_state(loaded, whole)
    assert found > 80


def test_compressed_entries_are_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "best.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match="compressed entries"):
        checkpoint.load(tmp_path / "best.pt")


def spoil(tensor: torch.Tensor) -> None:
    tensor.view(-1)[0] = float("nan")


@pytest.mark.parametrize(
    ("what", "spoilt"),
    [
        ("weight", lambda c: spoil(c["model"]["weight"])),
        ("exp_avg_sq of steering", lambda c: spoil(moments_of(c)["exp_avg_sq"])),
        ("median_depth of depth", lambda c: c["tasks"].update(depth={"median_depth": torch.tensor(float("inf"))})),
    ],
)
def test_what_is_not_finite_is_refused(tmp_path: Path, what: str, spoilt: Callable[[dict[str, Any]], None]) -> None:
    whole = content()
    spoilt(whole)
    checkpoint.save(tmp_path / "best.pt", whole)
    with pytest.raises(UserError, match=f"{what} is not finite"):
        checkpoint.load(tmp_path / "best.pt")


def moments_of(whole: dict[str, Any]) -> dict[str, torch.Tensor]:
    return whole["updates"]["groups"]["steering"]["optimizer"]["state"][0]


def test_random_states_round_trip() -> None:
    states = checkpoint.random_states()
    first = torch.rand(5)
    checkpoint.restore_random_states(states)
    assert torch.equal(torch.rand(5), first)


def test_git_commit_names_this_checkout() -> None:
    commit = checkpoint.git_commit()
    assert commit is None or len(commit.removesuffix("+")) == 40
