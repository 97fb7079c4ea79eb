"""visualize.py as a user runs it: files, sizes, and one-line errors that say what there is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import train_asymmetric
import train_single_task
import visual.output
import visual.viewer
import visualize
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.splits import Split
from preprocessing.depth_preprocess import Depth
from signals import Ended
from tasks import TASKS
from tasks.steering import SteeringTask
from tests.conftest import ROOT
from tests.raw_files import SCENE, frames
from tests.stages import run as run_stage
from tests.training.conftest import Printed, Workplace, call, own_workplace, small_data, workplace
from tests.training.test_asymmetric import ASYMMETRIC
from visual.page import Page, plotting
from visual.pictures import picture_of
from visual.scene import Series
from visual.sheet import Block, Layout, laid_out
from visual.video import video_pictures, write_video
from visual.viewer import NO_SPLIT, Splits, View

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
    assert width_of(folder / "sheet.png") == round(17.4 / 2.54 * 300)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[list[Block]]:
    """The blocks of each sheet that is drawn."""
    drawn = []

    def noted(blocks: Sequence[Block], width: int, size: int) -> Layout:
        drawn.append(list(blocks))
        return laid_out(blocks, width, size)

    for module in (visual.output, visual.viewer):
        monkeypatch.setattr(module, "laid_out", noted)
    return drawn


def captions(block: Block) -> list[list[str]]:
    return [[cell.caption.split(":")[0] for cell in row] for row in block.rows]


def test_a_sheet_has_the_camera_once_and_names_frames_and_parts(
    show: Callable[..., Printed], workplace: Workplace, sheets: list[list[Block]]
) -> None:
    first, second = (f"{frame.scene}/{frame.id}" for frame in frames(12, SCENE)[:2])
    printed = show("--sample", first, second, "--checkpoint", "BOX", "MULTI", "--format", "pdf", "--dpi", "60")
    assert printed.code == 0, printed.err
    assert printed.out.strip().endswith("+".join(name.replace("/", "_") for name in (first, second)) + "/sheet.pdf")
    assert Path(printed.out.strip()).read_bytes().startswith(b"%PDF")
    assert (workplace.dir / "out" / "depth" / second.replace("/", "_") / "multi.pdf").is_file()
    (blocks,) = sheets
    assert [block.heading.split(",")[0] for block in blocks] == [first, second]
    parts = {"training frame", "validation frame", "test frame", "frame of no split"}
    assert {block.heading.split(", ")[1] for block in blocks} <= parts
    for block in blocks:
        assert [caption for row in captions(block) for caption in row].count("camera") == 1
        assert captions(block)[1:] == [[f"{task}, {column}" for column in ("truth", "box", "multi")] for task in TASKS]


def test_what_is_not_drawn_on_the_image_stands_beside_the_camera_without_it(
    show: Callable[..., Printed], workplace: Workplace, sheets: list[list[Block]]
) -> None:
    assert show("--task", "steering", "--sample", str(FRAME), "--checkpoint", "MULTI").code == 0
    (((camera, truth, predicted),),) = [block.rows for block in sheets[0]]
    alone = Image.open(workplace.dir / "out" / "steering" / f"{FRAME.scene}_{FRAME.id}" / "multi.png")
    assert truth.picture.shape == predicted.picture.shape
    assert truth.picture.shape[0] < camera.picture.shape[0]
    assert alone.height > 600  # of a camera 960 px wide: the file of its own has both


def test_every_part_of_the_split_is_named(runs: Path, show: Callable[..., Printed], sheets: list[list[Block]]) -> None:
    split = json.loads((runs / "box" / "split.json").read_text())
    for part, word in {"train": "training frame", "val": "validation frame", "unused": NO_SPLIT}.items():
        if split[part]:
            flags = ["--task", "box", "--sample", split[part][0], "--checkpoint", "BOX", "--dpi", "50"]
            assert show(*flags).code == 0
            assert sheets[-1][0].heading.endswith(f", {word}: box")
            other = "train" if part == "val" else "val"
            refused = show(*flags, "--split", other)
            assert (refused.code, f"--split {other}, but it is a {word}" in refused.err) == (2, True)


def test_a_frame_that_trains_and_validates_is_both() -> None:
    frame = Frame("a2d2", SCENE, "1")
    assert Splits(Split(train=(frame,), val=(frame,), test=())).of(frame) == "training and validation frame"
    assert Splits(None).of(frame) == ""


def test_the_part_of_a_scene_that_validates(
    runs: Path, show: Callable[..., Printed], sheets: list[list[Block]]
) -> None:
    val = [name for name in json.loads((runs / "box" / "split.json").read_text())["val"] if f"/{SCENE}/" in name]
    flags = ["--task", "steering", "--scene", SCENE, "--checkpoint", "MULTI", "--dpi", "60"]
    assert show(*flags, "--split", "val").code == 0
    assert [block.heading for (block,) in sheets] == [
        f"{name.split('/', 1)[1]}, validation frame: steering" for name in sorted(val)
    ]


def test_columns_go_on_in_the_next_row(show: Callable[..., Printed], sheets: list[list[Block]]) -> None:
    flags = ["--task", "depth", "--sample", str(FRAME), "--checkpoint", "MULTI", "--columns", "2", "--width", "8.1"]
    assert show(*flags, "--errors").code == 0
    ((block,),) = sheets
    assert captions(block) == [["camera", "truth"], ["multi"]]
    assert block.rows[1][0].caption.startswith("multi: relative error, AbsRel ")
    assert block.rows[0][0].picture.shape[1] == (round(8.1 / 2.54 * 300) - 6) // 2


def test_plots_are_of_the_part_that_is_asked_for(show: Callable[..., Printed], workplace: Workplace) -> None:
    printed = show("--plots", "--checkpoint", "MULTI", "--format", "svg")
    assert printed.code == 0, printed.err
    assert printed.out.split() == [
        str(workplace.dir / "out" / kind / "multi-val" / f"{name}.svg")
        for kind, name in (("segmentation", "confusion"), ("box", "precision-recall"))
    ]
    told = show("--plots", "--task", "depth", "--checkpoint", "MULTI")
    assert (told.code, "--plots: there is none of depth" in told.err) == (2, True)


def test_runs_of_one_name_are_told_apart(
    show: Callable[..., Printed], workplace: Workplace, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(runs / "box", workplace.dir / "later" / "box")
    figures = []
    monkeypatch.setattr(Page, "save_figure", lambda page, figure, path: figures.append(figure) or path)
    assert show("--curves", str(runs / "box"), str(other)).code == 0
    assert [text.get_text() for text in figures[0].legends[0].get_texts()][:2] == [str(runs / "box"), str(other)]


def test_runs_have_curves(show: Callable[..., Printed], workplace: Workplace, runs: Path) -> None:
    printed = show("--curves", str(runs / "box"), str(runs / "asymmetric"))
    assert (printed.code, printed.out.strip()) == (0, str(workplace.dir / "out" / "curves" / "box+asymmetric.png"))
    assert width_of(Path(printed.out.strip())) == pytest.approx(17.4 / 2.54 * 300, abs=1)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--curves", "x", "--checkpoint", "a=b"], "--checkpoint says nothing of --curves"),
        (["--curves", "x", "--split", "val"], "--split says nothing of --curves"),
        (["--sample", "1", "--gif"], "--gif says nothing of --sample; it is for --scene"),
        (["--image", "x.png", "--checkpoint", "a=b", "--errors"], "--errors says nothing of --image"),
        (["--plots"], "--plots needs a --checkpoint"),
        (["--plots", "--checkpoint", "a=b", "--width", "8"], "--width says nothing of --plots"),
        (["--sample", "1", "--errors"], "--errors needs a --checkpoint"),
        (["--sample", "1", "--columns", "0"], "--columns"),
    ],
)
def test_flags_that_would_be_ignored_are_mistakes(call: Callable[..., Printed], flags: list[str], told: str) -> None:
    printed = call(visualize.main, *flags)
    assert printed.code == 2
    assert told in printed.err


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
    printed = show(
        "--task", "steering", "--scene", SCENE, "--checkpoint", "MULTI", "--gif", "--fps", "5", "--dpi", "100"
    )
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
        (["--scene", ""], "--scene : no such scene"),
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


@pytest.mark.parametrize("size", [(9000, 3), (3, 9000)])
def test_a_picture_that_is_hardly_one_is_refused(
    show: Callable[..., Printed], tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "line.png")
    printed = show("--image", str(tmp_path / "line.png"), "--checkpoint", "MULTI")
    assert printed.code == 2
    assert f"line.png has {size[0]} x {size[1]} pixels; one side may be 20 times the other" in printed.err


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
            np.zeros((4, 4, 3), np.uint8),
            {"steering": task},
            {"steering": target},
            {"net": {"steering": prediction}},
            split="training frame" if second < 3 else "validation frame" if second < 5 else NO_SPLIT,
        )
        series.add(float(second), view)
    with plotting():
        figure = series.figure(Page(), "a scene")
    predicted, true = figure.axes[0].get_lines()
    assert predicted.get_xydata().tolist() == [[second, 5.0] for second in range(7)]
    assert true.get_xydata().tolist() == [[0, 0], [3, 3], [6, 6]]
    error, _zero = figure.axes[1].get_lines()
    assert error.get_xydata().tolist() == [[0, 5], [3, 2], [6, -1]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training frames",
        "validation frames",
        "frames of no split",
        "net",
        "true",
    ]


def test_a_video_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def pictures() -> Iterator[np.ndarray]:
        yield np.zeros((32, 32, 3), np.uint8)
        assert list(tmp_path.iterdir())
        raise Ended(signal.SIGTERM)

    with pytest.raises(Ended):
        write_video(tmp_path / "scene.mp4", pictures(), 4.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_do_not_spin(given: dict[str, str], used: str) -> None:
    code = (
        "import atexit, os, runpy, sys\nsys.argv[1:] = ['--help']\n"
        "atexit.register(lambda: print('>', os.environ['OMP_WAIT_POLICY']))\n"
        "runpy.run_path('visualize.py', run_name='__main__')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"> {used}\n")


def test_labels_are_drawn_without_what_takes_seconds_to_load() -> None:
    heavy = ("torchmetrics", "torchvision", "matplotlib", "scipy", "timm", "wandb", "torchjd")
    code = f"import sys\nimport visual.show\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
