"""What the JSON files of a processed root must hold: dataset.json, and of each kind its settings.json."""

from typing import Annotated, Any, Literal

from pydantic import Field

from datasets.images import LARGEST_SIDE
from strict import DataModel

CAMERA = "camera"  # the kind that is no label

Size = Annotated[list[Annotated[int, Field(gt=0, lt=LARGEST_SIDE)]], Field(min_length=2, max_length=2)]


class KindSettings(DataModel):
    """What every KIND/settings.json may hold, beside what decides the kind's files."""

    size: Size | None = None
    calibration: dict[str, Any] | None = None


class MapSettings(KindSettings):
    """Of the kinds whose files have a size."""

    size: Size


class CameraSettings(MapSettings):
    format: Literal["npy", "jpeg"]
    resolution: Size | None = None


SETTINGS: dict[str, type[KindSettings]] = {CAMERA: CameraSettings, "segmentation": MapSettings, "depth": MapSettings}


class OfficialSplit(DataModel):
    """Frames as SCENE/ID."""

    train: list[str]
    val: list[str]
    test: list[str]


class Description(DataModel):
    """What dataset.json holds."""

    name: str
    split: OfficialSplit | None = None
