"""Checkpoints: whole or not there, and no code is run from them."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from training import checkpoint


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    content = {
        "model": {"weight": torch.arange(6.0).view(2, 3)},
        "position": {"epoch": 3, "validated": True},
        "best": {"score": -0.5, "results": {"depth": {"abs_rel": 0.1}}},
        "gradients": [None, torch.ones(2, dtype=torch.float64)],
        "git_commit": None,
    }
    checkpoint.save(path, content)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["model"]["weight"], content["model"]["weight"])
    assert loaded["gradients"][0] is None
    assert loaded["gradients"][1].dtype == torch.float64
    assert {key: loaded[key] for key in ("position", "best", "git_commit")} == {
        key: content[key] for key in ("position", "best", "git_commit")
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def full_disk(content: Any, file: Any) -> None:
        file.write(b"PK half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load(path)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_kill_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def killed(content: Any, file: Any) -> None:
        file.write(b"PK half a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(torch, "save", killed)
    child = os.fork()
    if child == 0:
        try:
            checkpoint.save(path, {"epoch": 2})
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    monkeypatch.undo()
    assert checkpoint.load(path)["epoch"] == 1
    checkpoint.save(path, {"epoch": 3})
    assert checkpoint.load(path)["epoch"] == 3


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


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, b"PK\x03\x04 and no more", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
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


def test_random_states_round_trip() -> None:
    states = checkpoint.random_states()
    first = torch.rand(5)
    checkpoint.restore_random_states(states)
    assert torch.equal(torch.rand(5), first)


def test_git_commit_names_this_checkout() -> None:
    commit = checkpoint.git_commit()
    assert commit is None or len(commit.removesuffix("+")) == 40
