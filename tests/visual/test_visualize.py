"""visualize.py as a user runs it: files, sizes, and one-line errors that say what there is."""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import train_asymmetric
import train_single_task
import visualize
from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from preprocessing.depth_preprocess import Depth
from signals import Ended
from tasks import TASKS
from tasks.steering import SteeringTask
from tests.raw_files import SCENE, frames
from tests.stages import run as run_stage
from tests.training.conftest import Printed, Workplace, call, own_workplace, small_data, workplace
from tests.training.test_asymmetric import ASYMMETRIC
from visual.output import Series, video_pictures, write_video
from visual.pictures import picture_of
from visual.viewer import View

__all__ = ["call", "own_workplace", "small_data", "workplace"]

FRAME = frames(12, SCENE)[0]


@pytest.fixture(scope="module")
def runs(small_data: tuple[RawData, ProcessedData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box network and an asymmetric one, trained for one epoch."""
    place = Workplace(*small_data, tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        run_script(patch, train_single_task.main, place.flags("box"))
        config = place.config(json.dumps(ASYMMETRIC))
        flags = [*place.roots(), "--config", str(config), "--runs-root", str(place.runs), "--wandb", "disabled"]
        run_script(patch, train_asymmetric.main, [*flags, "--set", "training.epochs=1"])
    return place.runs


def run_script(patch: pytest.MonkeyPatch, main: Callable[[], None], flags: list[str]) -> None:
    patch.setattr("sys.argv", ["script.py", *flags])
    main()


@pytest.fixture
def show(workplace: Workplace, call: Callable[..., Printed], runs: Path) -> Callable[..., Printed]:
    """Run visualize.py; BOX and MULTI stand for the networks' checkpoints."""

    def run(*flags: str) -> Printed:
        paths = {"BOX": f"box={runs}/box/best.pt", "MULTI": f"multi={runs}/asymmetric/best.pt"}
        flags = [paths.get(flag, flag) for flag in flags]
        return call(visualize.main, *workplace.roots(), "--out", str(workplace.dir / "out"), *flags)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def width_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def test_labels_before_any_training(show: Callable[..., Printed], workplace: Workplace) -> None:
    printed = show("--sample", str(FRAME))
    assert (printed.code, printed.err) == (0, "")
    out, name = workplace.dir / "out", f"{FRAME.scene}_{FRAME.id}"
    for task in TASKS:
        assert names(out / task / name) == {"camera.png", "truth.png"}
    assert names(out / "all" / name) == {"sheet.png"}
    assert printed.out.strip() == str(out / "all" / name / "sheet.png")


def test_a_picture_a_network_and_a_sheet(show: Callable[..., Printed], workplace: Workplace) -> None:
    printed = show("--task", "box", "--sample", str(FRAME), "--checkpoint", "BOX", "MULTI")
    assert printed.code == 0, printed.err
    (folder,) = (workplace.dir / "out" / "box").iterdir()
    assert names(folder) == {"camera.png", "truth.png", "box.png", "multi.png", "sheet.png"}
    two = width_of(folder / "sheet.png")
    show("--task", "box", "--sample", str(FRAME), "--checkpoint", "BOX")
    one = width_of(folder / "sheet.png")
    show("--task", "box", "--sample", str(FRAME))
    assert two - one == one - width_of(folder / "sheet.png") > 480  # a column each: the checkpoints + 2


def test_the_camera_column_is_the_frame_itself(show: Callable[..., Printed], workplace: Workplace) -> None:
    show("--task", "depth", "--sample", str(FRAME))
    picture = np.asarray(Image.open(workplace.dir / "out" / "depth" / f"{FRAME.scene}_{FRAME.id}" / "camera.png"))
    assert picture.shape == (600, 960, 3)  # the test's camera is 96 x 60


def test_with_all_tasks_a_missing_head_is_an_empty_cell(show: Callable[..., Printed], workplace: Workplace) -> None:
    printed = show("--sample", str(FRAME), "--checkpoint", "BOX")
    assert printed.code == 0, printed.err
    empty = np.asarray(Image.open(workplace.dir / "out" / "depth" / f"{FRAME.scene}_{FRAME.id}" / "box.png"))
    assert (empty == 255).all()


def test_a_frame_without_a_label_has_an_empty_truth(own_workplace: Workplace, call: Callable[..., Printed]) -> None:
    own_workplace.processed.path("depth", FRAME).unlink()
    out = own_workplace.dir / "out"
    assert call(visualize.main, *own_workplace.roots(), "--sample", str(FRAME), "--out", str(out)).code == 0
    assert (np.asarray(Image.open(out / "depth" / f"{FRAME.scene}_{FRAME.id}" / "truth.png")) == 255).all()


def test_without_raw_images_the_processed_ones_are_shown(
    own_workplace: Workplace, call: Callable[..., Printed]
) -> None:
    for frame in own_workplace.raw.frames("camera"):
        own_workplace.raw.path("camera", frame).unlink()
    out = own_workplace.dir / "out"
    printed = call(visualize.main, *own_workplace.roots(), "--sample", str(FRAME), "--out", str(out))
    assert printed.code == 0, printed.err
    assert np.asarray(Image.open(out / "box" / f"{FRAME.scene}_{FRAME.id}" / "camera.png")).shape == (600, 960, 3)


def test_any_picture_is_predicted_on(show: Callable[..., Printed], workplace: Workplace) -> None:
    path = workplace.dir / "holiday.png"
    Image.fromarray(np.full((50, 200, 3), 90, np.uint8)).save(path)
    printed = show("--task", "depth", "--image", str(path), "--checkpoint", "MULTI")
    assert printed.code == 0, printed.err
    folder = workplace.dir / "out" / "depth" / "holiday"
    assert names(folder) == {"camera.png", "multi.png", "sheet.png"}
    assert np.asarray(Image.open(folder / "camera.png")).shape == (240, 960, 3)  # its own aspect ratio


def test_a_scene_is_a_video_of_all_its_frames(show: Callable[..., Printed], workplace: Workplace) -> None:
    printed = show("--task", "steering", "--scene", SCENE, "--checkpoint", "MULTI", "--gif", "--fps", "5")
    assert printed.code == 0, printed.err
    folder = workplace.dir / "out" / "steering" / SCENE
    assert names(folder) == {"scene.mp4", "scene.gif", "steering.png"}
    shown = len(frames(12, SCENE))
    assert len(list(video_pictures(folder / "scene.mp4"))) == shown
    assert cv2.VideoCapture(str(folder / "scene.mp4")).get(cv2.CAP_PROP_FPS) == 5
    with Image.open(folder / "scene.gif") as gif:
        assert gif.n_frames == shown
        assert gif.info["duration"] == 200


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--sample", "99"], "--sample 99: there are 24 frames to choose from"),
        (["--sample", "99", "--checkpoint", "BOX"], "--sample 99: there are 4 frames to choose from"),
        (["--sample", "0", "--split", "val"], "the split leaves 0 train"),
        (["--sample", "20180807_145028/000000001"], "no such frame; there are 24, such as 20180807_145028/000000091"),
        (["--sample", "first"], "--sample first: no such frame"),
        (["--scene", "20200101_000000"], "no such scene; there are 20180807_145028, 20181108_091945"),
        (["--task", "depth", "--sample", "0", "--checkpoint", "BOX"], "has no depth; it has box"),
        (["--sample", "0", "--checkpoint", "best.pt"], "not of the form LABEL=PATH"),
        (["--sample", "0", "--checkpoint", "a/b=best.pt"], "not of the form LABEL=PATH"),
        (["--sample", "0", "--checkpoint", "truth=best.pt"], "the label truth is taken"),
        (["--sample", "0", "--checkpoint", "BOX", "BOX"], "the label box is taken"),
        (["--sample", "0", "--checkpoint", "x=none.pt"], "none.pt does not exist"),
        (["--image", "none.png", "--checkpoint", "MULTI"], "none.png is not a picture"),
    ],
)
def test_mistakes_are_told_in_one_line(show: Callable[..., Printed], flags: list[str], told: str) -> None:
    printed = show(*flags)
    assert printed.code == 2
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_labels_of_another_size_are_told(own_workplace: Workplace, call: Callable[..., Printed], runs: Path) -> None:
    assert run_stage(Depth(), own_workplace.raw, own_workplace.processed, "--size", "32", "32", "--overwrite") == 0
    flags = ["--sample", str(FRAME), "--checkpoint", f"multi={runs}/asymmetric/best.pt"]
    printed = call(visualize.main, *own_workplace.roots(), *flags)
    assert printed.code == 2
    assert "has size [32, 32], this run has [64, 64]" in printed.err
    shutil.rmtree(own_workplace.processed.kind_dir("depth"))  # predictions need no labels
    printed = call(visualize.main, *own_workplace.roots(), *flags, "--out", str(own_workplace.dir / "out"))
    assert printed.code == 0, printed.err


def test_a_picture_without_a_network_has_nothing_to_show(show: Callable[..., Printed]) -> None:
    printed = show("--image", "x.png")
    assert printed.code == 2
    assert "needs a --checkpoint" in printed.err


def test_the_truth_of_a_scene_is_a_line_where_every_third_frame_has_a_label() -> None:
    task = SteeringTask()
    series = Series(picture_of(task), ["net"])
    for second in range(7):
        target = task.collate([np.float32([second])]) if second % 3 == 0 else None
        prediction = torch.full((1, 10), 5.0)
        view = View(
            np.zeros((4, 4, 3), np.uint8), {"steering": task}, {"steering": target}, {"net": {"steering": prediction}}
        )
        series.add(float(second), view)
    predicted, true = series.figure().axes[0].get_lines()
    assert predicted.get_xydata().tolist() == [[second, 5.0] for second in range(7)]
    assert true.get_xydata().tolist() == [[0, 0], [3, 3], [6, 6]]


def test_a_video_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def pictures() -> Iterator[np.ndarray]:
        yield np.zeros((32, 32, 3), np.uint8)
        assert list(tmp_path.iterdir())
        raise Ended(signal.SIGTERM)

    with pytest.raises(Ended):
        write_video(tmp_path / "scene.mp4", pictures(), 4.0)
    assert not list(tmp_path.iterdir())
