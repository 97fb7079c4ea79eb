"""The committed frame lists are those of the configs, on the demo's synthetic set."""

import subprocess
import sys
from pathlib import Path

import pytest

import write_splits
from datasets.a2d2.raw import RawData
from datasets.files import read_json
from datasets.splits import Split
from datasets.synthetic.planning import plan_scene

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ["single_task_conf", "symmetric_conf", "asymmetric_conf"]
DEMO = ["single_task", "symmetric", "asymmetric"]


@pytest.fixture(scope="module")
def names_only(tmp_path_factory: pytest.TempPathFactory) -> RawData:
    """The demo's frames without their content: 8 scenes of 20 with boxes and 40 without."""
    raw = RawData(tmp_path_factory.mktemp("names"))
    for plan in (plan for index in range(8) for plan in plan_scene(index, 20, 0, 40)):
        path = raw.path("camera", plan.frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return raw


@pytest.mark.parametrize(("folder", "names", "configs"), [("", SHIPPED, []), ("demo", DEMO, DEMO)])
def test_committed_lists(
    names_only: RawData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    names: list[str],
    configs: list[str],
) -> None:
    asked = ["--configs", *(f"configs/demo/{name}.yaml" for name in configs)] if configs else []
    roots = ["--data-root", str(names_only.root), "--processed-root", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", ["write_splits.py", *roots, "--out", str(tmp_path), *asked])
    monkeypatch.chdir(ROOT)
    write_splits.main()
    for name in names:
        committed = read_json(ROOT / "splits" / "synthetic" / folder / f"{name}.json")
        assert read_json(tmp_path / f"{name}.json") == committed
        split = Split.from_json(committed)
        assert sum(len(frames) for frames in committed.values()) == 480
        assert not {*split.train} & {*split.val, *split.test}


def test_no_frames_is_the_users_to_mend(tmp_path: Path) -> None:
    flags = ["--data-root", str(tmp_path / "none"), "--processed-root", "none", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "write_splits.py", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no camera images")
    assert "'sh get_data.sh' fetches A2D2's" in done.stderr
