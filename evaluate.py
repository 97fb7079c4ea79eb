"""Evaluate checkpoints: one table a task, one column a checkpoint, beside the predictor that never looks.

python evaluate.py runs/A/best.pt [runs/B/best.pt ...] --split val
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from datasets.layout import ProcessedData, RawData, write_json
from errors import UserError, run_as_script
from training.evaluation import Precision, Results
from training.restore import Restored
from training.session import make_device
from training.tables import as_json, metric_tables


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--split", choices=["val", "test"], default="val", help="default val")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    parser.add_argument("--data-root", type=Path, default=Path("Datasets"), help="default Datasets")
    parser.add_argument("--processed-root", type=Path, default=Path("Datasets/processed"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4, help="loader processes (default 4)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    roots = RawData(args.data_root), ProcessedData(args.processed_root)
    networks = [Restored.load(path, *roots) for path in args.checkpoints]
    check_same_split(networks)
    options = (args.split, Precision("auto", make_device(args.device)), args.batch_size, args.workers)

    columns = {"never looks": blind_results(networks, *options)}
    for name, network in zip(column_names(args.checkpoints), networks, strict=True):
        columns[name] = network.evaluate(*options)
    print(metric_tables(columns))
    if args.json:
        write_json(args.json, as_json(columns), indent=2)


def blind_results(networks: list[Restored], *options: Any) -> Results:
    """Each task's predictor that never looks, once, whichever network has the task."""
    results: Results = {}
    for network in networks:
        if set(network.tasks) - set(results):
            results = {**network.evaluate_blind(*options), **results}
    return results


def check_same_split(networks: list[Restored]) -> None:
    for other in networks[1:]:
        if other.split != networks[0].split:
            raise UserError(f"{networks[0].path} and {other.path} have different splits: their numbers don't compare")


def column_names(paths: list[Path]) -> list[str]:
    """The runs' names where they tell the checkpoints apart, else the paths."""
    names = [path.parent.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


if __name__ == "__main__":
    run_as_script(main)
