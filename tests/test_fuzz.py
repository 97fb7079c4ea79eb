"""Any bytes at all: each reader gives a value or one of the errors that its callers turn into a line; none other."""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.a2d2.geometry import Calibration
from datasets.files import npy_array, npz_arrays, parse_json
from datasets.images import read_png
from errors import UserError
from preprocessing.bounding_box import parse_box
from preprocessing.steering_angle import signed_angles
from strict_yaml import parse_yaml
from tasks.box import label_of
from tasks.steering import angles_of

EXAMPLES = 60  # of each reader

PICTURE = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))[1].tobytes()


def saved(save: Callable[..., None], *arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, *arrays)
    return file.getvalue()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes of a whole file changed, and its end cut off or something added."""
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=3)
    ends = st.one_of(st.just(len(whole)), st.integers(0, len(whole)))

    def apply(changes: list[tuple[int, int]], end: int, more: bytes) -> bytes:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        return bytes(content[:end]) + more

    return st.builds(apply, changes, ends, st.binary(max_size=4))


NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(["Car", "deg"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["boxes", "class", "bbox", "2d_bbox", "size", "unit", "angles", "values", "Lens"]), inner
        ),
    ),
    max_leaves=12,
)


def read_npz(path: Path) -> None:
    for read in npz_arrays(path).values():
        read()


@pytest.mark.parametrize(
    ("read", "whole"),
    [
        (read_png, PICTURE),
        (read_npz, saved(np.savez, np.arange(6.0), np.arange(4))),
        (lambda path: npy_array(np.fromfile(path, np.uint8)), saved(np.save, np.arange(6.0))),
        (lambda path: parse_json(path.read_bytes()), json.dumps({"a": [1, 2.5, None, "x"]}).encode()),
        (lambda path: parse_yaml(path.read_bytes().decode()), b"a: &x [1, 2.5, ~]\nb: {c: *x, d: 'e'}\n"),
    ],
    ids=["png", "npz", "npy", "json", "yaml"],
)
def test_damaged_files(read: Callable[[Path], Any], whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"

    @settings(max_examples=EXAMPLES)
    @given(st.one_of(damaged(whole), st.binary(max_size=80)))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(ValueError):
            read(path)

    check()


def test_a_picture_is_never_another_one(tmp_path: Path) -> None:
    """What damage does not make unreadable does not change a pixel."""
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    truth = read_png(path)

    @settings(max_examples=EXAMPLES)
    @given(damaged(PICTURE))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_png(path)
        except ValueError:
            return
        assert np.array_equal(found, truth)

    check()


@pytest.mark.parametrize(
    "read",
    [
        lambda content: label_of(content, {"Car": 0}),
        angles_of,
        lambda content: parse_box("box", content),
        lambda content: signed_angles(content, "values"),
        lambda content: Calibration.from_json({"cameras": {"front_center": content}}, "cams_lidars.json"),
        lambda content: Calibration.from_json(content, "cams_lidars.json"),
    ],
    ids=["box", "steering", "label3D", "bus", "camera", "cams_lidars"],
)
def test_any_json(read: Callable[[Any], Any]) -> None:
    @settings(max_examples=EXAMPLES)
    @given(VALUES)
    def check(content: Any) -> None:
        with suppress(ValueError, UserError):
            read(content)

    check()
