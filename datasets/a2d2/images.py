"""A2D2's camera pictures as they were fetched, undistorted and resized on the fly: where nothing was preprocessed."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import NAME, RawData, parse_bus_frame_name, seconds_of
from datasets.frames import Frame
from datasets.processed import CAMERA, ProcessedData


class RawImages:
    """What datasets/roots.py asks of raw data."""

    name = NAME

    def __init__(self, raw: RawData, size: tuple[int, int], calibration: Calibration):
        self.raw, self.size, self.calibration = raw, size, calibration

    @classmethod
    def beside(cls, processed: ProcessedData, raw: RawData, size: tuple[int, int]) -> "RawImages | None":
        """Those that belong to a processed root; None where it holds another data set."""
        if processed.dataset_path.is_file() and processed.name != NAME:
            return None
        settings = processed.settings(CAMERA)
        if settings is None or os.path.lexists(raw.calibration_path):
            return cls(raw, size, Calibration.read(raw.calibration_path))
        source = str(processed.settings_path(CAMERA))
        return cls(raw, size, Calibration.of_settings(settings, source))  # only processed data on this machine

    @cached_property
    def _map(self) -> ImageMap:
        return ImageMap(self.calibration, self.size)

    @property
    def geometry(self) -> Mapping[str, Any]:
        """What labels must have been made with to lie on these images."""
        return self.calibration.to_json()

    @property
    def resolution(self) -> tuple[int, int]:
        """W, H of the undistorted image."""
        return self.calibration.resolution

    def frames(self) -> list[Frame]:
        """Frames that have a picture, sorted."""
        return self.raw.frames("camera")

    def seconds(self, frame: Frame) -> float:
        """Time within the scene."""
        return seconds_of(frame)

    def read(self, frame: Frame) -> np.ndarray:
        """uint8 H x W x 3 RGB. ValueError or OSError where the file can't be read."""
        return self._map.image(self._map.read(self.raw.path("camera", frame)))

    def read_large(self, frame: Frame, size: tuple[int, int]) -> np.ndarray | None:
        """The same at another size, for people to look at; None where there is no picture. Raises as `read`."""
        path, large = self.raw.path("camera", frame), ImageMap(self.calibration, size)
        return large.image(large.read(path)) if path.is_file() else None

    def frame_named(self, name: str) -> Frame | None:
        """The frame that a raw file's name means."""
        return parse_bus_frame_name(name)
