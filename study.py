"""Run a study: a grid of ordinary training runs, judged on the test split, with statistics over seeds and plots.

python study.py configs/study/NAME.yaml [--seeds N] [--jobs N] [--dry-run]
"""

import argparse
from pathlib import Path

from arguments import add_device_argument, shard_of, whole
from datasets.layout import add_data_root_argument, add_processed_roots_argument, add_runs_root_argument
from errors import run_as_script
from signals import ending_at_once

PURPOSES = ("tuning", "final")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="such as configs/study/nyuv2_partial.yaml")
    parser.add_argument("--scale", metavar="NAME", help="another size of the study that its config has, such as full")
    parser.add_argument("--seeds", type=whole(1), metavar="N", help="only the first N; more: the numbers that follow")
    parser.add_argument(
        "--jobs", type=whole(1), default=1, metavar="N", help="runs at once, each with cores / N threads"
    )
    parser.add_argument("--purpose", choices=PURPOSES, help="only the tuning runs, or only the final ones")
    parser.add_argument("--shard", type=shard_of, metavar="I/N", help="only runs I, I+N, I+2N ... of the list")
    parser.add_argument("--submit", choices=["slurm"], help="submit the runs as job arrays instead")
    parser.add_argument("--dry-run", action="store_true", help="print runs, samples and estimated hours; run nothing")
    parser.add_argument("--tflops", type=float, help="of --dry-run: a sustained speed, instead of measuring a step")
    parser.add_argument("--latex", action="store_true", help="write table.tex beside RESULTS.md")
    parser.add_argument("--out", type=Path, default=Path("studies"), metavar="DIR", help="of results (default studies)")
    add_runs_root_argument(parser)
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_device_argument(parser)
    parser.add_argument("--wandb", choices=["auto", "online", "offline", "disabled"], default="disabled")
    parser.add_argument(
        "--wandb-group", metavar="NAME", help="of all runs on the dashboard (default: the study's name)"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from studying.command import carry_out_command

    return carry_out_command(args)


if __name__ == "__main__":
    run_as_script(main)
