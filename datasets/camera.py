"""The camera's images at one size: as preprocessed, else made from the raw files."""

import io
from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from datasets.a2d2.classes import CLASSES_OF_KIND
from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.images import read_png
from datasets.processed import CAMERA_SUFFIXES, ProcessedData
from errors import UserError

JPEG_END = b"\xff\xd9"


class Camera:
    """Images of the undistorted camera at one size, from `processed/camera`, else made from the raw PNG.

    encoded: `load` gives JPEGs as they lie on the disk, for `Batch.to` to decode. UserError: there are none.
    """

    def __init__(self, raw: RawData, processed: ProcessedData, size: tuple[int, int], *, encoded: bool = False):
        self.raw, self.processed, self.size, self.encoded = raw, processed, size, encoded
        settings = processed.settings("camera")
        if settings is not None and not raw.calibration_path.is_file():  # only processed data on this machine
            self.calibration = Calibration(**settings["calibration"])
        else:
            self.calibration = Calibration.read(raw.calibration_path)
        wanted = {"size": list(size), "calibration": self.calibration.to_json()}
        # images made with other settings are of no use: each image is then made from the raw PNG
        usable = settings is not None and all(settings[key] == value for key, value in wanted.items())
        self.suffix = CAMERA_SUFFIXES[settings["format"]] if usable else None
        if encoded and self.suffix != CAMERA_SUFFIXES["jpeg"]:
            raise UserError(
                f"data.decode: device needs JPEGs of {size[0]} x {size[1]} in {processed.kind_dir('camera')}; "
                "make them with preprocessing/camera.py --format jpeg, or set it to loader"
            )

    @cached_property
    def _map(self) -> ImageMap:
        return ImageMap(self.calibration, self.size)

    def frames(self) -> list[Frame]:
        """Frames that have an image, sorted."""
        processed = self.processed.frames("camera") if self.suffix else []
        return sorted({*processed, *self.raw.frames("camera")})

    def read(self, frame: Frame) -> np.ndarray:
        """uint8 H x W x 3 RGB. ValueError or OSError where the file can't be read."""
        image = self._read_processed(frame) if self.suffix else None
        return self._map.image(read_png(self.raw.path("camera", frame))) if image is None else self._checked(image)

    def load(self, frame: Frame) -> np.ndarray:
        """What a loader hands on: as `read`, or a JPEG's bytes, uint8 of one dimension. Raises as `read`."""
        content = self.processed.read("camera", frame, self.suffix) if self.encoded else None
        if content is None:
            return self.read(frame)
        _check_jpeg(content, self.size)
        return np.frombuffer(bytearray(content), np.uint8)  # torch wants to be able to write to it

    def _read_processed(self, frame: Frame) -> np.ndarray | None:
        if self.suffix == ".npy":
            return self.processed.read_array("camera", frame)
        content = self.processed.read("camera", frame, self.suffix)
        return None if content is None else decode_on_cpu(content)

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.shape != (self.size[1], self.size[0], 3):
            raise ValueError(f"camera image is {image.dtype} {image.shape}, not uint8 {self.size[::-1]} x 3")
        return image


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
    _check_whole(content)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("not a whole JPEG")
    return image


def check_processed(processed: ProcessedData, camera: Camera, kinds: Sequence[str]) -> None:
    """UserError unless these labels were made at the camera's size, with its calibration and the code's classes."""
    for kind in kinds:
        wanted = {"size": list(camera.size), "calibration": camera.calibration.to_json()}
        wanted["classes"] = list(CLASSES_OF_KIND.get(kind, ()))
        settings = processed.settings(kind)
        if settings is None:
            raise UserError(f"no {kind} labels below {processed.kind_dir(kind)}; run its preprocessing script first")
        for key, value in wanted.items():
            if key in settings and settings[key] != value:
                raise UserError(
                    f"{processed.settings_path(kind)} has {key} {settings[key]}, this run has {value}; "
                    "set data.size or preprocess again with --overwrite"
                )
