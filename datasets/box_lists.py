"""Boxes of a frame: [{"class": name, "bbox": [left, top, right, bottom], ...}], continuous pixel edges."""

from typing import Any

FARTHEST = 100  # sides of the image: A2D2's boxes reach 7 beyond it


def without_duplicates(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first of all boxes with the same class and coordinates."""
    first: dict[tuple, dict[str, Any]] = {}
    for box in boxes:
        first.setdefault((box["class"], *box["bbox"]), box)
    return list(first.values())


def clip(bbox: list[float], width: int, height: int) -> list[float]:
    """The part of a box within the image. ValueError: an edge is so far away that it can't be true."""
    left, top, right, bottom = bbox
    if not (max(abs(left), abs(right)) <= FARTHEST * width and max(abs(top), abs(bottom)) <= FARTHEST * height):
        raise ValueError(f"a box {bbox} is far from the image of {width} x {height}")
    return [
        min(max(left, 0.0), float(width)),
        min(max(top, 0.0), float(height)),
        min(max(right, 0.0), float(width)),
        min(max(bottom, 0.0), float(height)),
    ]


def has_area(bbox: list[float]) -> bool:
    left, top, right, bottom = bbox
    return right > left and bottom > top
