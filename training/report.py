"""What evaluate.py does: networks restored, evaluated, compared; tables printed, written and shown on the dashboard."""

import argparse
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.a2d2.raw import RawData
from datasets.files import write_json
from datasets.layout import RunDir
from datasets.roots import stage_all
from errors import UserError
from tasks.merged import MergedSegmentation
from tasks.segmentation import SegmentationTask
from training import distributed
from training.comparison import compare, comparison_json, comparison_rows, known_tasks
from training.data_config import DRAWN, LabelsConfig
from training.evaluation import Precision, Results
from training.raw_labels import read_raw_labels
from training.restore import Restored
from training.start import listed
from training.tables import LAYOUTS, Rows, as_json, metric_tables
from training.tracking import Listing, Tracker, start_wandb

CONSTANT, COMPARISON, RUNS = BESIDE_NETWORKS = "constant", "comparison", "runs"  # keys of the JSON beside the networks


def report(args: argparse.Namespace) -> None:
    """args: of evaluate.py. UserError: a checkpoint can't be used, or not beside the others."""
    networks = restore(args)
    options = (args.split, Precision("auto", distributed.start(args.device)), args.batch_size, args.workers)
    columns = {CONSTANT: constant_results(networks.values(), args.split)}
    columns |= {name: network.evaluate(*options) for name, network in networks.items()}

    tasks = known_tasks(networks)
    runs = {name: facts_of(network, args.split) for name, network in networks.items()}
    tables = {RUNS: run_rows(runs, args.split, list(tasks)), **metric_tables(columns, tasks)}
    numbers: dict[str, Any] = {**as_json(columns), RUNS: runs}
    if len(networks) > 1:
        rows = compare(networks, columns, args.baseline)
        tables[COMPARISON] = comparison_rows(rows, tasks)
        numbers[COMPARISON] = comparison_json(rows)
    print("\n\n".join(map(LAYOUTS[args.layout], tables.values())))
    if args.json:
        write_json(args.json, numbers, indent=2)
    if args.wandb != "disabled":
        show(args, tables, numbers)


def restore(args: argparse.Namespace) -> dict[str, Restored]:
    """Name -> network, all of the same split."""
    roots = RawData(args.data_root), stage_all(args.processed_root, args.stage_to)
    networks = {name: Restored.load(path, *roots) for name, path in named(args.checkpoints).items()}
    if args.classes == "merged":
        merge_classes(networks.values())
    if args.full_resolution:
        for network in networks.values():
            read_raw_labels(network, args.data_root)
        if not any(network.readers for network in networks.values()):
            raise UserError("--full-resolution: no task of the checkpoints has labels that are maps")
    first, *others = networks.values()
    for other in others:
        first.check_same_split(other)
    return networks


def named(paths: list[Path]) -> dict[str, Path]:
    """Under the runs' names where they tell the checkpoints apart, else under the paths."""
    names = {path.parent.name: path for path in paths}
    told_apart = len(names.keys() - set(BESIDE_NETWORKS)) == len(paths)
    return names if told_apart else {str(path): path for path in paths}


def merge_classes(networks: Iterable[Restored]) -> None:
    """Have segmentation told in merged classes. UserError: no network has it."""
    networks = list(networks)
    if not any(isinstance(task, SegmentationTask) for network in networks for task in network.tasks.values()):
        raise UserError("--classes merged: none of the checkpoints was trained for segmentation")
    for network in networks:
        network.tasks = {
            name: MergedSegmentation(task) if isinstance(task, SegmentationTask) else task
            for name, task in network.tasks.items()
        }


def constant_results(networks: Iterable[Restored], split: str) -> Results:
    """Each task's constant baseline, once, whichever network has the task."""
    results: Results = {}
    for network in networks:
        if set(network.tasks) - set(results):
            results = {**network.evaluate_constant(split), **results}
    return results


def show(args: argparse.Namespace, tables: Mapping[str, Rows], numbers: Mapping[str, Any]) -> None:
    """The tables as they are printed, and the raw numbers of no single class, as a run on the dashboard."""
    folder = args.checkpoints[0].resolve().parent
    name = " ".join(numbers[RUNS])
    listing = Listing(secrets.token_hex(4), name, "evaluate", "evaluate", ("evaluate", args.split))
    config = {"split": args.split, "classes": args.classes, "baseline": args.baseline, "runs": numbers[RUNS]}
    run = RunDir(folder.parent, folder.name)
    tracker = Tracker(run, start_wandb(args.wandb, run, listed(listing, args), config))
    for title, (head, *rows) in tables.items():
        tracker.show_table(title, [*head], [[*row] for row in rows], samples=0)
    networks = {name: results for name, results in numbers.items() if name not in (RUNS, COMPARISON)}
    tracker.summarise(
        {
            f"{network}/{task}/{metric}": value
            for network, results in networks.items()
            for task, values in results.items()
            for metric, value in values.items()
            if "/" not in metric and value is not None
        }
    )
    tracker.finish()


# ---- what the networks were trained on ------------------------------------------------------------------------


def facts_of(network: Restored, split: str) -> dict[str, Any]:
    """What a number needs beside it, as JSON. Call it after `evaluate`."""
    return {
        "checkpoint": str(network.path),
        "kind": network.kind,
        "mode": network.mode,
        "labels": network.config.data.labels.model_dump(mode="json"),
        "label_regime": regime_of(network.config.data.labels),
        "seed": network.config.seed,
        "epochs": network.epoch,
        "split": split,
        "size": network.config.data.size,
        "judged_at": "the labels' own size" if network.readers else "{} x {}".format(*network.config.data.size),
        "frames": len(network.split.of(split)),
        "frames_evaluated": {task: network.frames[task] for task in network.tasks},
        "training_samples": network.training_samples,
        "samples_seen": network.samples_seen,
    }


def regime_of(labels: LabelsConfig) -> str:
    """'one of depth, segmentation (seed 0)': which labels the training frames kept."""
    if labels.regime == "every":
        return "every"
    if labels.regime in DRAWN:
        shares = {kind: labels.proportions.get(kind, 1.0) for kind in labels.kinds or ()}
        alike = len(set(shares.values())) == 1
        kept = ", ".join(kind if alike else f"{kind} {share:g}" for kind, share in shares.items())
        return f"{'one' if labels.regime == 'one' else 'one or more'} of {kept} (seed {labels.seed})"
    shown = ", ".join(f"{kind} {100 * share:g} %" for kind, share in labels.fractions.items())
    return f"fractions: {shown or 'all'} (seed {labels.seed})"


def run_rows(runs: Mapping[str, Mapping[str, Any]], split: str, tasks: Iterable[str]) -> Rows:
    """`facts_of` each network, a column each; '-' where it lacks the task."""
    facts = {
        "trained as": "kind",
        "mode": "mode",
        "label regime": "label_regime",
        "seed": "seed",
        "epochs": "epochs",
        "maps judged at": "judged_at",
        f"frames of {split}": "frames",
    }
    by_task = {
        f"{split} frames evaluated": "frames_evaluated",
        "training samples": "training_samples",
        "samples seen": "samples_seen",
    }
    rows = [[f"split {split}", *runs]]
    rows += [[label, *(str(run[key]) for run in runs.values())] for label, key in facts.items()]
    for task in tasks:
        for label, key in by_task.items():
            rows.append([f"{task}: {label}", *(str(run[key].get(task, "-")) for run in runs.values())])
    return rows
