"""What several processes exchange with the shipped configs, from the parameter counts: nothing is measured here.

    python -m benchmarks.scaling [--json FILE]

A group's gradients (float32) are summed over the processes once per step of that group, that is once in `batch_size`
samples that reach it. A sample is a frame with all labels here: it reaches every group.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from datasets.a2d2.spec import LABELS
from datasets.files import write_json
from models.multitask import BACKBONE
from training.config import load_config
from training.methods.rows import Rows
from training.runs import ASYMMETRIC, SYMMETRIC, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

CONFIGS = Path(__file__).parents[1] / "configs"
BYTES = 4  # of a number


@dataclass(frozen=True)
class Exchange:
    """One group of one mode."""

    mode: str
    group: str
    parameters: int
    batch_size: int
    rows: int  # gradients a step: one, or one a task for the backbone under balancing by gradients

    @property
    def bytes_per_step(self) -> int:
        return BYTES * self.parameters * self.rows

    @property
    def bytes_per_sample(self) -> float:
        return self.bytes_per_step / self.batch_size


def exchanges(config: RunConfig, name: str) -> list[Exchange]:
    tasks = config.make_tasks(LABELS)
    for task in tasks.values():
        task.fit([])
    with torch.device("meta"):
        model = config.make_model(tasks)
    configs = config.group_configs()
    balancing = config.make_balancing(model, tasks)
    return [
        Exchange(
            mode=name,
            group=group,
            parameters=sum(p.numel() for p in parameters if p.requires_grad),
            batch_size=configs[group].batch_size,
            rows=len(tasks) if isinstance(balancing, Rows) and group == BACKBONE else 1,
        )
        for group, parameters in ((group, list(found)) for group, found in model.groups().items())
    ]


def all_exchanges() -> list[Exchange]:
    single = load_config(SingleTaskRun, CONFIGS / "single_task_conf.yaml", [])
    symmetric = load_config(SymmetricRun, CONFIGS / "symmetric_conf.yaml", [])
    upgrad = load_config(SymmetricRun, CONFIGS / "symmetric_conf.yaml", ["balancing=upgrad"])
    asymmetric = load_config(AsymmetricRun, CONFIGS / "asymmetric_conf.yaml", [])
    found = [one for task in single.tasks for one in exchanges(single.of_mode(task), f"single task: {task}")]
    found += exchanges(symmetric.of_mode(SYMMETRIC), "symmetric")
    found += exchanges(upgrad.of_mode(SYMMETRIC), "symmetric, balancing by gradients")
    return found + exchanges(asymmetric.of_mode(ASYMMETRIC), "asymmetric")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = all_exchanges()
    for one in found:
        print(f"{one.mode}, {one.group}: {one.bytes_per_step / 1e6:.1f} MB in {one.batch_size} samples")
    rows = [asdict(one) | {"mb_per_step": one.bytes_per_step / 1e6} for one in found]
    modes = {
        mode: sum(one.bytes_per_sample for one in found if one.mode == mode) / 1e6
        for mode in dict.fromkeys(one.mode for one in found)
    }
    if args.json:
        write_json(args.json, {"rows": rows, "mb_per_sample": modes}, indent=2)


if __name__ == "__main__":
    main()
