"""One network trained on data sets that each carry other labels."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import train_asymmetric
import train_symmetric
import visualize
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.roots import Root, Roots
from datasets.spec import SPLITS
from errors import UserError
from tests.small_roots import SIZE, write_root
from tests.training.conftest import Printed
from training import checkpoint
from training.data_config import SplitConfig
from training.splitting import make_split
from visual.viewer import Viewer

Call = Callable[..., Printed]

CONFIG = """\
data:
  size: [64, 64]
  split: {mode: time, fractions: [0.6, 0.3, 0.1], gap_frames: 0}
  workers: 0
training: {epochs: 2, log_every: 1, images: 1}
network: {encoder: small, pretrained: none, channels: 8, layers: 1}
micro_batch_size: 2
backbone: {batch_size: 4, learning_rate: 0.001}
tasks:
  indoor: {label: segmentation, from: [rooms], batch_size: 4, learning_rate: 0.001}
  outdoor: {label: segmentation, from: [streets], batch_size: 4, learning_rate: 0.001}
  steering: {batch_size: 4, learning_rate: 0.001}
  depth: {batch_size: 4, learning_rate: 0.001}
"""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[ProcessedData]:
    """rooms: segmentation and depth; streets: another class table, steering and depth."""
    folder = tmp_path_factory.mktemp("roots")
    streets = ("road", "car", "sky")
    return [
        write_root(folder / "rooms", "rooms", ("segmentation", "depth")),
        write_root(folder / "streets", "streets", ("segmentation", "steering", "depth"), classes=streets, seed=1),
    ]


def flags(roots: list[ProcessedData]) -> list[str]:
    return [flag for root in roots for flag in ("--processed-root", str(root.root))]


def train(call: Call, folder: Path, roots: list[ProcessedData], *more: str) -> Printed:
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    own = ["--config", str(config), "--runs-root", str(folder / "runs"), "--wandb", "disabled", "--name", "run"]
    return call(train_asymmetric.main, *own, *flags(roots), "--device", "cpu", *more)


@pytest.fixture(scope="module")
def trained(roots: list[ProcessedData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder; `call` is of one test, so a process of its own trains here."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        config = folder / "config.yaml"
        config.write_text(CONFIG)
        arguments = ["--config", config, "--runs-root", folder / "runs", "--wandb", "disabled", "--name", "run"]
        patch.setattr("sys.argv", ["train_asymmetric.py", *map(str, arguments), *flags(roots), "--device", "cpu"])
        train_asymmetric.main()
    return folder / "runs" / "run"


def test_each_task_trains_on_the_data_sets_that_it_is_bound_to(trained: Path) -> None:
    content = checkpoint.load(trained / "last.pt")
    assert content["bound"] == {
        "indoor": ["rooms"],
        "outdoor": ["streets"],
        "steering": ["streets"],
        "depth": ["rooms", "streets"],
    }
    assert content["updates"]["seen"]["indoor"] * 2 == content["updates"]["seen"]["depth"] == 2 * 2 * 14
    assert content["model"]["heads.indoor.output.weight"].shape[0] == 2
    assert content["model"]["heads.outdoor.output.weight"].shape[0] == 3


def test_the_split_says_which_data_set_a_frame_is_from(trained: Path) -> None:
    split = json.loads((trained / "split.json").read_text())
    assert {Frame.parse(frame).dataset for frame in split["train"]} == {"rooms", "streets"}


def test_one_metric_over_all_data_sets_and_one_for_each(
    call: Call, roots: list[ProcessedData], trained: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    arguments = [trained / "last.pt", *flags(roots), "--device", "cpu", "--workers", "0", "--json", report]
    assert call(evaluate.main, *map(str, arguments)).code == 0
    numbers = json.loads(report.read_text())[trained.name]
    depth, split = numbers["depth"], json.loads((trained / "split.json").read_text())["val"]
    sizes = {root: sum(frame.startswith(root) for frame in split) for root in ("rooms", "streets")}
    mean = sum(depth[f"abs_rel@{root}"] * size for root, size in sizes.items()) / sum(sizes.values())
    assert depth["abs_rel"] == pytest.approx(mean)  # every frame has as many measurements
    assert not any("@" in key for task in ("indoor", "outdoor", "steering") for key in numbers[task])


def test_pictures_of_either_data_set(call: Call, roots: list[ProcessedData], trained: Path, tmp_path: Path) -> None:
    frames = ["rooms/a/010", "streets/a/010"]
    arguments = [*flags(roots), "--checkpoint", f"net={trained / 'best.pt'}", "--out", str(tmp_path)]
    assert call(visualize.main, "--sample", *frames, *arguments, "--device", "cpu").code == 0
    assert {path.name for path in (tmp_path / "depth").iterdir()} == {"rooms_a_010", "streets_a_010"}
    assert (tmp_path / "all" / "rooms_a_010+streets_a_010" / "sheet.png").is_file()


def test_a_name_that_two_data_sets_have_is_asked_back(call: Call, roots: list[ProcessedData], tmp_path: Path) -> None:
    where = [*flags(roots), "--out", str(tmp_path)]
    done = call(visualize.main, "--sample", "b/011", *where)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--sample b/011: there are rooms/b/011 and streets/b/011; name one of them so" in done.err
    done = call(visualize.main, "--scene", "b", *where)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--scene b: there are rooms/b and streets/b; name one of them so" in done.err
    assert "there are rooms/a, rooms/b, streets/a, streets/b" in call(visualize.main, "--scene", "c", *where).err
    assert not list(tmp_path.iterdir())


def test_a_scene_of_one_of_two_data_sets(roots: list[ProcessedData]) -> None:
    viewer = Viewer(RawData("none"), roots, {}, "depth")
    frames = viewer.scene("streets/b")
    assert {(frame.dataset, frame.scene) for frame in frames} == {("streets", "b")}
    assert viewer.scene_of(frames[0]) == "streets/b"
    alone = Viewer(RawData("none"), roots[1:], {}, "depth")
    assert alone.scene("b") == alone.scene("streets/b") == frames
    assert alone.scene_of(frames[0]) == "b"


def test_resume_equals_uninterrupted(call: Call, roots: list[ProcessedData], tmp_path: Path) -> None:
    assert train(call, tmp_path, roots, "--name", "whole").code == 0
    stop = tmp_path / "stop"
    stop.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A2D2_STOP_FILE", str(stop))
        assert "interrupted" in train(call, tmp_path, roots, "--name", "parts").out
    assert train(call, tmp_path, roots, "--name", "parts", "--resume", "auto").code == 0
    whole, parts = (checkpoint.load(tmp_path / "runs" / name / "last.pt")["model"] for name in ("whole", "parts"))
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["tasks.indoor.from=null"],
            ["tasks.indoor: rooms and streets have other segmentation labels", "class 0 is ground, and road", "from"],
        ),
        (["tasks.indoor.from=[attic]"], ["tasks.indoor.from", "no data set attic", "rooms, streets"]),
        (["tasks.steering.from=[rooms]"], ["tasks.steering.from", "rooms has no steering labels"]),
        (["tasks.indoor.label=lanes"], ["tasks", "unknown kind of label lanes"]),
        (["data.size=[32, 32]"], ["settings.json has size", "[64, 64]", "[32, 32]"]),
        (["network.norm=train"], ["norm: train", "rooms, streets", "--force-trained-norms"]),
    ],
)
def test_mistakes_are_one_line(
    call: Call, roots: list[ProcessedData], tmp_path: Path, changes: list[str], words: list[str]
) -> None:
    done = train(call, tmp_path, roots, *(flag for change in changes for flag in ("--set", change)))
    assert done.code == 2
    error = done.err.strip().splitlines()[-1]
    assert all(word in error for word in words), error
    assert not (tmp_path / "runs").exists()


def test_trained_norms_on_demand(call: Call, roots: list[ProcessedData], tmp_path: Path) -> None:
    done = train(call, tmp_path, roots, "--set", "network.norm=train", "--force-trained-norms", "--dry-run")
    assert done.code == 0


def test_two_roots_of_one_name(call: Call, roots: list[ProcessedData], tmp_path: Path) -> None:
    twin = write_root(tmp_path / "twin", "rooms", ("depth",))
    done = train(call, tmp_path, [roots[0], twin])
    assert done.code == 2
    assert "two roots hold rooms" in done.err


def test_a_network_of_two_data_sets_needs_both(call: Call, roots: list[ProcessedData], trained: Path) -> None:
    done = call(evaluate.main, str(trained / "last.pt"), *flags(roots[:1]), "--device", "cpu")
    assert done.code == 2
    assert "was trained on streets; add its --processed-root" in done.err


def test_the_official_split_where_there_is_one(call: Call, tmp_path: Path) -> None:
    processed = write_root(tmp_path / "rooms", "rooms", ("segmentation", "depth"))
    frames = [frame.in_dataset for frame in processed.frames("camera")]
    split = {"train": frames[::3], "val": frames[1::3], "test": []}
    processed.dataset_path.write_text(json.dumps({"name": "rooms", "split": split}))
    alone = ["data.split={mode: official}", "tasks.outdoor=null", "tasks.steering=null"]
    more = [flag for change in alone for flag in ("--set", change)]
    assert train(call, tmp_path, [processed], *more).code == 0
    found = json.loads((tmp_path / "runs" / "run" / "split.json").read_text())
    assert {name: [frame.removeprefix("rooms/") for frame in found[name]] for name in split} == split
    assert len(found["unused"]) == len(frames[2::3])


def test_a_root_without_an_official_split_takes_the_fractions(roots: list[ProcessedData], tmp_path: Path) -> None:
    rooms = write_root(tmp_path / "rooms", "rooms", ())
    names = [frame.in_dataset for frame in rooms.frames("camera")]
    rooms.dataset_path.write_text(json.dumps({"name": "rooms", "split": {"train": names[:20], "val": [], "test": []}}))
    opened = Roots([Root.open(None, root, SIZE) for root in (rooms, roots[1])])
    config = SplitConfig(mode="official", fractions=[0.5, 0.25, 0.25], gap_frames=1, gap_seconds=0.0)
    split = make_split(config, opened, tmp_path)
    counts = {name: Counter(frame.dataset for frame in split.of(name)) for name in SPLITS}
    assert counts["train"] == {"rooms": 20, "streets": 2 * (6 - 2)}  # two scenes of 12 frames, two gaps in each
    assert counts["val"] == counts["test"] == {"streets": 2 * 3}


def test_frames_of_another_data_set_are_not_sought_in_a2d2(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_split(
            SplitConfig(), Roots([Root.open(RawData("raw"), write_root(tmp_path, "rooms", (), 0), SIZE)]), Path("raw")
        )
    assert str(error.value).startswith(f"no camera images below {tmp_path}; run preprocessing/folders.py")


# ---- what decides -------------------------------------------------------------------------------------------------


def test_a_test_label_decides_nothing(call: Call, tmp_path: Path) -> None:
    """Change the labels of the test frames, train again: the same weights, to the last bit."""
    weights = []
    for name in ("before", "after"):
        folder = tmp_path / name
        processed = write_root(folder / "rooms", "rooms", ("segmentation", "depth"))
        if name == "after":
            split = json.loads((tmp_path / "before" / "runs" / "run" / "split.json").read_text())
            for frame in map(Frame.parse, split["test"]):
                np.save(processed.path("depth", frame), np.full((64, 64), 9999, np.uint16))
        absent = ["--set", "tasks.outdoor=null", "--set", "tasks.steering=null"]
        assert train(call, folder, [processed], *absent).code == 0
        weights.append(checkpoint.load(folder / "runs" / "run" / "last.pt"))
    assert all(torch.equal(value, weights[1]["model"][name]) for name, value in weights[0]["model"].items())
    assert weights[0]["tasks"] == weights[1]["tasks"]
    assert weights[0]["best"] == weights[1]["best"]


def test_labels_are_read_once_for_all_starts(
    call: Call, roots: list[ProcessedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fits and constant baselines are kept by the hash of what they depend on, and made again where it changes."""
    assert train(call, tmp_path, roots).code == 0
    made = sorted((tmp_path / "runs" / ".fits").iterdir())
    times = [path.stat().st_mtime_ns for path in made]
    assert train(call, tmp_path, roots, "--name", "second").code == 0
    assert [path.stat().st_mtime_ns for path in made] == times
    assert sorted((tmp_path / "runs" / ".fits").iterdir()) == made
    more = ["--set", "data.labels={regime: fractions, fractions: {depth: 0.5}}"]
    assert train(call, tmp_path, roots, "--name", "third", *more).code == 0
    assert len(list((tmp_path / "runs" / ".fits").iterdir())) > len(made)


def test_symmetric_training_of_any_frames_joins_data_sets(
    call: Call, roots: list[ProcessedData], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        CONFIG.replace("backbone: {batch_size: 4, learning_rate: 0.001}", "batch_size: 4\nlearning_rate: 0.001")
        .replace(", batch_size: 4, learning_rate: 0.001", "")
        .replace("batch_size: 4, learning_rate: 0.001", "weight: 1.0")
    )
    arguments = ["--config", str(config), "--runs-root", str(tmp_path / "runs"), "--wandb", "disabled"]
    done = call(train_symmetric.main, *arguments, *flags(roots), "--device", "cpu", "--set", "frames=any")
    assert done.code == 0, done.err
