"""Training curves: which lines there are, in which units, and what is said of runs that have none."""

import json
from pathlib import Path

import pytest

from errors import UserError
from visual.curves import RunCurves, curves_figure
from visual.page import Page, plotting


def write_run(folder: Path, rows: list[dict[str, float | None]], config: str = "") -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunCurves:
    rows: list[dict[str, float | None]] = [
        {"samples": 0, "samples/indoor": 3},
        {"samples": 10, "train/indoor/loss": 2.0, "train/depth/loss": 0.5, "train/loss": 2.5},
        {"samples": 10, "val/indoor/loss": 1.5, "val/indoor/miou": 0.25, "val/indoor/iou/Car": 0.5, "val/score": 0.2},
        {"samples": 20, "train/indoor/loss": 1.0, "val/indoor/miou": 0.2, "val/depth/abs_rel": None},
    ]
    folder = write_run(tmp_path / "ours", rows, "tasks: {indoor: {label: segmentation}, depth: {label: null}}")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"samples": 30, "train/in')  # a crash
    return RunCurves.read(folder)


def test_lines_are_losses_and_the_deciding_metric_as_people_write_it(run: RunCurves) -> None:
    assert run.tasks() == ["indoor", "depth"]
    with plotting():
        figure = curves_figure([run], Page())
    above, depth_above, below, depth_below = figure.axes
    train, val = above.get_lines()
    assert train.get_xydata().tolist() == [[10, 2], [20, 1]]
    assert val.get_xydata().tolist() == [[10, 1.5]]
    curve, best = below.get_lines()
    assert curve.get_xydata().tolist() == [[10, 25], [20, 20]]  # %
    assert best.get_xydata().tolist() == [[10, 25]]
    assert below.get_ylabel() == "validation mIoU, % ↑"
    assert len(depth_above.get_lines()) == 1
    assert [text.get_text() for text in depth_below.texts] == ["not validated"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:1] == ["ours"]


@pytest.mark.parametrize(
    "spoilt",
    [b"[" * 100_000, b"\xff\xfe", b'{"samples": 1, "train/depth/loss": ' + b"9" * 400 + b"}"],
    ids=["nested deep", "not UTF-8", "a huge number"],
)
def test_a_spoilt_line_is_left_out(run: RunCurves, tmp_path: Path, spoilt: bytes) -> None:
    with open(tmp_path / "ours" / "metrics.jsonl", "ab") as file:
        file.write(b"\n" + spoilt + b"\n")
    assert RunCurves.read(tmp_path / "ours").of("train/depth/loss") == run.of("train/depth/loss")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff\xfe", b'{"samples": 1e400}', b'{"samples": 1, "train/loss": 1e400}']
)
def test_a_file_without_losses_is_named(tmp_path: Path, content: bytes) -> None:
    (write_run(tmp_path / "ours", []) / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"/ours: metrics\.jsonl has no losses yet, or none that can be read$"):
        RunCurves.read(tmp_path / "ours")


def test_the_best_error_is_the_lowest(tmp_path: Path) -> None:
    rows: list[dict[str, float | None]] = [
        {"samples": n, "val/depth/abs_rel": value} for n, value in ((1, 0.3), (2, 0.1), (3, 0.2))
    ]
    with plotting():
        figure = curves_figure([RunCurves.read(write_run(tmp_path / "a", rows))], Page())
    assert figure.axes[1].get_lines()[1].get_xydata().tolist() == [[2, 0.1]]
    assert figure.get_figwidth() == pytest.approx(8.128 / 2.54)  # of one task: a column


@pytest.mark.parametrize(("width", "grid"), [(17.4, (2, 3)), (8.1, (4, 2)), (4.0, (6, 1))])
def test_tasks_go_on_below_where_the_page_is_narrow(width: float, grid: tuple[int, int], tmp_path: Path) -> None:
    rows: list[dict[str, float | None]] = [{"samples": n, "train/a/loss": n, "train/b/loss": n, "train/c/loss": n}
                                           for n in (1, 2)]  # fmt: skip
    run = RunCurves.read(write_run(tmp_path / "x", rows))
    with plotting():
        figure = curves_figure([run], Page(width_cm=width))
    assert len(figure.axes) == 6  # no empty ones
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["a", "b", "c"]
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == grid
    figure.savefig(tmp_path / "x.png")
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_several_runs_are_lines_of_the_same_panel(run: RunCurves) -> None:
    with plotting():
        figure = curves_figure([run, run], Page())
    assert len(figure.axes[0].get_lines()) == 4
    assert len({line.get_color() for line in figure.axes[0].get_lines()}) == 2


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no metrics\.jsonl; name the folder of a run"):
        RunCurves.read(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl has no losses yet"):
        RunCurves.read(write_run(tmp_path / "new", [{"samples": 0, "samples/depth": 3}]))
