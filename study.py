"""Run a study: a grid of ordinary training runs, judged on the test split, with statistics over seeds and plots.

python study.py configs/study/nyuv2_partial.yaml --processed-root Datasets/nyuv2 --seeds 2 --dry-run

Writes OUT/NAME/: results.json, RESULTS.md, plots with their numbers as CSV; the runs are RUNS_ROOT/studies/NAME/*/.
"""

import argparse
from pathlib import Path

from arguments import MAX_SEEDS, add_device_argument, number, shard_of, whole
from datasets.layout import add_data_root_argument, add_processed_roots_argument, add_runs_root_argument
from errors import run_as_script
from signals import ending_at_once

PURPOSES = ("tuning", "final")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="FILE.yaml", help="such as configs/study/nyuv2_partial.yaml")
    parser.add_argument(
        "--scale", metavar="NAME", help="another size of the study that its config has, such as full (default: its own)"
    )
    parser.add_argument(
        "--seeds",
        type=whole(1, MAX_SEEDS),
        metavar="N",
        help="only the first N, such as 2; more than there are: the numbers that follow (default: the config's)",
    )
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=1,
        metavar="N",
        help="runs at once, such as 4, each with cores / N threads (default 1)",
    )
    parser.add_argument(
        "--purpose", choices=PURPOSES, help="only the tuning runs, or only the final ones (default: both)"
    )
    parser.add_argument(
        "--shard",
        type=shard_of,
        metavar="I/N",
        help="only runs I, I+N, I+2N ... of the list, such as 2/8 (default: all)",
    )
    parser.add_argument(
        "--submit", choices=["slurm"], help="submit the runs as job arrays instead (default: run them here)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print runs, samples and estimated hours; run nothing")
    parser.add_argument(
        "--tflops",
        type=number(1e-6, 1e6),
        metavar="N",
        help="of --dry-run: a sustained speed, such as 0.1 (default: a step is measured, or what the config states)",
    )
    parser.add_argument("--latex", action="store_true", help="write table.tex beside RESULTS.md")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("studies"),
        metavar="DIR",
        help="of results, such as /scratch/studies (default studies)",
    )
    add_runs_root_argument(parser)
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--wandb",
        choices=["auto", "online", "offline", "disabled"],
        default="disabled",
        help="of the runs and of the study's tables, as in the training scripts (default disabled)",
    )
    parser.add_argument(
        "--wandb-group",
        metavar="NAME",
        help="of all runs on the dashboard, such as partial (default: the study's name)",
    )
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from studying.command import carry_out_command

    return carry_out_command(args)


if __name__ == "__main__":
    run_as_script(main)
