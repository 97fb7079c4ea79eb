"""What one sample costs the loader: time on one core and bytes, all four labels at 1024 x 1024, loose and packed.

A sample is an eighth of a batch as the loop gets it: read, and collated.

    python -m benchmarks.dataset [--json FILE]

Writes a few synthetic frames at A2D2's full size, preprocesses them and reads them back with the files in the page
cache, each batch from loose files and just after it from the scene's pack. Beside it, in the same run: cv2.imread of
the full-size camera PNG, by which to scale the time on another machine.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.machine import describe_machine
from datasets.a2d2.raw import RawData
from datasets.a2d2.spec import LABELS
from datasets.a2d2.stage import run_stage
from datasets.files import write_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.roots import Root, Roots
from datasets.samples import Batch, Collate, LabelledFrames, Sample
from datasets.synthetic.generate import write_dataset
from preprocessing.bounding_box import Boxes
from preprocessing.camera import Camera as CameraStage
from preprocessing.depth_preprocess import Depth
from preprocessing.pack import pack
from preprocessing.segmentation import Segmentation
from preprocessing.steering_angle import Steering
from tasks import TASKS

FRAMES = 8
SIZE = (1024, 1024)
ROUNDS = 20


def prepare(folder: Path, size: tuple[int, int] = SIZE) -> tuple[RawData, ProcessedData, ProcessedData]:
    """Raw data, its labels in loose files, and the same labels in a pack."""
    raw = write_dataset(folder, scenes=1, frames=FRAMES, image_size=(1920, 1208), seed=0)
    loose, packed = ProcessedData(folder / "loose"), ProcessedData(folder / "packed")
    for stage in (Segmentation(), Depth(), Boxes(), Steering(), CameraStage()):
        roots = ["--data-root", str(raw.root), "--processed-root", str(loose.root)]
        run_stage(stage, [*roots, "--size", *map(str, size), "--threads", "1"])
    shutil.copytree(loose.root, packed.root)
    print(pack(packed, remove=True))
    return raw, loose, packed


def median_ms(calls: dict[str, Callable[[], Any]], samples: int) -> dict[str, float]:
    """Of a sample: medians over ROUNDS calls of each, which take turns, by the samples of a call. The first round is
    not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values[1:]) / samples for name, values in times.items()}


def batch_from(data: LabelledFrames) -> Batch:
    return Collate(data.tasks)([data[place] for place in range(len(data))])


def bytes_of(item: dict[str, Any]) -> int:
    """Bytes of the image and the labels as they leave a worker."""
    return item["image"].nbytes + sum(map(_bytes_of_label, item["labels"].values()))


def _bytes_of_label(label: Any) -> int:
    """Labels are arrays or named tuples of arrays."""
    return sum(array.nbytes for array in (label if isinstance(label, tuple) else (label,)))


def make_dataset(raw: RawData, processed: ProcessedData, frames: list[Frame]) -> LabelledFrames:
    samples = [Sample(frame, tuple(TASKS)) for frame in frames]
    tasks = {name: task(spec=LABELS[name]) for name, task in TASKS.items()}
    return LabelledFrames(Roots([Root.open(raw, processed, SIZE)]), tasks, samples)


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
        items = [datasets["packed_ms"][place] for place in range(len(frames))]
        calls: dict[str, Callable[[], Any]] = {name: partial(batch_from, data) for name, data in datasets.items()}
        calls["collate_ms"] = partial(Collate(datasets["packed_ms"].tasks), items)
        calls["imread_ms"] = lambda: [cv2.imread(png) for png in pngs]
        results = {
            **median_ms(calls, len(frames)),
            "sample_mb": max(map(bytes_of, items)) / 1e6,
        }
    print(f"one sample, four labels, 1024 x 1024: {results['sample_ms']:.2f} ms, {results['sample_mb']:.2f} MB")
    print(f"of these, collating: {results['collate_ms']:.2f} ms")
    ratio = results["packed_ms"] / results["sample_ms"]
    print(f"the same from a pack: {results['packed_ms']:.2f} ms, {ratio:.2f} times as long")
    print(f"cv2.imread of one full-size camera PNG: {results['imread_ms']:.1f} ms")
    if args.json:
        write_json(args.json, {**results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    main()
