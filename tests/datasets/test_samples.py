"""The dataset: files as they lie on disk, nothing more than asked for, nothing instead of what can't be read."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.roots import JPEG_END, Root, Roots
from datasets.samples import Batch, Collate, LabelledFrames, Sample
from errors import UserError
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera as CameraStage
from preprocessing.camera import encode_jpeg
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tasks import TASKS
from tests.raw_files import CAMERA, frames, write_calibration, write_every_kind
from tests.stages import run

CPU = torch.device("cpu")
SIZE = (40, 24)
FRAMES = frames(4)
STAGES = {"segmentation": Segmentation, "depth": Depth, "box": Boxes, "steering": Steering}


def tasks(*names: str) -> dict[str, Any]:
    return {name: TASKS[name](spec=LABELS.get(name)) for name in names}


def make(raw: RawData, processed: ProcessedData, *kinds: str, size: tuple[int, int] = SIZE) -> None:
    """Raw files of every kind, and labels of these kinds; 'camera' makes images too."""
    write_every_kind(raw, FRAMES)
    for kind in kinds:
        stage = CameraStage() if kind == "camera" else STAGES[kind]()
        flags = [] if kind == "steering" else ["--size", *map(str, size)]
        assert run(stage, raw, processed, *flags) == 0


def dataset(raw: RawData, processed: ProcessedData, *names: str) -> LabelledFrames:
    return LabelledFrames(
        Roots([Root.open(raw, processed, SIZE)]), tasks(*names), [Sample(frame, names) for frame in FRAMES]
    )


# ---- images ---------------------------------------------------------------------------------------------------


def test_image_from_the_png_equals_the_processed_one(raw: RawData, processed: ProcessedData, tmp_path: Path) -> None:
    make(raw, processed, "camera")
    nothing = ProcessedData(tmp_path / "nothing")
    ready, made = dataset(raw, processed), dataset(raw, nothing)
    for index, frame in enumerate(FRAMES):
        on_disk = np.load(processed.path("camera", frame), allow_pickle=False)
        image = ready[index]["image"]
        assert image.dtype == torch.uint8
        assert image.shape == (SIZE[1], SIZE[0], 3)
        assert np.array_equal(image, on_disk)
        assert np.array_equal(made[index]["image"], on_disk)


def test_processed_images_are_preferred(
    raw: RawData, processed: ProcessedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(raw, processed, "camera")
    monkeypatch.setattr("datasets.a2d2.geometry.read_png", lambda path, size: pytest.fail("decoded a PNG"))
    assert "image" in dataset(raw, processed)[0]


def test_a_frame_without_processed_image_is_made_from_its_png(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "camera")
    path = processed.path("camera", FRAMES[1])
    image = np.load(path, allow_pickle=False)
    path.unlink()
    assert np.array_equal(dataset(raw, processed)[1]["image"], image)
    assert Root.open(raw, processed, SIZE).frames() == FRAMES


def test_jpeg_images(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed)
    assert run(CameraStage(), raw, processed, "--size", *map(str, SIZE), "--format", "jpeg") == 0
    for frame in FRAMES:
        path = processed.path("camera", frame, ".jpg")
        image = Root.open(raw, processed, SIZE).read(frame)
        assert np.array_equal(image, cv2.imread(str(path))[..., ::-1])


def test_images_of_another_size_or_calibration_are_not_used(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "camera")
    other = Root.open(raw, processed, (20, 12))
    assert other.read(FRAMES[0]).shape == (12, 20, 3)
    before = Root.open(raw, processed, SIZE).read(FRAMES[0])
    write_calibration(raw, CAMERA | {"Distortion": [[0.3, 0.0, 0.0, 0.0, 0.0]]})
    assert not np.array_equal(Root.open(raw, processed, SIZE).read(FRAMES[0]), before)


def test_images_without_settings_are_not_used_and_that_is_said(
    raw: RawData, processed: ProcessedData, capsys: pytest.CaptureFixture[str]
) -> None:
    make(raw, processed, "segmentation")
    Root.open(raw, processed, SIZE)
    assert capsys.readouterr().err == ""
    make(raw, processed, "camera")
    processed.settings_path("camera").unlink()
    Root.open(raw, processed, SIZE)
    told = f"warning: {processed.settings_path('camera')} is missing beside images; this run has size {list(SIZE)}: "
    assert capsys.readouterr().err == f"{told}each image is made from its raw PNG, slowly\n"


def test_processed_data_alone_will_do(raw: RawData, processed: ProcessedData, tmp_path: Path) -> None:
    make(raw, processed, "camera", "segmentation")
    camera = Root.open(RawData(tmp_path / "no such folder"), processed, SIZE)
    assert camera.frames() == FRAMES
    camera.check_labels(["segmentation"])
    item = LabelledFrames(Roots([camera]), tasks("segmentation"), [Sample(FRAMES[0], ("segmentation",))])[0]
    assert item["image"].shape == (SIZE[1], SIZE[0], 3)
    assert item["labels"]["segmentation"].shape == SIZE[::-1]


# ---- images decoded on the device -----------------------------------------------------------------------------


def make_jpegs(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "segmentation")
    assert run(CameraStage(), raw, processed, "--size", *map(str, SIZE), "--format", "jpeg") == 0


def on_device(raw: RawData, processed: ProcessedData) -> LabelledFrames:
    camera = Root.open(raw, processed, SIZE, encoded=True)
    return LabelledFrames(
        Roots([camera]), tasks("segmentation"), [Sample(frame, ("segmentation",)) for frame in FRAMES]
    )


def batch_of(data: LabelledFrames) -> Batch:
    return Collate(data.tasks)([data[place] for place in range(len(data))])


def test_jpegs_travel_as_they_lie_on_disk_and_are_decoded_by_to(raw: RawData, processed: ProcessedData) -> None:
    make_jpegs(raw, processed)
    batch = batch_of(on_device(raw, processed))
    assert [one.numpy().tobytes() for one in batch.encoded] == [
        processed.path("camera", frame, ".jpg").read_bytes() for frame in FRAMES
    ]
    moved, expected = batch.to(CPU), batch_of(dataset(raw, processed, "segmentation"))
    assert moved.encoded == []
    assert moved.images.shape == expected.images.shape
    assert (moved.images.int() - expected.images.int()).abs().max() <= 4  # another decoder
    assert torch.equal(moved.targets["segmentation"]["classes"], expected.targets["segmentation"]["classes"])


def test_an_image_without_a_jpeg_is_made_from_its_png_among_them(raw: RawData, processed: ProcessedData) -> None:
    make_jpegs(raw, processed)
    expected = batch_of(dataset(raw, processed, "segmentation"))
    processed.path("camera", FRAMES[1], ".jpg").unlink()
    batch = batch_of(on_device(raw, processed))
    assert batch.encoded == []
    assert torch.equal(batch.images[0], expected.images[0])
    made = Root.open(raw, processed, SIZE).read(FRAMES[1])
    assert np.array_equal(batch.images[1].permute(1, 2, 0), made)


@pytest.mark.parametrize("damage", ["cut", "of another size", "no JPEG"])
def test_a_damaged_jpeg_is_named_before_it_reaches_the_device(
    raw: RawData, processed: ProcessedData, damage: str
) -> None:
    make_jpegs(raw, processed)
    path = processed.path("camera", FRAMES[2], ".jpg")
    content = {
        "cut": path.read_bytes()[:-20],
        "of another size": encode_jpeg(np.zeros((8, 8, 3), np.uint8)),
        "no JPEG": b"nothing" + JPEG_END,
    }
    path.write_bytes(content[damage])
    batch = batch_of(on_device(raw, processed))
    assert len(batch) == len(batch.encoded) == len(FRAMES) - 1
    assert len(batch.unreadable) == 1
    assert batch.unreadable[0].startswith(f"{FRAMES[2]}: ")


def test_what_the_decoder_refuses_is_one_line(raw: RawData, processed: ProcessedData) -> None:
    make_jpegs(raw, processed)
    batch = batch_of(on_device(raw, processed))
    batch.encoded[0] = torch.zeros(100, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"camera images of .*data\.decode: loader") as error:
        batch.to(CPU)
    assert "\n" not in str(error.value)


def test_decoding_on_the_device_needs_jpegs(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "camera")
    with pytest.raises(UserError, match="needs JPEGs of 40 x 24"):
        Root.open(raw, processed, SIZE, encoded=True)


# ---- labels ---------------------------------------------------------------------------------------------------


def test_labels_leave_as_they_lie_on_disk(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, *STAGES)
    labels = dataset(raw, processed, *STAGES)[0]["labels"]
    assert list(labels) == list(STAGES)
    for kind, dtype in (("segmentation", np.uint8), ("depth", np.uint16)):
        assert labels[kind].dtype == dtype
        assert np.array_equal(labels[kind], np.load(processed.path(kind, FRAMES[0]), allow_pickle=False))
    assert labels["box"].boxes.dtype == np.float32
    assert labels["steering"].dtype == np.float32


def test_a_full_size_sample_takes_at_most_8_mb(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, *STAGES, size=(1024, 1024))
    data = LabelledFrames(
        Roots([Root.open(raw, processed, (1024, 1024))]), tasks(*STAGES), [Sample(FRAMES[0], tuple(STAGES))]
    )
    item = data[0]
    assert set(item["labels"]) == set(STAGES)
    batch = Collate(data.tasks)([item])
    tensors = [batch.images, *(value for target in batch.targets.values() for value in target.values())]
    assert len(batch.targets) == 4
    assert 6e6 < sum(tensor.nbytes for tensor in tensors) <= 8e6


def test_labels_that_nobody_asked_for_are_not_read(
    raw: RawData, processed: ProcessedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(raw, processed, *STAGES)
    read: list[str] = []
    for name in STAGES:

        def spy(self: Any, processed: ProcessedData, frame: Frame, name: str = name) -> None:
            read.append(name)

        monkeypatch.setattr(TASKS[name], "read", spy)
    data = LabelledFrames(
        Roots([Root.open(raw, processed, SIZE)]), tasks(*STAGES), [Sample(FRAMES[0], ("depth", "box"))]
    )
    assert set(data[0]["labels"]) == {"depth", "box"}
    assert sorted(read) == ["box", "depth"]


def test_the_camera_is_decoded_once(raw: RawData, processed: ProcessedData, monkeypatch: pytest.MonkeyPatch) -> None:
    make(raw, processed, *STAGES)
    data, reads = dataset(raw, processed, *STAGES), []
    decode = data.roots["a2d2"].read
    monkeypatch.setattr(data.roots["a2d2"], "read", lambda frame: reads.append(frame) or decode(frame))
    assert len(data[2]["labels"]) == 4
    assert reads == [FRAMES[2]]


def test_a_missing_label_is_none_and_absent_from_the_batch(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "segmentation", "steering")
    processed.path("segmentation", FRAMES[1]).unlink()
    data = dataset(raw, processed, "segmentation", "steering")
    items = [data[0], data[1]]
    assert items[1]["labels"]["segmentation"] is None
    batch = Collate(data.tasks)(items)
    assert batch.frames == FRAMES[:2]
    assert batch.targets["segmentation"]["classes"].dtype == torch.uint8
    assert len(batch.targets["segmentation"]["classes"]) == 1
    assert batch.places["segmentation"].tolist() == [0]
    assert batch.places["steering"] is None  # all samples have it
    assert set(Collate(data.tasks)([items[1]]).targets) == {"steering"}  # absent, not zero


# ---- what can't be read ---------------------------------------------------------------------------------------

DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "noise": lambda _: b"x" * 99,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["png", "npy", "jpeg", *STAGES])
def test_an_unreadable_file_is_named_and_never_replaced(
    raw: RawData, processed: ProcessedData, kind: str, damage: str
) -> None:
    make(raw, processed, *STAGES)
    path = processed.path(kind, FRAMES[1]) if kind in STAGES else raw.path("camera", FRAMES[1])
    if kind in ("npy", "jpeg"):
        assert run(CameraStage(), raw, processed, "--size", *map(str, SIZE), "--format", kind) == 0
        path = processed.path("camera", FRAMES[1], {"npy": ".npy", "jpeg": ".jpg"}[kind])
    path.write_bytes(DAMAGE[damage](path.read_bytes()))

    data = dataset(raw, processed, *STAGES)
    items = [data[index] for index in range(3)]
    assert set(items[1]) == {"unreadable"}
    assert str(FRAMES[1]) in items[1]["unreadable"]
    assert "\n" not in items[1]["unreadable"]
    batch = Collate(data.tasks)(items)
    assert len(batch) == len(batch.images) == len(batch.targets["steering"]["angles"]) == 2
    assert batch.frames == [FRAMES[0], FRAMES[2]]
    assert batch.unreadable == [items[1]["unreadable"]]


def test_an_image_of_the_wrong_shape_is_unreadable(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "camera")
    np.save(processed.path("camera", FRAMES[0]), np.zeros((SIZE[1], SIZE[0] + 1, 3), np.uint8))
    np.save(processed.path("camera", FRAMES[1]), np.zeros((SIZE[1], SIZE[0], 3), np.float32))
    data = dataset(raw, processed)
    assert ["unreadable" in data[index] for index in range(3)] == [True, True, False]


def test_nothing_readable_gives_an_empty_batch() -> None:
    batch = Collate(tasks("segmentation"))([{"unreadable": "a"}, {"unreadable": "b"}])
    assert len(batch) == 0
    assert batch.targets == {}
    assert batch.unreadable == ["a", "b"]


# ---- labels that don't fit the images -------------------------------------------------------------------------


def test_other_sizes_and_calibrations_are_refused(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, *STAGES)
    Root.open(raw, processed, SIZE).check_labels(list(STAGES))
    other = Root.open(raw, processed, (20, 12))
    other.check_labels(["box", "steering"])  # they do not depend on the size
    with pytest.raises(UserError, match=r"^\S*segmentation/settings.json has size \[40, 24\], this run has \[20, 12\]"):
        other.check_labels(["box", "segmentation"])
    write_calibration(raw, CAMERA | {"Distortion": [[0.3, 0.0, 0.0, 0.0, 0.0]]})
    with pytest.raises(UserError, match=r"depth/settings.json has calibration .*-0.26.*this run has .*0\.3"):
        Root.open(raw, processed, SIZE).check_labels(["depth"])


def test_labels_that_were_never_made_are_refused(raw: RawData, processed: ProcessedData) -> None:
    make(raw, processed, "box")
    with pytest.raises(UserError, match=r"no depth labels below .*depth"):
        Root.open(raw, processed, SIZE).check_labels(["box", "depth"])
