"""Evaluate checkpoints: one table a task, one column a checkpoint, beside the constant baseline.
Several are then compared: delta_m against those among them that learnt one label alone, and what each costs.

python evaluate.py runs/A/best.pt [runs/B/best.pt ...] --split val
"""

from errors import UserError, run_as_script  # first: from here on a signal ends it with one line

# isort: split
import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import torch

from arguments import whole
from datasets.a2d2.raw import RawData
from datasets.files import check_writable, write_json
from datasets.layout import add_data_root_argument, add_processed_roots_argument
from datasets.roots import stage_all
from datasets.staging import add_stage_argument
from tasks.merged import MergedSegmentation
from tasks.segmentation import SegmentationTask
from training import distributed
from training.comparison import BASELINES, compare, comparison_json, comparison_rows, known_tasks
from training.evaluation import Precision, Results
from training.restore import Restored
from training.tables import aligned, as_json, comma_separated, latex, markdown, metric_tables

WORKERS = min(4, len(os.sched_getaffinity(0)))
CONSTANT, COMPARISON = "constant", "comparison"  # keys of the JSON beside the networks' names


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--split", choices=["val", "test"], default="val", help="default val")
    parser.add_argument(
        "--classes",
        choices=["all", "merged"],
        default="all",
        help="of segmentation: all, or those that its data set merges them into (A2D2: 38 into 19)",
    )
    parser.add_argument(
        "--baseline",
        choices=BASELINES,
        default="same-network",
        help="of delta_m: the same network trained on one label (train_symmetric.py --train-mode TASK, default), or "
        "the networks of train_single_task.py, or none; n/a where one is not among the checkpoints",
    )
    layouts = parser.add_mutually_exclusive_group()
    for flag, layout in (("csv", comma_separated), ("markdown", markdown), ("latex", latex)):
        layouts.add_argument(
            f"--{flag}", dest="layout", action="store_const", const=layout, help=f"print tables as {flag}"
        )
    parser.set_defaults(layout=aligned)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_stage_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=whole(1, 65536), default=4, help="frames (default 4)")
    parser.add_argument("--workers", type=whole(0, 1024), default=WORKERS, help=f"loader processes (default {WORKERS})")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_writable(args.json)
    roots = RawData(args.data_root), stage_all(args.processed_root, args.stage_to)
    networks = {name: Restored.load(path, *roots) for name, path in named(args.checkpoints).items()}
    if args.classes == "merged":
        merge_classes(networks.values())
    first, *others = networks.values()
    for other in others:
        first.check_same_split(other)
    options = (args.split, Precision("auto", distributed.start(args.device)), args.batch_size, args.workers)

    columns = {CONSTANT: constant_results(networks.values(), args.split)}
    columns |= {name: network.evaluate(*options) for name, network in networks.items()}
    print(metric_tables(columns, args.layout))
    numbers = as_json(columns)
    if len(networks) > 1:
        rows = compare(networks, columns, args.baseline)
        print("", args.layout(comparison_rows(rows, known_tasks(networks))), sep="\n")
        numbers[COMPARISON] = comparison_json(rows)
    if args.json:
        write_json(args.json, numbers, indent=2)


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


def named(paths: list[Path]) -> dict[str, Path]:
    """Under the runs' names where they tell the checkpoints apart, else under the paths."""
    names = {path.parent.name: path for path in paths}
    return names if len(names.keys() - {CONSTANT, COMPARISON}) == len(paths) else {str(path): path for path in paths}


if __name__ == "__main__":
    run_as_script(main)
