"""2-D boxes: each label3D file -> {"size": [W, H], "boxes": [{"class", "bbox", "occlusion", "truncation"}]} .json.

bbox = [left, top, right, bottom] in pixels of the undistorted image, clipped to it; exact duplicates (4 % of the
boxes) are removed. A frame without boxes is an ordinary label: an empty list. A frame with a class that A2D2 does not
list fails as a whole: leaving the box out would teach that there is nothing.

python preprocessing/bounding_box.py --threads 8

Writes PROCESSED_ROOT/box/SCENE/FRAME.json, and settings.json and report.json beside the scenes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
from typing import Any

from pydantic import Field

from datasets.a2d2.classes import BOX_CLASSES
from datasets.a2d2.geometry import Calibration
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.a2d2.stage import A2D2Stage, run_stage
from datasets.box_lists import clip, has_area, without_duplicates
from datasets.conversion import Label
from datasets.files import parse_json, read_bytes
from errors import run_as_script
from strict import DataModel, checked


class Boxes(A2D2Stage):
    kind = "box"
    raw_kind = "label3D"
    describing = frozenset({"colours"})

    def settings(self, args: argparse.Namespace, raw: RawData) -> dict[str, Any]:
        # Boxes stay in pixels of the undistorted image: --size has no part in them
        resolution = Calibration.read(raw.calibration_path).resolution
        return {"resolution": list(resolution), **LABELS[self.kind].to_json()}

    def prepare(self, settings: dict[str, Any]) -> None:
        self.resolution = tuple(settings["resolution"])

    def convert(self, path: Path) -> Label:
        content = parse_json(read_bytes(path))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} instead of a dict of boxes")
        boxes = [parse_box(name, box) for name, box in content.items()]
        unique = without_duplicates(boxes)
        clipped = [{**box, "bbox": clip(box["bbox"], *self.resolution)} for box in unique]
        kept = [box for box in clipped if has_area(box["bbox"])]
        counts = {
            "boxes": len(kept),
            "duplicates_removed": len(boxes) - len(unique),
            "outside_or_degenerate_removed": len(unique) - len(kept),
            "boxes_clipped": sum(
                after["bbox"] != before["bbox"] for after, before in zip(clipped, unique, strict=True)
            ),
        }
        return Label(json.dumps({"size": self.resolution, "boxes": kept}).encode(), counts)


class RawBox(DataModel):
    """What is taken of an entry of a label3D file."""

    kind: str = Field(alias="class")
    bbox: list[float] = Field(alias="2d_bbox", min_length=4, max_length=4)
    occlusion: float
    truncation: float


def parse_box(name: str, box: dict[str, Any]) -> dict[str, Any]:
    """One entry of a label3D file, checked. Raises ValueError with the box's name."""
    try:
        found = checked(RawBox, box)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if found.kind not in BOX_CLASSES:
        raise ValueError(f"{name}: unknown class {found.kind!r}")
    return {"class": found.kind, "bbox": found.bbox, "occlusion": found.occlusion, "truncation": found.truncation}


if __name__ == "__main__":
    run_as_script(lambda: run_stage(Boxes()))
