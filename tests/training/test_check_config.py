"""--check-config: flags and config are looked at where there are no data yet, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

import train_asymmetric
import train_single_task
import train_symmetric
from tests.training.conftest import Printed

Call = Callable[..., Printed]


@pytest.mark.parametrize(
    ("main", "flags", "mode"),
    [
        (train_single_task.main, ["--train-mode", "depth"], "depth"),
        (train_symmetric.main, ["--gpu", "configs/gpu/24gb.yaml"], "symmetric"),
        (train_asymmetric.main, ["--set", "training.epochs=3"], "asymmetric"),
    ],
)
def test_it_needs_no_data(
    main: Callable[[], None], flags: list[str], mode: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [word for name in ("data", "processed", "runs") for word in (f"--{name}-root", str(tmp_path / name))]
    done = call(main, *flags, *roots, "--check-config")
    assert (done.code, done.err) == (0, "")
    assert f"nothing is wrong with the configuration of {mode}" in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [["--train-mode", "depth", "--set", "training.epocs=3"], ["--train-mode", "sky"], ["--gpu", "none.yaml"]]
)
def test_a_mistake(call: Call, wrong: list[str]) -> None:
    done = call(train_single_task.main, *wrong, "--check-config")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(("error: ", "usage: "))
