"""The data sets that a run reads: of each processed root its frames, their images at one size, and what it says."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from PIL import Image

from datasets.a2d2.images import RawImages
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.processed import CAMERA, CAMERA_SUFFIXES, ProcessedData
from datasets.spec import LabelSpec
from datasets.staging import local_folder, stage
from errors import UserError, reason_of
from progress import warn

JPEG_END = b"\xff\xd9"


class Root:
    """One data set: images of one size from `processed/camera`, else (A2D2 alone) made from the raw pictures.

    encoded: `load` gives JPEGs as they lie on the disk, for `Batch.to` to decode. UserError: there are none.
    """

    def __init__(
        self, processed: ProcessedData, size: tuple[int, int], raw: RawImages | None = None, *, encoded: bool = False
    ):
        self.processed, self.size, self.raw, self.encoded = processed, size, raw, encoded
        settings = processed.settings(CAMERA) or {}
        self.geometry = settings.get("calibration") if raw is None else raw.geometry
        # images made with other settings are of no use: each image is then made from the raw one
        usable = settings.get("size") == list(size) and settings.get("calibration") == self.geometry
        self.suffix = CAMERA_SUFFIXES[settings["format"]] if usable else None
        if raw is not None and not usable and (settings or processed.frames(CAMERA)):
            found = f"has size {settings['size']} or another calibration" if settings else "is missing beside images"
            warn(
                f"warning: {processed.settings_path(CAMERA)} {found}; this run has size {list(size)}: each image is "
                "made from its raw PNG, slowly"
            )
        if raw is None and not usable:
            if settings:
                found = f"{processed.settings_path(CAMERA)} has size {settings['size']}"
            else:
                found = f"images in {processed.kind_dir(CAMERA)} are missing"
            raise UserError(f"{found}; this run needs {list(size)} (data.size)")
        if encoded and self.suffix != CAMERA_SUFFIXES["jpeg"]:
            raise UserError(
                f"data.decode: device needs JPEGs of {size[0]} x {size[1]} in {processed.kind_dir(CAMERA)}; "
                "make them with preprocessing/camera.py --format jpeg, or set it to loader"
            )
        resolution = settings.get("resolution", size) if raw is None else raw.resolution
        self.aspect = resolution[0] / resolution[1]  # width / height of the original images

    @classmethod
    def open(
        cls, raw: RawData | None, processed: ProcessedData, size: tuple[int, int], *, encoded: bool = False
    ) -> Self:
        """raw: where images are made from, if the processed root is of that data set."""
        source = RawImages.beside(processed, raw, size) if raw else None
        return cls(processed, size, source, encoded=encoded)

    @property
    def name(self) -> str:
        """The data set's."""
        return self.raw.name if self.raw else self.processed.name

    @property
    def where(self) -> str:
        """Its folders, for messages."""
        return " and ".join(map(str, (self.processed.root, *([self.raw.raw.root] if self.raw else []))))

    def frames(self) -> list[Frame]:
        """Frames that have an image, sorted."""
        processed = self.processed.frames(CAMERA) if self.suffix else []
        return sorted({*processed, *(self.raw.frames() if self.raw else ())})

    def seconds(self, frames: Iterable[Frame]) -> dict[Frame, float]:
        """The time of each of these frames within its scene, for those where it is known."""
        raw = {frame: self.raw.seconds(frame) for frame in frames} if self.raw else {}
        return raw | self.processed.times()

    def read(self, frame: Frame) -> np.ndarray:
        """uint8 H x W x 3 RGB. ValueError or OSError where the file can't be read."""
        with self._naming(frame):
            image = self._read_processed(frame) if self.suffix else None
            if image is not None:
                return self._checked(image)
        if self.raw is None:
            raise FileNotFoundError(f"no image {self.processed.path(CAMERA, frame)}")
        return self.raw.read(frame)

    def load(self, frame: Frame) -> torch.Tensor:
        """What a loader hands on: as `read`, or a JPEG's bytes, uint8 of one dimension. Raises as `read`."""
        content = self.processed.read(CAMERA, frame, self.suffix) if self.encoded else None
        if content is None:
            return torch.from_numpy(self.read(frame))
        with self._naming(frame):
            _check_jpeg(content, self.size)
        return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))  # torch wants to be able to write to it

    def check_labels(self, kinds: Iterable[str]) -> None:
        """UserError unless labels of these kinds were made for these images: at their size, with their geometry."""
        wanted = {"size": list(self.size), "calibration": self.geometry}
        for kind in kinds:
            settings = self.processed.settings(kind)
            if settings is None:
                raise UserError(
                    f"no {kind} labels below {self.processed.kind_dir(kind)}; run its preprocessing script first"
                )
            for key, value in wanted.items():
                if key in settings and settings[key] != value:
                    raise UserError(
                        f"{self.processed.settings_path(kind)} has {key} {settings[key]}, this run has {value}; "
                        "set data.size or preprocess again with --overwrite"
                    )

    @contextmanager
    def _naming(self, frame: Frame) -> Iterator[None]:
        """What is wrong with a processed image says which it is."""
        try:
            yield
        except (ValueError, OSError) as error:
            source = self.processed.source(CAMERA, frame, self.suffix)
            raise ValueError(f"{source}: {reason_of(error)}") from None

    def _read_processed(self, frame: Frame) -> np.ndarray | None:
        if self.suffix == ".npy":
            return self.processed.read_array(CAMERA, frame)
        content = self.processed.read(CAMERA, frame, self.suffix)
        if content is None:
            return None
        _check_jpeg(content, self.size)
        return decode_on_cpu(content)

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.shape != (self.size[1], self.size[0], 3):
            raise ValueError(f"camera image is {image.dtype} {image.shape}, not uint8 {self.size[::-1]} x 3")
        return image


class Roots(dict[str, Root]):
    """The data sets of a run by name, in the order in which they were given."""

    def __init__(self, roots: Sequence[Root]):
        """UserError: two have the same name."""
        super().__init__((root.name, root) for root in roots)
        names = [root.name for root in roots]
        if twice := [name for name in self if names.count(name) > 1]:
            raise UserError(f"--processed-root: two roots hold {twice[0]}; change the name in the dataset.json of one")

    @classmethod
    def open(
        cls, processed: Sequence[ProcessedData], raw: RawData, size: tuple[int, int], *, encoded: bool = False
    ) -> Self:
        """Images are made from raw A2D2 only where its processed root is the only one."""
        source = raw if len(processed) == 1 else None
        return cls([Root.open(source, root, size, encoded=encoded) for root in processed])

    def frames(self) -> list[Frame]:
        """Frames that have an image, sorted."""
        return sorted(frame for root in self.values() for frame in root.frames())

    def labelled(self, kind: str) -> list[Frame]:
        """Frames that have a label of the kind, in any of the data sets, sorted."""
        return sorted(frame for root in self.values() for frame in root.processed.frames(kind))

    def kinds(self) -> list[str]:
        """Kinds of label that one of the data sets has, sorted."""
        return sorted({kind for root in self.values() for kind in root.processed.kinds()})

    def to_json(self) -> dict[str, Any]:
        """For checkpoints: of each data set its geometry, and what its labels say."""
        return {
            name: {"geometry": root.geometry, "labels": root.processed.spec().to_json()} for name, root in self.items()
        }


def stage_all(paths: Sequence[Path], folder: Path | None) -> list[ProcessedData]:
    """The processed roots, or their copies: in `folder` itself, or of several each in a folder of its name."""
    roots = [ProcessedData(path) for path in paths]
    if folder is None:
        return roots
    folder = local_folder(folder, paths)
    if len(roots) == 1:
        return [stage(roots[0], folder)]
    return [stage(root, folder / root.name) for root in roots]


def agreed_label(kind: str, roots: Sequence[Root], task: str) -> LabelSpec:
    """What labels of a kind say in all of these data sets. UserError: they don't agree."""
    first, *others = roots
    spec = first.processed.label_spec(kind)
    for other in others:
        if difference := spec.difference(other.processed.label_spec(kind)):
            raise UserError(
                f"tasks.{task}: {first.name} and {other.name} have other {kind} labels: {difference}; say which data "
                f"set it is from (tasks.{task}.from)"
            )
    return spec


def _check_whole(content: bytes) -> None:
    """ValueError for a JPEG that was cut: decoders fill what is missing with grey."""
    if not content.endswith(JPEG_END):
        raise ValueError("not a whole JPEG")


def _check_jpeg(content: bytes, size: tuple[int, int]) -> None:
    """ValueError or OSError unless the file is whole, by its ends, and of that size, by its header."""
    _check_whole(content)
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        if image.size != size:
            raise ValueError(f"camera image is {image.size}, not {size}")


def decode_on_cpu(content: bytes) -> np.ndarray:
    """A JPEG -> uint8 H x W x 3 RGB. ValueError: not a whole one."""
    _check_whole(content)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("not a whole JPEG")
    return image
