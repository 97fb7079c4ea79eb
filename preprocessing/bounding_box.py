"""2-D boxes: each label3D file -> {"size": [W, H], "boxes": [{"class", "bbox", "occlusion", "truncation"}]} .json.

bbox = [left, top, right, bottom] in pixels of the undistorted image, clipped to it; exact duplicates (4 % of the
boxes) are removed. A frame without boxes is an ordinary label: an empty list. A frame with a class that A2D2 does not
list fails as a whole: leaving the box out would teach that there is nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import math
from typing import Any

from datasets.a2d2.classes import BOX_CLASSES
from datasets.a2d2.geometry import Calibration
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.a2d2.stage import A2D2Stage, run_stage
from datasets.box_lists import clip, has_area, without_duplicates
from datasets.conversion import Label
from errors import run_as_script


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
        content = json.loads(path.read_bytes())
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


def parse_box(name: str, box: dict[str, Any]) -> dict[str, Any]:
    """One entry of a label3D file, checked. Raises ValueError with the box's name."""
    try:
        kind, bbox = box["class"], [float(edge) for edge in box["2d_bbox"]]
        occlusion, truncation = float(box["occlusion"]), float(box["truncation"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: no usable class, 2d_bbox, occlusion or truncation ({error!r})") from None
    if kind not in BOX_CLASSES:
        raise ValueError(f"{name}: unknown class {kind!r}")
    if len(bbox) != 4 or not all(map(math.isfinite, (*bbox, occlusion, truncation))):
        raise ValueError(f"{name}: 2d_bbox {bbox}, occlusion {occlusion}, truncation {truncation} is not finite")
    return {"class": kind, "bbox": bbox, "occlusion": occlusion, "truncation": truncation}


if __name__ == "__main__":
    run_as_script(lambda: run_stage(Boxes()))
