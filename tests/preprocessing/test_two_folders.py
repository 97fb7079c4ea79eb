"""Stages on a raw root with both folders of frames: their union, and copies that differ."""

import shutil

import numpy as np
import pytest

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from preprocessing.bounding_box import Boxes
from preprocessing.depth_preprocess import Depth
from preprocessing.report import merge
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tests.raw_files import frames, label_files, random_label, write_every_kind, write_png
from tests.stages import report_of, run, statuses

SMALL = ["--size", "48", "30"]
FRAMES = frames(6)
KINDS = ("camera", "label", "lidar")


@pytest.fixture
def two_folders(raw: RawData) -> RawData:
    """Six frames: the first two with boxes alone, the next two in both folders, the last two with classes alone."""
    write_every_kind(raw, FRAMES)
    for number, frame in enumerate(FRAMES[2:], 2):
        for kind in KINDS:
            source = raw.path_in(raw.images_dir, kind, frame)
            target = raw.path_in(raw.semantic_dir, kind, frame)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copy if number < 4 else shutil.move)(source, target)
        if number >= 4:
            raw.path_in(raw.images_dir, "label3D", frame).unlink()
    return raw


def test_stages_take_the_union(two_folders: RawData, processed: ProcessedData) -> None:
    for stage, count in ((Segmentation(), 6), (Depth(), 6), (Boxes(), 4), (Steering(), 6)):
        assert run(stage, two_folders, processed, *SMALL) == 0
        assert processed.frames(stage.kind) == FRAMES[:count]
        assert report_of(processed, stage.kind)["differing_copies"] == []


def test_labels_do_not_depend_on_the_folder(two_folders: RawData, processed: ProcessedData, tmp_path) -> None:
    one = RawData(tmp_path / "one")
    write_every_kind(one, FRAMES)
    expected = ProcessedData(tmp_path / "expected")
    for stage in (Segmentation, Depth):
        run(stage(), two_folders, processed, *SMALL)
        run(stage(), one, expected, *SMALL)
        assert label_files(processed, stage.kind) == label_files(expected, stage.kind)


def test_copies_that_differ_are_reported_and_the_one_beside_the_boxes_is_taken(
    two_folders: RawData, processed: ProcessedData, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Segmentation(), two_folders, processed, *SMALL)
    before = label_files(processed, "segmentation")
    differing = FRAMES[3]
    write_png(two_folders.path_in(two_folders.semantic_dir, "label", differing), random_label(np.random.default_rng(9)))
    run(Segmentation(), two_folders, processed, *SMALL, "--overwrite")
    assert label_files(processed, "segmentation") == before
    assert statuses(processed, "segmentation") == (6, 0, 0, 0)
    assert report_of(processed, "segmentation")["differing_copies"] == [str(differing)]
    assert "1 frames lie in two folders and differ" in capsys.readouterr().out


def test_reports_of_shards_name_them_all(two_folders: RawData, processed: ProcessedData) -> None:
    two_folders.path_in(two_folders.semantic_dir, "label", FRAMES[2]).write_bytes(b"another")
    run(Segmentation(), two_folders, processed, *SMALL, "--shard", "1/2")
    run(Segmentation(), two_folders, processed, *SMALL, "--shard", "2/2")
    merged = merge([report_of(processed, "segmentation", (number, 2)) for number in (1, 2)])
    assert merged["differing_copies"] == [str(FRAMES[2])]
