"""Reading labels, loose or packed: the same bytes, the loose file first, in every process that asks."""

import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.processed import ProcessedData
from datasets.roots import Root, Roots
from datasets.samples import LabelledFrames, Sample
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera as CameraStage
from preprocessing.depth_preprocess import Depth
from preprocessing.pack import pack
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tasks import TASKS
from tests.processed_files import KINDS, array, content, contents, write_label, write_labels
from tests.raw_files import SCENE, frames, write_every_kind
from tests.stages import run

FRAMES = frames(4)
ONE = FRAMES[0]


@pytest.fixture
def packed(processed: ProcessedData) -> ProcessedData:
    """Labels of every kind, in packs alone."""
    write_labels(processed, FRAMES)
    pack(processed, remove=True)
    return ProcessedData(processed.root)


def with_remove(processed: ProcessedData) -> None:
    """What pack.py does in another process."""
    processed.describe("a2d2")
    pack(ProcessedData(processed.root), remove=True)


# ---- one file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_packed", [False, True])
def test_read(processed: ProcessedData, is_packed: bool) -> None:
    for number, kind in enumerate(KINDS):
        write_label(processed, kind, ONE, number)
    if is_packed:
        with_remove(processed)
    for number, kind in enumerate(KINDS):
        assert processed.read(kind, ONE) == content(kind, number)
        assert processed.read(kind, FRAMES[1]) is None
        assert processed.exists(kind, ONE)
        assert not processed.exists(kind, FRAMES[1])
    assert processed.read("camera", ONE, ".jpg") is None
    assert not processed.exists("camera", ONE, ".jpg")


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", ["camera", "segmentation", "depth"])
def test_read_array(processed: ProcessedData, kind: str, is_packed: bool) -> None:
    write_label(processed, kind, ONE, 3)
    if is_packed:
        with_remove(processed)
    found = processed.read_array(kind, ONE)
    assert found.dtype == array(kind, 3).dtype
    assert np.array_equal(found, array(kind, 3))
    assert found.flags.writeable  # torch.from_numpy warns otherwise
    assert processed.read_array(kind, FRAMES[1]) is None


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_array_of_either_order(processed: ProcessedData, order: str) -> None:
    path = write_label(processed, "depth", ONE, 0)
    expected = np.asarray(np.arange(12, dtype=np.uint16).reshape(3, 4), order=order)
    np.save(path, expected)
    assert np.array_equal(processed.read_array("depth", ONE), expected)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:60], lambda b: b"", lambda b: b"x" * 500])
def test_a_broken_array_is_named_with_where_it_lies(processed: ProcessedData, change: Any, is_packed: bool) -> None:
    path = write_label(processed, "depth", ONE, 0)
    path.write_bytes(change(path.read_bytes()))
    source = str(path)
    if is_packed:
        with_remove(processed)
        source = f"depth/{SCENE}/000000091.npy in {processed.pack_path(SCENE)}"
    with pytest.raises(ValueError, match=rf"^{source} is not a whole \.npy file: ") as caught:
        processed.read_array("depth", ONE)
    assert "\n" not in str(caught.value)


def test_frames_of_both_forms_are_listed_once(packed: ProcessedData) -> None:
    more = frames(6)
    write_label(packed, "box", more[-1], 1)
    write_label(packed, "box", ONE, 1)
    assert ProcessedData(packed.root).frames("box") == [*FRAMES, more[-1]]
    assert ProcessedData(packed.root).frames("box", [SCENE]) == [*FRAMES, more[-1]]
    assert ProcessedData(packed.root).frames("box", []) == []
    assert ProcessedData(packed.root).frames("depth") == FRAMES


def test_a_loose_file_wins_over_its_pack(packed: ProcessedData) -> None:
    write_label(packed, "depth", ONE, 99)
    processed = ProcessedData(packed.root)
    assert processed.read("depth", ONE) == content("depth", 99)
    assert processed.read("depth", FRAMES[1]) != content("depth", 99)


# ---- what happens meanwhile -----------------------------------------------------------------------------------


def test_packing_and_removing_under_a_reader(processed: ProcessedData) -> None:
    write_labels(processed, FRAMES)
    expected = contents(processed)
    with_remove(processed)
    assert contents(processed) == expected


def test_a_reader_of_an_older_pack_finds_what_was_packed_since(processed: ProcessedData) -> None:
    write_labels(processed, FRAMES[:2])
    with_remove(processed)
    assert processed.read("box", ONE) is not None  # the pack of two frames is open
    write_label(processed, "box", FRAMES[3], 5)
    with_remove(processed)
    assert processed.read("box", FRAMES[3]) == content("box", 5)


def test_a_pack_once_open_needs_no_further_look_at_the_disk(
    packed: ProcessedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a label costs one read, however slow the file system is with names."""
    expected = contents(packed)
    with monkeypatch.context() as patch:
        for name in ("open", "stat", "lstat", "scandir"):
            patch.setattr(os, name, lambda path, *more, **options: pytest.fail(f"looked at {path}"))
        found = {(kind, frame): packed.read(kind, frame) for kind, frame in expected}
    assert found == expected


# ---- other processes ------------------------------------------------------------------------------------------


class Labels(Dataset):
    """Boxes as byte strings, read in the loader's workers."""

    def __init__(self, processed: ProcessedData):
        self.processed = processed

    def __len__(self) -> int:
        return len(FRAMES)

    def __getitem__(self, index: int) -> bytes | None:
        return self.processed.read("box", FRAMES[index])


@pytest.mark.parametrize(("context", "is_open"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_read_packs(packed: ProcessedData, context: str, is_open: bool) -> None:
    expected = [ProcessedData(packed.root).read("box", frame) for frame in FRAMES]
    if is_open:
        packed.read("box", ONE)
    loader = DataLoader(
        Labels(packed), batch_size=None, num_workers=1 if context == "spawn" else 2, multiprocessing_context=context
    )
    assert list(loader) == expected
    assert [packed.read("box", frame) for frame in FRAMES] == expected


def test_pickling_leaves_open_files_behind(packed: ProcessedData) -> None:
    packed.read("box", ONE)
    again = pickle.loads(pickle.dumps(packed))
    assert again.root == packed.root
    assert contents(again) == contents(packed)


# ---- samples --------------------------------------------------------------------------------------------------


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(np.array_equal(first, second))


@pytest.mark.parametrize("image_format", ["npy", "jpeg"])
def test_samples_are_the_same_in_both_forms(raw: RawData, processed: ProcessedData, image_format: str) -> None:
    write_every_kind(raw, FRAMES)
    for stage in (Segmentation(), Depth(), Boxes(), Steering()):
        assert run(stage, raw, processed, "--size", "40", "24") == 0
    assert run(CameraStage(), raw, processed, "--size", "40", "24", "--format", image_format) == 0

    def samples(data: ProcessedData, raw: RawData) -> list[dict[str, Any]]:
        tasks = {name: task(spec=LABELS[name]) for name, task in TASKS.items()}
        camera = Roots([Root.open(raw, data, (40, 24))])
        items = LabelledFrames(camera, tasks, [Sample(frame, tuple(TASKS)) for frame in camera.frames()])
        return [{key: item[key] for key in ("image", "labels")} for item in map(items.__getitem__, range(len(items)))]

    loose = samples(processed, raw)
    with_remove(processed)
    without_raw = RawData(raw.root / "nothing")  # the images too come from the packs
    packed = samples(ProcessedData(processed.root), without_raw)
    assert len(loose) == len(packed) == len(FRAMES)
    for first, second in zip(loose, packed, strict=True):
        assert isinstance(second["image"], torch.Tensor)
        assert equal(first, second)
