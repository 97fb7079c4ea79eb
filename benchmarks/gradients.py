"""How strongly each task pulls at the shared backbone: norms and cosines of the tasks' gradients, for any config.

    python -m benchmarks.gradients [--train-mode symmetric] [--config configs/symmetric_conf.yaml] [--set KEY=VALUE]
                                   [--samples 128] [--weights-of runs/NAME/last.pt] [--json FILE]
    python -m benchmarks.gradients --train-mode asymmetric --config configs/asymmetric_conf.yaml

A task's loss says little about how much it moves the backbone: losses of one size can have gradients whose norms are a
factor of 100 apart. So loss weights are chosen from gradient norms. The command takes the flags of the training scripts
and reads --samples training samples in the order of an epoch, augmented; without --weights-of the network is as
training starts it. Of each task it prints

    loss      mean over its valid samples
    norm      of the gradient of its unweighted loss on the backbone, summed over its samples, divided by all samples
    weight    in the config
    share     of weight x norm in the sum over tasks
    equal     the weight with which all tasks would have the same share (their geometric mean is that of the config's)

and the cosine between each two tasks' gradients. Norms change during training: measure at its start and at its end.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arguments import whole
from benchmarks.machine import describe_machine
from datasets.files import write_json
from datasets.sampling import MicroBatchSampler, epoch_order, micro_batches
from datasets.transforms import Augmentation
from errors import run_as_script
from models.multitask import BACKBONE
from training import checkpoint
from training.arguments import make_parser
from training.build import Network
from training.config import load_config
from training.data import RunData, open_data
from training.evaluation import make_loader
from training.methods.similarity import GradientSimilarity, cosine_similarities
from training.runs import ASYMMETRIC, RUN_CONFIGS, SYMMETRIC, RunConfig
from training.start import Start


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "configs/symmetric_conf.yaml", SYMMETRIC, f"{SYMMETRIC} (default) or {ASYMMETRIC}")
    parser.add_argument("--samples", type=whole(1), default=128, help="training samples that are read (default 128)")
    parser.add_argument("--weights-of", type=Path, metavar="FILE", help="a checkpoint of this network")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.train_mode not in (SYMMETRIC, ASYMMETRIC):
        parser.error(f"--train-mode {args.train_mode}: choose {SYMMETRIC} or {ASYMMETRIC}")
    args.dry_run = True  # no run's folder
    return args


def measure(config: RunConfig, data: RunData, network: Network, samples: int) -> dict[str, Any]:
    """Of the network, on the first `samples` of an epoch."""
    model, tasks, device = network.model, data.tasks, network.precision.device
    blocks = epoch_order(data.train.samples, data.block_size, config.seed, 0)[: math.ceil(samples / data.block_size)]
    sampler = MicroBatchSampler()
    sampler.order = [part for block in blocks for part in micro_batches(block, data.micro_batch_size)]
    loader = make_loader(data.train, tasks, 0, device, batch_sampler=sampler)
    augment = Augmentation(**config.augmentation.model_dump(), seed=config.seed)
    rows = GradientSimilarity(model.groups()[BACKBONE], list(tasks), every=1)
    losses: dict[str, list[Tensor]] = defaultdict(list)
    model.train()
    count = 0
    for loaded in loader:
        batch = augment(loaded.to(device), tasks, 0)
        with network.precision.autocast():
            outputs = model(batch.images, batch.places)
        found = {name: tasks[name].loss(outputs[name], target) for name, target in batch.targets.items()}
        rows.record(
            {name: loss for name, (loss, _) in found.items()}, {name: valid for name, (_, valid) in found.items()}
        )
        for name, (loss, valid) in found.items():
            losses[name].append(loss.detach()[valid])
        count += len(batch)
    norms = {name: float(nn.utils.get_total_norm(row)) / count for name, row in rows.rows.items()}
    weights = {name: config.tasks[name].weight for name in norms}
    return {
        "samples": count,
        "tasks": table_of({name: float(torch.cat(losses[name]).mean()) for name in norms}, norms, weights),
        "cosines": cosine_similarities(rows.rows),
    }


def table_of(
    losses: dict[str, float], norms: dict[str, float], weights: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Task -> what the command prints of it."""
    pulls = {name: weights[name] * norms[name] for name in norms}
    mean = math.exp(sum(map(math.log, pulls.values())) / len(pulls))
    return {
        name: {
            "loss": losses[name],
            "norm": norms[name],
            "weight": weights[name],
            "share": pulls[name] / sum(pulls.values()),
            "equal": mean / norms[name],
        }
        for name in norms
    }


def main() -> None:
    args = parse_arguments()
    config = load_config(RUN_CONFIGS[args.train_mode], args.config, args.set, args.gpu).of_mode(
        args.train_mode, args.config
    )
    with Start.open(args, config) as start:
        config, data = open_data(start, config)
        network = Network.make(start, config, data)
        if args.weights_of:
            network.model.load_state_dict(checkpoint.load(args.weights_of)["model"])
        result = measure(config, data, network, args.samples)
    print(f"{result['samples']} samples")
    print(f"{'':14}" + "".join(f"{column:>12}" for column in ("loss", "norm", "weight", "share", "equal")))
    for name, row in result["tasks"].items():
        print(f"{name:14}" + "".join(f"{value:12.4g}" for value in row.values()))
    print("cosines: " + ", ".join(f"{pair} {value:+.2f}" for pair, value in result["cosines"].items()))
    if args.json:
        write_json(args.json, {**result, "config": str(args.config), "machine": describe_machine()}, indent=2)


if __name__ == "__main__":
    run_as_script(main)
