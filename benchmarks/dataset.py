"""What one sample costs the loader: time on one core and bytes, all four labels at 1024 x 1024.

    python -m benchmarks.dataset [--json FILE]

Writes a few synthetic frames at A2D2's full size, preprocesses them and reads them back with the files in the page
cache. Beside it, in the same run: cv2.imread of the full-size camera PNG, by which to scale the time on another
machine.
"""

import argparse
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
from datasets.layout import ProcessedData, RawData, write_json
from datasets.synthetic import write_dataset
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera as CameraStage
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from preprocessing.stage import run_stage
from preprocessing.steering_angle import Steering
from tasks import TASKS

FRAMES = 8
ROUNDS = 20


def prepare(folder: Path) -> tuple[RawData, ProcessedData]:
    raw = write_dataset(folder, scenes=1, frames=FRAMES, image_size=(1920, 1208), seed=0)
    processed = ProcessedData(folder / "processed")
    for stage in (Segmentation(), Depth(), Boxes(), Steering(), CameraStage()):
        run_stage(stage, ["--data-root", str(raw.root), "--processed-root", str(processed.root), "--threads", "1"])
    return raw, processed


def median_ms(call: Callable[[int], Any], count: int) -> float:
    """Median over ROUNDS x count calls; one round before is not counted."""
    times = []
    for place in [*range(count)] * (ROUNDS + 1):
        start = time.perf_counter()
        call(place)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[count:])


def bytes_of(item: dict[str, Any]) -> int:
    """Bytes of the image and the labels as they leave a worker."""
    return item["image"].nbytes + sum(map(_bytes_of_label, item["labels"].values()))


def _bytes_of_label(label: Any) -> int:
    """Labels are arrays or named tuples of arrays."""
    return sum(array.nbytes for array in (label if isinstance(label, tuple) else (label,)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        raw, processed = prepare(Path(folder))
        # only frames with all four labels: a missing one would cost nothing
        frames = sorted(set.intersection(*(set(processed.frames(name)) for name in TASKS)))
        samples = [Sample(frame, tuple(TASKS)) for frame in frames]
        dataset = A2D2(Camera(raw, processed, (1024, 1024)), {name: task() for name, task in TASKS.items()}, samples)
        pngs = [str(raw.path("camera", frame)) for frame in frames]
        results = {
            "sample_ms": median_ms(dataset.__getitem__, len(frames)),
            "imread_ms": median_ms(lambda place: cv2.imread(pngs[place]), len(frames)),
            "sample_mb": max(bytes_of(dataset[place]) for place in range(len(frames))) / 1e6,
        }
    print(f"one sample, four labels, 1024 x 1024: {results['sample_ms']:.2f} ms, {results['sample_mb']:.2f} MB")
    print(f"cv2.imread of one full-size camera PNG: {results['imread_ms']:.1f} ms")
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
