"""Golden traces: 30 steps in float64 of every mode with every balancing, from inputs and weights that are formulas.

A redesign must leave them as they are. To hold a commit against its parent, run this on both and compare:

    python -m tests.training.golden trace here.json [--processes 2]
    python -m tests.training.golden compare here.json parent.json --tolerance 1e-10

tests/training/golden.json holds the traces of the day when they were made; `test_golden.py` checks them to 1e-6. Where
a redesign means to change them, its commit says why and writes them anew.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.a2d2.classes import BOX_CLASSES
from datasets.a2d2.geometry import FRONT_CENTER
from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.processed import ProcessedData
from tasks import TASKS
from tests.processes import PYTHON_PATH
from training import checkpoint
from training.methods import METHODS
from training.methods.gradients import AGGREGATORS
from training.runs import ASYMMETRIC, SYMMETRIC

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).with_name("golden.json")
DRIVER = Path(__file__).with_name("one_process.py")
SIDE, SCENE, FRAMES, STEP_OF_IDS = 64, "20180807_145028", 24, 30
EPOCHS, BLOCK, STEPS = 6, 4, 30  # 20 training frames: 5 blocks an epoch
SIZES = {"batch_size": BLOCK, "learning_rate": 0.002}
NETWORKS = {
    "segmentation": {"base_channels": 2},
    "box": {"base_channels": 2, "pairs": [1]},
    "depth": {"encoder": "small", "pretrained": "none"},
}
SETTINGS = {"box": {"grid": 4, "predictors": 2}}
SHARED = {
    "data": {
        "size": [SIDE, SIDE],
        "split": {"mode": "time", "fractions": [20 / FRAMES, 4 / FRAMES, 0], "gap_frames": 0, "gap_seconds": 0},
        "workers": 0,
    },
    "augmentation": {"hflip": 0.5, "brightness": 0, "contrast": 0, "saturation": 0},
    "training": {"epochs": EPOCHS, "log_every": 1, "validate_every": EPOCHS, "images": 0, "warmup": 0.1},
}
NETWORK = {"network": {"encoder": "small", "pretrained": "none", "channels": 16, "layers": 1}, "micro_batch_size": 2}


# ---- the runs --------------------------------------------------------------------------------------------------------


def cases() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name -> script, mode, config."""
    single = {
        task: {**SIZES, "micro_batch_size": 2, "network": NETWORKS.get(task, {}), "settings": SETTINGS.get(task, {})}
        for task in TASKS
    }
    found = {task: ("train_single_task", task, {**SHARED, "tasks": single}) for task in TASKS}
    weights = {task: {"weight": 1.0 / (1 + i), "settings": SETTINGS.get(task, {})} for i, task in enumerate(TASKS)}
    symmetric = {**SHARED, **NETWORK, **SIZES, "frames": "any", "tasks": weights}
    for name, method in METHODS.items():
        training = {**SHARED["training"], "similarity_every": int(name in AGGREGATORS)}  # where it costs nothing
        frames = "complete" if method.complete else "any"
        config = {**symmetric, "training": training, "balancing": name, "frames": frames}
        found[f"symmetric {name}"] = ("train_symmetric", SYMMETRIC, config)
    heads = {task: {**section, **SIZES, "batch_size": 2 + i} for i, (task, section) in enumerate(weights.items())}
    backbone = {**SIZES, "batch_size": 2 * BLOCK}
    asymmetric = {**SHARED, **NETWORK, "backbone": backbone, "block_size": BLOCK, "tasks": heads}
    training = {**SHARED["training"], "similarity_every": 3}
    for name in (name for name, method in METHODS.items() if method.asymmetric):
        config = {**asymmetric, "training": training, "balancing": name}
        found[f"asymmetric {name}"] = ("train_asymmetric", ASYMMETRIC, config)
    return found


def trace(folder: Path, processes: int, names: list[str]) -> dict[str, Any]:
    """Case -> its losses, gradient norms and similarities by step, and projections of its final weights."""
    processed = ProcessedData(folder / "processed")
    write_labels(processed)
    runs, found = folder / "runs", cases()
    driven = []
    for name in names:
        script, mode, config = found[name]
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(config))
        flags = ["--data-root", folder / "raw", "--processed-root", processed.root, "--runs-root", runs]
        flags += ["--config", path, "--name", name.replace(" ", "_"), "--train-mode", mode, "--wandb", "disabled"]
        driven.append({"script": script, "flags": [str(flag) for flag in flags], "formula": True})
    (folder / "runs.json").write_text(json.dumps(driven))
    settings = {"PYTHONPATH": PYTHON_PATH, "A2D2_STOP_FILE": str(folder / "stop"), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(DRIVER), str(folder / "runs.json")]
    done = subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: trace_of(runs / name.replace(" ", "_")) for name in names}


def trace_of(run: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("train/", "gradient_norm/", "similarity/")
    rows = [{key: value for key, value in row.items() if key.startswith(kept)} for row in rows]
    model = checkpoint.load(run / "last.pt")["model"]
    floating = {name: value for name, value in model.items() if value.is_floating_point()}
    return {"rows": rows, "weights": {name: projection(value) for name, value in floating.items()}}


def projection(weights: Tensor) -> float:
    """One number that changes with each of them."""
    return float((weights.double().flatten() * formula(weights.numel(), 0.3)).sum())


# ---- formulas --------------------------------------------------------------------------------------------------------


def formula(count: int, phase: float) -> Tensor:
    """Numbers in [-1, 1] that look like noise, the same on every machine."""
    return torch.from_numpy(np.sin(np.arange(count) ** 2 * 0.7 + np.arange(count) * 1.3 + phase))


def set_weights(model: nn.Module) -> None:
    """Of convolutions and dense layers, with the deviation of He et al. 2015; norms and biases stay as they start."""
    for i, parameter in enumerate(p for p in model.parameters() if p.ndim > 1):
        incoming = parameter[0].numel()
        values = math.sqrt(2 * 2 / incoming) * formula(parameter.numel(), i)
        parameter.data.copy_(values.view_as(parameter))


def write_labels(processed: ProcessedData) -> None:
    """Frames that drive along a pattern; every fifth lacks steering, every seventh boxes, frame 3 all but depth."""
    processed.describe("a2d2")
    for number in range(FRAMES):
        frame = Frame("a2d2", SCENE, f"{STEP_OF_IDS * number:09d}")
        y, x = np.mgrid[:SIDE, :SIDE]
        wave = (x * (3 + number % 4) + y * 5 + 11 * number) % 256
        picture = np.stack([wave, (wave * 3 + y) % 256, (x * x + y * number) % 256], -1).astype(np.uint8)
        labels: dict[str, Any] = {"camera": picture, "depth": ((5 + wave % 60) * 256).astype(np.uint16)}
        if number != 3:
            labels["segmentation"] = ((wave // 32 + number % 3) % 38).astype(np.uint8)
            labels["steering"] = {"angles": [float(4 * number - 40 + i) for i in range(10)], "unit": "deg"}
            labels["box"] = {"size": [SIDE, SIDE], "boxes": boxes(number)}
        for kind in [kind for kind, every in (("steering", 5), ("box", 7)) if number % every == every - 1]:
            labels.pop(kind, None)
        for kind, label in labels.items():
            path = processed.path(kind, frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(label, np.ndarray):
                np.save(path, label)
            else:
                path.write_text(json.dumps(label))
    settings = {"size": [SIDE, SIDE], "calibration": FRONT_CENTER.to_json(), "format": "npy"}
    for kind in ("camera", *TASKS):
        said = LABELS[kind].to_json() if kind in LABELS else {}
        processed.settings_path(kind).write_text(json.dumps({**settings, **said}))


def boxes(number: int) -> list[dict[str, Any]]:
    corners = [((7 * number + 13 * i) % 40, (5 * number + 17 * i) % 40) for i in range(1 + number % 3)]
    names = [BOX_CLASSES[(number + i) % 3] for i in range(len(corners))]
    return [
        {"class": name, "bbox": [x, y, x + 12 + number % 8, y + 10]}
        for name, (x, y) in zip(names, corners, strict=True)
    ]


# ---- comparing -------------------------------------------------------------------------------------------------------


def differences(found: Any, expected: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two traces differ by more than `tolerance`, relative to the larger of the number and 1e-3 of unity."""
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            return [f"{where}: {sorted(found.keys() ^ expected.keys())} only in one"]
        return [
            line for key in expected for line in differences(found[key], expected[key], tolerance, f"{where} {key}")
        ]
    if isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{where}: {len(found)} rows, not {len(expected)}"]
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")]
    if found is None or expected is None:
        return [] if found is expected else [f"{where}: {found} and {expected}"]
    wrong = abs(found - expected) > tolerance * max(abs(expected), 1e-3)
    return [f"{where}: {found!r} and {expected!r}"] if wrong else []


def rounded(content: Any, digits: int) -> Any:
    if isinstance(content, dict):
        return {key: rounded(value, digits) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value, digits) for value in content]
    return content if content is None else float(f"{content:.{digits}g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("trace")
    make.add_argument("out", type=Path)
    make.add_argument("--processes", type=int, default=1)
    make.add_argument("--digits", type=int, default=17, help="9 are enough for golden.json")
    compare = commands.add_parser("compare")
    compare.add_argument("found", type=Path)
    compare.add_argument("expected", type=Path)
    compare.add_argument("--tolerance", type=float, default=1e-10)
    args = parser.parse_args()
    if args.command == "trace":
        with tempfile.TemporaryDirectory() as folder:
            found = trace(Path(folder), args.processes, list(cases()))
        args.out.write_text(json.dumps(rounded(found, args.digits), indent=0) + "\n")
        return 0
    found, expected = (json.loads(path.read_text()) for path in (args.found, args.expected))
    lines = differences(found, expected, args.tolerance)
    print("\n".join(lines[:40]) or f"equal to {args.tolerance:g}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
