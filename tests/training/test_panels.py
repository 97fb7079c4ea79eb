"""The same validation frames after every validation, on disk and on the dashboard."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toy_task import KIND
from tests.training.conftest import Workplace
from tests.training.test_asymmetric import make_plan
from tests.training.test_loop import VALIDATION, Lab, lab
from training.loop import Trainer
from training.panels import class_table

__all__ = ["lab"]

wandb = pytest.importorskip("wandb")  # the project runs without it


class Dashboard:
    """Stands in for a wandb run; keeps what is logged beside numbers."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def of(self, key: str) -> list[Any]:
        return [row[key] for _, row in self.rows if key in row]


def pictures(trainer: Trainer) -> dict[str, set[str]]:
    """Epoch -> names of its pictures."""
    folder = trainer.run.dir / "images"
    return {epoch.name: {path.name for path in epoch.iterdir()} for epoch in folder.iterdir() if epoch.is_dir()}


@pytest.fixture
def dashboard(workplace: Workplace) -> tuple[Trainer, Dashboard]:
    trainer = make_plan(workplace, "training.images=2").trainer()
    trainer.tracker.wandb_run = Dashboard()
    trainer.train()
    return trainer, trainer.tracker.wandb_run


def test_the_same_frames_every_epoch(dashboard: tuple[Trainer, Dashboard]) -> None:
    trainer, board = dashboard
    for task in trainer.tasks:
        first, second = ([image._caption for image in images] for images in board.of(f"images/{task}"))
        assert first == second
        assert len({*first}) == 2
    last = pictures(trainer)["epoch-002"]
    assert len(last) == 2 * 4  # frames x tasks
    assert len({name.split("-", 1)[1] for name in last}) == 2


def test_so_many_pictures_are_kept_however_long_the_training(workplace: Workplace) -> None:
    trainer = make_plan(workplace, "training.images=1", "training.epochs=5", "training.keep_images=2").trainer()
    trainer.tracker.wandb_run = board = Dashboard()
    trainer.train()
    assert {*pictures(trainer)} == {f"epoch-{trainer.best['epoch']:03d}", "epoch-005"}
    assert len(board.of("images/depth")) == 2
    shown = [samples for samples, row in board.rows if "images/depth" in row]
    assert shown[-1] == trainer.updates.samples_seen  # the last one always


def test_overlays_masks_and_boxes_for_the_dashboard(dashboard: tuple[Trainer, Dashboard]) -> None:
    trainer, board = dashboard
    for task in trainer.tasks:
        assert [len(images) for images in board.of(f"images/{task}")] == [2, 2]
    (image, _), _ = board.of("images/segmentation")
    assert isinstance(image, wandb.Image)
    assert set(image._masks) == {"prediction", "truth"}
    (image, _), _ = board.of("images/box")
    assert set(image._boxes) == {"prediction", "truth"}


def test_classes_are_tables_and_the_confusion_comes_at_the_end(dashboard: tuple[Trainer, Dashboard]) -> None:
    trainer, board = dashboard
    (table,) = board.of("classes")
    assert table.columns == ["task", "class", "iou", "share", "ap", "ap50", "objects"]
    assert {row[0] for row in table.data} == {"segmentation", "box"}
    assert len(board.of("plots/segmentation-confusion")) == 1
    assert Image.open(trainer.run.plot("segmentation", "confusion")).width > 200


def test_drawing_changes_nothing_of_the_training(lab: Lab) -> None:
    with_images = lab.trainer("with", images=4, dropout=0.3)
    with_images.train()
    without = lab.trainer("without", images=0, dropout=0.3)
    without.train()
    for one, other in zip(with_images.model.parameters(), without.model.parameters(), strict=True):
        assert np.array_equal(one.detach(), other.detach())
    assert not (without.run.dir / "images").exists()
    assert {len(names) for names in pictures(with_images).values()} == {len(VALIDATION)}  # 3: fewer than 4


def test_an_unreadable_frame_is_left_out(lab: Lab) -> None:
    lab.raw.path("camera", VALIDATION[0]).write_bytes(b"no PNG")
    trainer = lab.trainer(epochs=1)
    trainer.train()
    (drawn,) = pictures(trainer).values()
    assert drawn == {trainer.run.image(1, KIND, frame).name for frame in VALIDATION[1:]}


def test_class_table() -> None:
    values = {"miou": 0.5, "iou/Car": 0.6, "iou/Sky": 0.4, "ap/Car": 0.1}
    assert class_table(values) == (["class", "iou", "ap"], [["Car", 0.6, 0.1], ["Sky", 0.4, None]])
