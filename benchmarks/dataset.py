"""What one sample costs the loader: time on one core and bytes, all four labels at 1024 x 1024, loose and packed.

    python -m benchmarks.dataset [--json FILE]

Writes a few synthetic frames at A2D2's full size, preprocesses them and reads them back with the files in the page
cache, each sample from loose files and just after it from the scene's pack. Beside it, in the same run: cv2.imread of
the full-size camera PNG, by which to scale the time on another machine.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.machine import describe_machine
from datasets.a2d2 import A2D2, Camera, Sample
from datasets.files import write_json
from datasets.layout import Frame, ProcessedData, RawData
from datasets.synthetic import write_dataset
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera as CameraStage
from preprocessing.depth_preprocess import Depth
from preprocessing.pack import pack
from preprocessing.segmentation import Segmentation
from preprocessing.stage import run_stage
from preprocessing.steering_angle import Steering
from tasks import TASKS

FRAMES = 8
ROUNDS = 20


def prepare(folder: Path) -> tuple[RawData, ProcessedData, ProcessedData]:
    """Raw data, its labels in loose files, and the same labels in a pack."""
    raw = write_dataset(folder, scenes=1, frames=FRAMES, image_size=(1920, 1208), seed=0)
    loose, packed = ProcessedData(folder / "loose"), ProcessedData(folder / "packed")
    for stage in (Segmentation(), Depth(), Boxes(), Steering(), CameraStage()):
        run_stage(stage, ["--data-root", str(raw.root), "--processed-root", str(loose.root), "--threads", "1"])
    shutil.copytree(loose.root, packed.root)
    print(pack(packed, remove=True))
    return raw, loose, packed


def median_ms(calls: dict[str, Callable[[int], Any]], count: int) -> dict[str, float]:
    """Medians over ROUNDS x count calls of each, which take turns; one round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for place in [*range(count)] * (ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call(place)
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values[count:]) for name, values in times.items()}


def bytes_of(item: dict[str, Any]) -> int:
    """Bytes of the image and the labels as they leave a worker."""
    return item["image"].nbytes + sum(map(_bytes_of_label, item["labels"].values()))


def _bytes_of_label(label: Any) -> int:
    """Labels are arrays or named tuples of arrays."""
    return sum(array.nbytes for array in (label if isinstance(label, tuple) else (label,)))


def make_dataset(raw: RawData, processed: ProcessedData, frames: list[Frame]) -> A2D2:
    samples = [Sample(frame, tuple(TASKS)) for frame in frames]
    return A2D2(Camera(raw, processed, (1024, 1024)), {name: task() for name, task in TASKS.items()}, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        raw, loose, packed = prepare(Path(folder))
        # only frames with all four labels: a missing one would cost nothing
        frames = sorted(set.intersection(*(set(loose.frames(name)) for name in TASKS)))
        datasets = {"sample_ms": make_dataset(raw, loose, frames), "packed_ms": make_dataset(raw, packed, frames)}
        pngs = [str(raw.path("camera", frame)) for frame in frames]
        results = {
            **median_ms({name: data.__getitem__ for name, data in datasets.items()}, len(frames)),
            **median_ms({"imread_ms": lambda place: cv2.imread(pngs[place])}, len(frames)),
            "sample_mb": max(bytes_of(datasets["packed_ms"][place]) for place in range(len(frames))) / 1e6,
        }
    print(f"one sample, four labels, 1024 x 1024: {results['sample_ms']:.2f} ms, {results['sample_mb']:.2f} MB")
    ratio = results["packed_ms"] / results["sample_ms"]
    print(f"the same from a pack: {results['packed_ms']:.2f} ms, {ratio:.2f} times as long")
    print(f"cv2.imread of one full-size camera PNG: {results['imread_ms']:.1f} ms")
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
