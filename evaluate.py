"""Evaluate checkpoints: what each was trained on, then tables for each task, a column a checkpoint, beside the constant
baseline. Several are then compared: Delta-m against those among them that learnt one label alone, and what each costs.

python evaluate.py runs/A/best.pt [runs/B/best.pt ...] --split val

Writes the file that --json names, and with --wandb a run of its own on the dashboard, in wandb/ beside the first
checkpoint. docs/evaluation.md says what each number means and what it compares with.
"""

from errors import run_as_script  # first: from here on a signal ends it with one line

# isort: split
import argparse
import os
from pathlib import Path

from arguments import MAX_WORKERS, add_dashboard_arguments, add_device_argument, whole
from datasets.files import check_writable
from datasets.layout import add_data_root_argument, add_processed_roots_argument
from datasets.staging import add_stage_argument
from signals import ending_at_once

WORKERS = min(4, len(os.sched_getaffinity(0)))
BATCH_SIZE = 4
BASELINES = ("same-network", "single-task", "none")  # training/comparison.py


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="such as runs/A/best.pt")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="default val")
    parser.add_argument(
        "--classes",
        choices=["all", "merged"],
        default="all",
        help="of segmentation: all (default), or those that its data set merges them into (A2D2: 38 into 19)",
    )
    parser.add_argument(
        "--baseline",
        choices=BASELINES,
        default="same-network",
        help="of Delta-m: the same network trained on one label (train_symmetric.py --train-mode TASK, default), or "
        "the networks of train_single_task.py, or none; n/a where one is not among the checkpoints",
    )
    parser.add_argument(
        "--full-resolution",
        action="store_true",
        help="judge maps by the labels below --data-root at the size of their own files: predictions are enlarged, "
        "frames pass one by one (default: by the labels as they were preprocessed)",
    )
    layouts = parser.add_mutually_exclusive_group()
    for layout in ("csv", "markdown", "latex"):
        layouts.add_argument(
            f"--{layout}", dest="layout", action="store_const", const=layout, help=f"print tables as {layout}"
        )
    parser.set_defaults(layout="aligned")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the numbers there as well, such as results.json, rates as fractions from 0 to 1 (default: nowhere)",
    )
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_stage_argument(parser)
    add_dashboard_arguments(parser, "disabled", "a run of its own", group="evaluate", tags="evaluate and the split")
    add_device_argument(parser)
    parser.add_argument("--batch-size", type=whole(1, 65536), help=f"frames, such as 16 (default {BATCH_SIZE})")
    parser.add_argument(
        "--workers",
        type=whole(0, MAX_WORKERS),
        default=WORKERS,
        help=f"loader processes, such as 8 (default {WORKERS})",
    )
    args = parser.parse_args()
    if args.full_resolution and args.batch_size:
        parser.error("--full-resolution takes frames one by one, as their sizes may differ: leave --batch-size out")
    args.batch_size = 1 if args.full_resolution else args.batch_size or BATCH_SIZE
    return args


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_writable(args.json, args.checkpoints)
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from training.report import report

    report(args)


if __name__ == "__main__":
    run_as_script(main)
