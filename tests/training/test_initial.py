"""--init-from: initial weights from another run, across training scripts; export_weights.py."""

from collections.abc import Callable
from pathlib import Path

import torch

import export_weights
from tests.training.conftest import Printed, Workplace
from tests.training.test_train_multitask import content_of, settings, train
from tests.training.test_train_single_task import assert_refused

Call = Callable[..., Printed]
TINY_RATE = "training.warmup=0.9"  # a new run of one step that hardly moves


def saved(place: Workplace, name: str, part: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in content_of(place, name)["model"].items() if key.startswith(part)}


def assert_near(place: Workplace, part: str, *, taken: bool) -> None:
    """Whether run b began from the weights that run a ended with."""
    a, b = saved(place, "a", part), saved(place, "b", part)
    assert a.keys() == b.keys()
    near = all(torch.allclose(a[key].float(), b[key].float(), atol=0.003) for key in a)
    assert near == taken, part


def test_from_symmetric_to_asymmetric(workplace: Workplace, call: Call) -> None:
    few = settings("tasks.box=null")
    assert train(call, workplace, "symmetric", "--name", "a", *few, *settings("seed=5")).code == 0
    best = workplace.runs / "a" / "best.pt"
    flags = ("--name", "b", "--init-from", str(best), "--resume", "auto", *settings(TINY_RATE))
    printed = train(call, workplace, "asymmetric", *flags)
    assert (printed.code, printed.err) == (0, "")
    taken = "encoder, bifpn, heads.segmentation, heads.steering, heads.depth"
    assert f"taken from {best}: {taken}; not taken: heads.box (not there)\n" in printed.out
    assert_near(workplace, "encoder.", taken=True)
    assert_near(workplace, "heads.depth.", taken=True)
    assert content_of(workplace, "b")["init_from"] == str(best)

    again = train(call, workplace, "asymmetric", *flags)  # a batch script's same command
    assert (again.code, "taken from" in again.out, "goes on after" in again.out) == (0, False, True)
    other = train(call, workplace, "asymmetric", *flags, "--init-from", str(workplace.runs / "b" / "last.pt"))
    assert_refused(other, "the run started from", "a/best.pt")


def test_only_some_groups(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "asymmetric", "--name", "a", *settings("seed=5")).code == 0
    flags = ("--name", "b", "--init-from", str(workplace.runs / "a" / "best.pt"), *settings(TINY_RATE))
    printed = train(call, workplace, "symmetric", "--train-mode", "depth", *flags, "--only", "backbone")
    assert printed.code == 0
    assert "not taken: heads.depth (not asked for); of no use here: heads.box, heads.seg" in printed.out
    assert_near(workplace, "bifpn.", taken=True)
    assert_near(workplace, "heads.depth.", taken=False)


def test_what_does_not_fit_is_refused(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "symmetric", "--train-mode", "depth", "--name", "a").code == 0
    flags = ("--name", "b", "--init-from", str(workplace.runs / "a" / "best.pt"), "--dry-run")
    assert_refused(train(call, workplace, "asymmetric", *flags, "--only", "lanes"), "--only lanes", "backbone, ")
    assert_refused(train(call, workplace, "asymmetric", *flags, "--only", "box"), "heads.box: not there")
    wide = train(call, workplace, "asymmetric", *flags, *settings("network.channels=16"))
    assert "taken from" in wide.out
    assert "bifpn (bifpn." in wide.out
    assert "[8, " in wide.out
    assert_refused(train(call, workplace, "single", "--train-mode", "depth", *flags), "network: not there")
    printed = train(call, workplace, "asymmetric", "--only", "box")
    assert (printed.code, "--only needs --init-from" in printed.err) == (2, True)


def test_pretrained_weights_are_not_read_where_a_checkpoint_has_them(workplace: Workplace, call: Call) -> None:
    """Whoever moves on from a run needs the file of its encoder no more."""
    assert train(call, workplace, "symmetric", "--name", "a").code == 0
    flags = ("--name", "b", "--init-from", str(workplace.runs / "a" / "best.pt"), "--dry-run")
    gone = settings("network.pretrained=gone.pth", "network.norm=group")
    assert train(call, workplace, "symmetric", *flags, *gone).code == 0
    assert_refused(train(call, workplace, "symmetric", *flags, *gone, "--only", "box"), "gone.pth")


def test_the_weights_do_not_take_the_place_of_their_checkpoint(tmp_path: Path, call: Call) -> None:
    (tmp_path / "best.pt").write_bytes(b"hours of training")
    (tmp_path / "link.pt").symlink_to("best.pt")
    for out in ("best.pt", "link.pt"):
        printed = call(export_weights.main, str(tmp_path / "best.pt"), str(tmp_path / out))
        assert_refused(printed, f"{out} is read from, and would be written over")
    assert (tmp_path / "best.pt").read_bytes() == b"hours of training"


def test_a_bare_state_dict(workplace: Workplace, call: Call) -> None:
    assert train(call, workplace, "symmetric", "--name", "a").code == 0
    best, file = str(workplace.runs / "a" / "best.pt"), workplace.dir / "weights.pth"
    assert call(export_weights.main, best, str(file)).code == 0
    model = torch.load(workplace.runs / "a" / "best.pt", weights_only=True)["model"]
    exported = torch.load(file, weights_only=True)
    assert exported.keys() == model.keys()
    assert all(torch.equal(exported[name], model[name]) for name in model)

    assert call(export_weights.main, best, str(file), "--encoder").code == 0
    pretrained = settings(f"network.pretrained={file}", "network.norm=group", TINY_RATE)
    assert train(call, workplace, "asymmetric", "--name", "b", *pretrained).code == 0
    assert_near(workplace, "encoder.", taken=True)
    assert train(call, workplace, "single", "--train-mode", "steering", "--name", "c").code == 0
    none = call(export_weights.main, str(workplace.runs / "c" / "best.pt"), str(file), "--encoder")
    assert_refused(none, "has no encoder")
