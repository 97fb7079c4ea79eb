"""Boxes of a frame: [{"class": name, "bbox": [left, top, right, bottom], ...}], continuous pixel edges."""

from typing import Any


def without_duplicates(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first of all boxes with the same class and coordinates."""
    first: dict[tuple, dict[str, Any]] = {}
    for box in boxes:
        first.setdefault((box["class"], *box["bbox"]), box)
    return list(first.values())


def clip(bbox: list[float], width: int, height: int) -> list[float]:
    left, top, right, bottom = bbox
    return [
        min(max(left, 0.0), float(width)),
        min(max(top, 0.0), float(height)),
        min(max(right, 0.0), float(width)),
        min(max(bottom, 0.0), float(height)),
    ]


def has_area(bbox: list[float]) -> bool:
    left, top, right, bottom = bbox
    return right > left and bottom > top
