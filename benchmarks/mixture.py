"""How much of the epoch's gradient one step of the backbone sees, by how samples are put into blocks.

    python -m benchmarks.mixture --weights-of demo/runs/asymmetric/last.pt [--data-root ...] [--json FILE]

Each (frame, label) is a sample, as in training with `visit: label`. The gradient of every sample on the backbone is
computed once, at the network of the checkpoint and with its loss weights; then, for steps of 16 and of 48 samples, the
mean over the steps of an epoch (10 orders) of the cosine of a step's gradient to the whole epoch's, and of the squared
distance between the two, for three ways to order the samples:

    one task a block    blocks of 8 samples of one task, shuffled (what this project did first)
    at random           samples shuffled
    dealt               what training does (datasets/sampling.py)
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_machine
from datasets.a2d2.raw import RawData
from datasets.files import write_json
from datasets.labels import label_samples
from datasets.layout import add_root_arguments
from datasets.processed import ProcessedData
from datasets.samples import Collate, LabelledFrames, Sample
from datasets.sampling import epoch_order
from errors import run_as_script
from models.multitask import BACKBONE
from strict_yaml import validated
from training import checkpoint
from training.methods.similarity import total
from training.restore import Restored
from training.runs import AsymmetricRun

STEPS = (16, 48)  # samples of a step: of the demo's backbone and of the shipped config's
ONE_TASK_BLOCK = 8
ORDERS = 10

Order = Callable[[list[Sample], int, int], Iterator[list[int]]]


def gradients(network: Restored, weights: dict[str, float], samples: list[Sample]) -> np.ndarray:
    """Each sample's weighted gradient on the backbone: float32, samples x parameters; 0 without a valid label."""
    shared = [parameter for parameter in network.model.groups()[BACKBONE] if parameter.requires_grad]
    data, collate = LabelledFrames(network.roots, network.tasks, samples), Collate(network.tasks)
    rows = np.zeros((len(samples), sum(parameter.numel() for parameter in shared)), np.float32)
    network.model.train()
    for place in range(len(samples)):
        batch = collate([data[place]])
        for task, target in batch.targets.items():
            losses, valid = network.tasks[task].loss(network.model(batch.images, {task: None})[task], target)
            if valid.any():
                parts = torch.autograd.grad(weights[task] * total(losses, valid), shared, materialize_grads=True)
                rows[place] = torch.cat([part.flatten() for part in parts]).numpy()
    return rows


def one_task_a_block(samples: list[Sample], size: int, seed: int) -> Iterator[list[int]]:
    random = np.random.default_rng(seed)
    pools: dict[tuple[str, ...], list[int]] = {}
    for place in random.permutation(len(samples)).tolist():
        pools.setdefault(samples[place].tasks, []).append(place)
    blocks = [
        pool[start : start + ONE_TASK_BLOCK] for pool in pools.values() for start in range(0, len(pool), ONE_TASK_BLOCK)
    ]
    yield from cut([place for block in random.permutation(len(blocks)) for place in blocks[block]], size)


def at_random(samples: list[Sample], size: int, seed: int) -> Iterator[list[int]]:
    yield from cut(np.random.default_rng(seed).permutation(len(samples)).tolist(), size)


def dealt(samples: list[Sample], size: int, seed: int) -> Iterator[list[int]]:
    yield from ([visit.place for visit in block] for block in epoch_order(samples, size, seed, 0))


def cut(places: list[int], size: int) -> Iterator[list[int]]:
    return (places[start : start + size] for start in range(0, len(places), size))


WAYS: dict[str, Order] = {"one task a block": one_task_a_block, "at random": at_random, "dealt": dealt}


def compare(rows: np.ndarray, samples: list[Sample]) -> list[dict[str, Any]]:
    """A row for each size of a step and each way; full steps only."""
    epoch, pools = rows.mean(0), {sample.tasks for sample in samples}
    results = []
    for size in STEPS:
        for name, order in WAYS.items():
            steps = [step for seed in range(ORDERS) for step in order(samples, size, seed) if len(step) == size]
            means = np.stack([rows[step].mean(0) for step in steps])
            cosines = means @ epoch / (np.linalg.norm(means, axis=1) * np.linalg.norm(epoch))
            absent = [1 - len({samples[place].tasks for place in step}) / len(pools) for step in steps]
            results.append(
                {
                    "samples a step": size,
                    "order": name,
                    "cosine": float(cosines.mean()),
                    "variance": float(np.square(means - epoch).sum(1).mean()),
                    "tasks absent": float(np.mean(absent)),
                }
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights-of", type=Path, required=True, metavar="FILE", help="a checkpoint of an asymmetric run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_root_arguments(parser)
    args = parser.parse_args()
    network = Restored.load(args.weights_of, RawData(args.data_root), [ProcessedData(args.processed_root)])
    config = validated(AsymmetricRun, checkpoint.load(args.weights_of)["config"], str(args.weights_of))
    train = set(network.split.train)
    labelled = {task: [f for f in network.roots.labelled(task) if f in train] for task in network.tasks}
    samples = label_samples(labelled, list(network.tasks))
    weights = {task: config.tasks[task].weight for task in network.tasks}
    results = compare(gradients(network, weights, samples), samples)
    print(f"{'samples a step':16}{'order':20}{'cosine':>8}{'variance':>12}{'tasks absent':>14}")
    for row in results:
        size, name, *numbers = row.values()
        print(f"{size:<16}{name:20}{numbers[0]:8.2f}{numbers[1]:12.4g}{numbers[2]:14.2f}")
    if args.json:
        write_json(args.json, {"samples": len(samples), "rows": results, "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    run_as_script(main)
