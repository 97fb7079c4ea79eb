"""Write the measured tables into README.md and docs/, each between its two markers: `make readme`.

No number there is typed by hand: tables come from benchmarks/results/*.json, which the benchmarks and
`make demo` write. A test holds README and results together.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from studying.tables import comparisons_table, table
from tasks import TASKS
from training.report import BESIDE_NETWORKS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FRAMES = 12_497  # front-center frames of A2D2 with labels

# The demo's table: (task, metric)
DEMO_METRICS = [
    ("segmentation", "miou"),
    ("segmentation", "miou_frequent"),
    ("segmentation", "accuracy"),
    ("depth", "abs_rel"),
    ("box", "ap50/Car"),
    ("box", "map50"),
    ("box", "ap50_any_class"),
    ("steering", "mae"),
]
SINGLE_TASK = ["segmentation", "steering", "depth", "box"]  # names of the single-task runs
SAMPLES_PER_SECOND = (10, 50, 200)  # of a GPU, in the table of data rates
BYTES_A_PIXEL = {"camera": 3, "segmentation": 1, "depth": 2}


def demo_table(results: dict[str, Any]) -> str:
    """The networks of `make demo` beside the constant baselines."""
    single = {task: scores for name in SINGLE_TASK for task, scores in results[name].items()}
    columns = [results["constant"], single, results["symmetric"], results["asymmetric"]]
    rows = []
    for task, key in DEMO_METRICS:
        written, (_, _, of_class) = TASKS[task].written(key), key.partition("/")
        label = replace(written, title=f"{of_class} {written.title}".strip()).directed
        rows.append([task, label, *(written.number(column[task][key]) for column in columns)])
    compared = results["comparison"]
    for name in SINGLE_TASK:
        seen = [f"{compared[network]['samples_seen'][name]:,}" for network in (name, "symmetric", "asymmetric")]
        rows.append([name, "training labels seen", "", *seen])
    head = ["task", "metric; one seed, a smoke test", "constant", "single-task", "symmetric", "asymmetric"]
    return table(head, rows)


def stages_table(results: dict[str, Any]) -> str:
    """Speed of the preprocessing stages."""
    rows = [
        [
            row["stage"],
            f"{row['ms_per_frame']:.1f}",
            f"{row['ratio']:.2f}" if row["ratio"] else "",
            f"{row['worker_mb']:.0f}",
            f"{row['ms_per_frame'] * FRAMES / 60_000:.0f}",
        ]
        for row in results["rows"]
    ]
    head = ["stage", "ms a frame", "ratio to cv2.imread", "worker's peak memory, MB", f"minutes for {FRAMES:,} frames"]
    return table(head, rows)


def disk_table(results: dict[str, Any]) -> str:
    """Disk that the processed labels take at 1024 x 1024; sizes follow from the formats."""
    rows = [
        [kind, f"{depth * 1024 * 1024 / 1e6:.1f} MB", f"{depth * 1024 * 1024 * FRAMES / 1e9:.0f} GB"]
        for kind, depth in BYTES_A_PIXEL.items()
    ]
    return table(
        ["kind", "a frame", f"{FRAMES:,} frames"], [*rows, ["box, steering", "about 1 kB each", "under 0.1 GB"]]
    )


def sample_table(results: dict[str, Any]) -> str:
    """What one sample costs the loader."""
    imread, packed = results["imread_ms"], results["packed_ms"]
    times = [f"{results['sample_ms']:.1f}", f"{packed:.1f}", f"{packed / results['sample_ms']:.2f}"]
    row = [*times, f"{results['sample_mb']:.1f}", f"{results['sample_ms'] / imread:.3f}"]
    head = ["ms per sample, loose files", "from packs", "ratio", "MB per sample"]
    return table([*head, "loose, ratio to cv2.imread of one full-size camera PNG"], [row])


def memory_table(results: dict[str, Any]) -> str:
    """Estimated peak memory of training, GB = 1e9 bytes."""
    parts = ["parameters", "gradients", "optimiser", "activations", "total", "needed"]
    rows = [
        [
            row["case"],
            str(row["micro_batch_size"]),
            *(f"{row[part] / 1e9:.2f}" for part in parts),
            "yes" if row["fits"] else f"no; with {row['micro_batch_that_fits']}",
        ]
        for row in results["rows"]
    ]
    width, height = results["size"]
    return table([f"GB at {width} x {height}", "micro-batch", *parts[:-1], "with margin", "fits 12 GB"], rows)


def memory_check_table(results: dict[str, Any]) -> str:
    """The estimate held against real tensors on the CPU."""
    rows = [
        [
            row["case"],
            f"{row['estimated'] / 1e6:.1f}",
            f"{row['measured'] / 1e6:.1f}",
            f"{100 * row['error_of_total']:+.1f}",
        ]
        for row in results["check"]
    ]
    width, height = results["check_size"]
    head = [f"activations at {width} x {height}", "estimated, MB", "measured, MB", "error, % of the total"]
    return table(head, rows)


def balancing_table(results: dict[str, Any]) -> str:
    """What each balancing method costs a step of the demo's network."""
    rows = [
        [row["method"], f"{row['time_ratio']:.2f}", f"{row['peak_mb']:.1f}", f"{row['memory_ratio']:.2f}"]
        for row in results["rows"]
    ]
    return table(["balancing", "time of a step, ratio to fixed", "peak memory, MB", "ratio to fixed"], rows)


def balancing_flops_table(results: dict[str, Any]) -> str:
    """What each kind of balancing costs in FLOPs, on a small network and on the one that is trained."""
    names = {"upgrad": "by gradients (upgrad, pcgrad, ...)"}
    rows = [
        [
            f"{row['network']}, {row['size'][0]} x {row['size'][1]}",
            names.get(row["method"], row["method"]),
            f"{row['flops_of_frame'] / 1e9:.1f}",
            f"{row['ratio']:.2f}",
        ]
        for row in results["rows"]
    ]
    return table(["network", "balancing", "GFLOP a frame, forward and backward", "ratio to fixed"], rows)


def full_scales_table(results: dict[str, Any]) -> str:
    """What the studies would take at their other scales; estimated."""
    rows = [
        [
            row["study"],
            row["about"],
            f"{row['runs']}",
            f"{row['samples']:,}",
            f"{row['tflops']:g}",
            f"{row['hours']:.1f}",
        ]
        for row in results["rows"]
    ]
    return table(["study", "full scale", "runs", "samples", "TFLOP/s, assumed", "hours of one GPU"], rows)


def mixture_table(results: dict[str, Any]) -> str:
    """What a step of the backbone sees of the epoch, by how samples are put into blocks."""
    rows = [
        [
            str(row["samples a step"]),
            row["order"],
            f"{row['cosine']:.2f}",
            f"{row['variance']:.3g}",
            f"{100 * row['tasks absent']:.0f}",
        ]
        for row in results["rows"]
    ]
    return table(["samples a step", "order", "cosine to the epoch", "squared distance", "tasks absent, %"], rows)


def exchange_table(results: dict[str, Any]) -> str:
    """What the processes exchange, by mode and group."""
    rows = [
        [
            row["mode"],
            row["group"],
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['batch_size']}",
            f"{row['mb_per_step']:.1f}",
        ]
        for row in results["rows"]
    ]
    return table(["training", "group", "parameters, M", "samples a step", "MB summed a step"], rows)


def exchange_per_sample_table(results: dict[str, Any]) -> str:
    """The same, by sample, for a whole network."""
    rows = [[mode, f"{mb:.2f}"] for mode, mb in results["mb_per_sample"].items()]
    return table(["training", "MB summed per sample"], rows)


def loading_table(results: dict[str, Any]) -> str:
    """What a GPU's loader must deliver, by the samples a second that the GPU trains."""
    rows = [
        [str(rate), f"{rate * results['sample_mb']:.0f}", f"{rate * results['sample_ms'] / 1000:.2f}"]
        for rate in SAMPLES_PER_SECOND
    ]
    return table(["samples a second and GPU", "MB a second from files", "cores of the loader"], rows)


def cuda_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Speeds by device, and how many lines of correctness passed."""
    if not results:
        return "Not yet run: no GPU was at hand."
    rows = []
    for device, lines in results.items():
        outcomes = Counter(line["outcome"] for line in lines if line["kind"] == "correctness")
        rows.append([device, "correctness", ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())])
        for line in lines:
            if line["kind"] in ("speed", "learning"):
                values = {key: value for key, value in line.items() if key not in ("kind", "name")}
                rows.append([device, line["name"], ", ".join(f"{key} {value:.3g}" for key, value in values.items())])
            elif line["kind"] in ("failed", "left out"):
                rows.append([device, line["name"], line["kind"]])
    return table(["device", "line", "result"], rows)


def nyuv2_table(results: dict[str, Any]) -> str:
    """The networks of docs/data.md on NYUv2's validation frames."""
    networks = [name for name in results if name not in BESIDE_NETWORKS]
    metrics = [("segmentation", "miou"), ("segmentation", "accuracy"), ("depth", "abs_rel"), ("depth", "rmse")]
    written = {(task, key): TASKS[task].written(key) for task, key in metrics}
    rows = []
    for name in ("constant", *networks):
        rows.append([name, *(of.number(results[name].get(task, {}).get(key)) for (task, key), of in written.items())])
    return table(["network", *(of.directed for of in written.values())], rows)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("demo.json", demo_table),
    "stages": ("stages.json", stages_table),
    "sample": ("dataset.json", sample_table),
    "disk": ("stages.json", disk_table),
    "memory": ("memory.json", memory_table),
    "memory check": ("memory.json", memory_check_table),
    "balancing": ("balancing.json", balancing_table),
    "balancing flops": ("balancing_flops.json", balancing_flops_table),
    "mixture at the start": ("mixture_start.json", mixture_table),
    "mixture at the end": ("mixture_end.json", mixture_table),
    "exchange": ("scaling.json", exchange_table),
    "exchange per sample": ("scaling.json", exchange_per_sample_table),
    "loading": ("dataset.json", loading_table),
    "cuda": ("cuda", cuda_table),
    "nyuv2": ("nyuv2.json", nyuv2_table),
    "full scales": ("full_scales.json", full_scales_table),
    "study nyuv2_partial": ("../../studies/nyuv2_partial/results.json", comparisons_table),
    "study thesis": ("../../studies/thesis/results.json", comparisons_table),
    "study labels": ("../../studies/labels/results.json", comparisons_table),
    "study disjoint": ("../../studies/disjoint/results.json", comparisons_table),
    "study updates": ("../../studies/updates/results.json", comparisons_table),
}
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "protocol.md",
    ROOT / "docs" / "scaling.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "data.md",
]


def results_of(path: Path) -> Any:
    """The JSON of a file; of the folder of the GPUs: name of the device -> its lines."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    files = sorted(path.glob("*/lines.jsonl"))
    return {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def rendered(text: str) -> str:
    """A document with every table made anew from the results."""
    for name, (file, make) in TABLES.items():
        start, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if start not in text:
            continue
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        made = make(results_of(RESULTS / file))
        text = f"{before}{start}\n{made}\n{end}{after}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, metavar="FILE", help="evaluate.py's JSON to take over as demo.json")
    args = parser.parse_args()
    if args.demo:
        (RESULTS / "demo.json").write_text(args.demo.read_text())
    for document in DOCUMENTS:
        document.write_text(rendered(document.read_text()))


if __name__ == "__main__":
    main()
