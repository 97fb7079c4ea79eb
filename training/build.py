"""From a config and its data to a network and its trainer. The same for all training scripts."""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import signals
from datasets.files import whole_file, write_json
from datasets.transforms import Augmentation
from errors import UserError
from models.base import TaskNetwork
from models.memory_format import lay_out
from models.multitask import BACKBONE
from models.norms import training_batch_norms
from tasks.base import Task
from training import checkpoint, distributed
from training.baseline import read_baselines
from training.comparison import deciding_values, delta_m
from training.config import to_yaml
from training.dashboard import definitions
from training.data import RunData
from training.evaluation import Precision, Results
from training.initial import Taken
from training.loop import Interrupted, Trainer
from training.methods.base import Balancing
from training.methods.rows import Rows
from training.runs import RunConfig
from training.start import Start, mark_interrupted
from training.tracking import Listing, Tracker, start_wandb
from training.updates import Group, LossScale, Schedule, Updates


@dataclass(frozen=True)
class Network:
    """A network on its device, with what weighs its losses and steps its groups."""

    model: TaskNetwork
    balancing: Balancing
    updates: Updates
    precision: Precision

    @classmethod
    def make(cls, start: Start, config: RunConfig, data: RunData) -> "Network":
        """Its initial weights follow from the config's seed. UserError: config, network and device do not fit."""
        torch.manual_seed(config.seed)
        model = config.make_model(data.tasks)
        check_size(config.data.size, model, start.args.config)
        check_norms(model, start, data)
        load_initial(start, config, model, data)
        freeze(model, config)
        lay_out(model.to(start.device), channels_last=config.training.channels_last)

        precision = Precision(config.training.precision, start.device)
        balancing = config.make_balancing(model, data.tasks)
        check_precision(balancing, precision)
        check_frozen(config, balancing)
        check_sync_bn(config, model, balancing, start.device)
        updates = Updates(
            make_groups(config, model, balancing),
            schedule=Schedule.over(config.training.epochs * len(data.train), config.training.warmup),
            loss_scale=LossScale(enabled=precision.dtype is torch.float16),
            together=config.steps_together,
            frozen=config.training.freeze,
        )
        return cls(model, balancing, updates, precision)


def load_initial(start: Start, config: RunConfig, model: TaskNetwork, data: RunData) -> None:
    """Put the weights in that a new run starts from. Those of the config are not read where --init-from has them."""
    path = start.args.init_from
    if start.checkpoint is not None:
        check_same_origin(start.checkpoint, path)
        return
    taken = Taken.plan(path, model, start.args.only) if path else None
    first = next(iter(model.groups()))  # the backbone, or a single-task network: the config's weights are its encoder's
    if taken is None or not taken.holds(first):
        config.load_pretrained(model, data.tasks)
    if taken is not None:
        taken.load(model)
        print(taken)


def check_same_origin(loaded: Mapping[str, Any], path: Path | None) -> None:
    """UserError where a run that goes on is said to have started from another checkpoint than it did."""
    if path and loaded.get("init_from") != str(path.resolve()):
        raise UserError(f"--init-from {path}: the run started from {loaded.get('init_from') or 'no checkpoint'}")


def make_groups(config: RunConfig, model: TaskNetwork, balancing: Balancing) -> list[Group]:
    """The network's groups of parameters with their optimisers; the balancing's own parameters join their heads'."""
    configs = config.learning_groups()
    return [
        Group(
            name,
            parameters,
            configs[name],
            config.training.clip,
            make_gradient=balancing.aggregate if name == BACKBONE and isinstance(balancing, Rows) else None,
            balancing=balancing.parameters_of(name),
            balancing_rate=balancing.learning_rate,
            slowed=config.slowed(model),
        )
        for name, parameters in model.groups().items()
        if name in configs
    ]


def freeze(model: TaskNetwork, config: RunConfig) -> None:
    """UserError: no such group, or none is left to learn."""
    groups, frozen = model.groups(), config.training.freeze
    if unknown := sorted(set(frozen) - set(groups)):
        raise UserError(f"training.freeze: there is no group {unknown[0]}; there are {', '.join(groups)}")
    if set(frozen) == set(groups):
        raise UserError(f"training.freeze: {', '.join(frozen)} are all groups that there are; nothing would learn")
    for name in frozen:
        for parameter in groups[name]:
            parameter.requires_grad_(False)


def make_trainer(start: Start, config: RunConfig, data: RunData, network: Network) -> Trainer:
    """The loop, where the checkpoint left it; makes the run's folder."""
    lists = data.lists()
    changed = start.changed_lists(lists)  # before the run's folder is touched
    constants = {**run_constants(start, config, data), "sample_lists": lists, "constant": {}}
    if baseline := baseline_of(start, data):
        constants["baseline"] = baseline
    if config.compares_tasks:
        constants["constant"] = start.checkpoint["constant"] if start.checkpoint else data.constant_results()
    trainer = Trainer(
        model=network.model,
        tasks=data.tasks,
        balancing=network.balancing,
        updates=network.updates,
        augmentation=Augmentation(**config.augmentation.model_dump(), seed=config.seed),
        score=lambda results: score(results, constants["constant"], config, data),
        data=data,
        config=config.training,
        precision=network.precision,
        seed=config.seed,
        run=start.run,
        tracker=start_tracking(start, config, data, network, constants),
        constants=constants,
        gain=partial(gain, baseline=baseline, tasks=data.tasks) if baseline else None,
    )
    if start.checkpoint is not None:
        with checkpoint.fitting("--resume: the checkpoint"):
            trainer.load_state(start.checkpoint)
        if "train" in changed:
            trainer.accept_new_samples()
        if "val" in changed:
            trainer.forget_best()
        if start.checkpoint["config"]["training"]["epochs"] < config.training.epochs:
            trainer.extend()
        print(f"goes on after {trainer.updates.samples_seen} samples, epoch {trainer.position.epoch + 1}")
    return trainer


def run_constants(start: Start, config: RunConfig, data: RunData) -> dict[str, Any]:
    """The parts of the run's checkpoints that never change."""
    origin = origin_of(start)
    return {
        "kind": config.kind,
        "mode": config.mode,
        "config": config.model_dump(mode="json"),
        "split": data.split.to_json(),
        "datasets": data.roots.to_json(),
        "bound": dict(data.bound),
        "samples": data.samples_per_task(),
        "git_commit": checkpoint.git_commit(),
        "wandb_id": start.checkpoint["wandb_id"] if start.checkpoint else new_wandb_id(),
        **({"init_from": origin} if origin else {}),
    }


def baseline_of(start: Start, data: RunData) -> dict[str, float]:
    """Task -> deciding metric of the network that Delta-m compares with; empty where none is given."""
    if not start.args.baseline:
        return start.checkpoint.get("baseline", {}) if start.checkpoint else {}
    return read_baselines(start.args.baseline, data.tasks, data.split)


def new_wandb_id() -> str:
    """That which a sweep's agent has given the run, else a new one."""
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def origin_of(start: Start) -> str | None:
    """The checkpoint that the run took its initial weights from."""
    if start.checkpoint is not None:
        return start.checkpoint.get("init_from")
    return str(start.args.init_from.resolve()) if start.args.init_from else None


def start_tracking(
    start: Start, config: RunConfig, data: RunData, network: Network, constants: Mapping[str, Any]
) -> Tracker:
    """Make the run folder and the wandb run; the first process does it for all."""
    run = start.run
    data.fits.keep()  # each process what it has made
    if not distributed.is_main():
        return Tracker(run, None)
    run.remove_abandoned()
    with whole_file(run.config) as file:
        file.write(to_yaml(config).encode())
    write_json(run.split, data.split.to_json())
    run.interrupted.unlink(missing_ok=True)
    if start.checkpoint is None:  # left by a start that was killed before its first checkpoint
        run.metrics.unlink(missing_ok=True)
    listing = Listing(constants["wandb_id"], run.dir.name, config.kind, "train", (config.kind, config.mode))
    shown = {**constants["config"], "run": facts_of(start, config, data, network, constants)}
    wandb_run = start_wandb(start.args.wandb, run, start.listed(listing), shown)
    tracker = Tracker(run, wandb_run, sends_best=start.args.wandb_best)
    tracker.define(definitions(data.tasks, network.updates.groups))
    samples = {f"samples/{task}": count for task, count in constants["samples"].items()}
    tracker.summarise(samples)
    if start.checkpoint is None:
        tracker.log(samples, 0)
    return tracker


def facts_of(
    start: Start, config: RunConfig, data: RunData, network: Network, constants: Mapping[str, Any]
) -> dict[str, Any]:
    """What a dashboard's table may be sorted by, beside the config."""
    return {
        "name": start.run.dir.name,
        "script": f"train_{config.kind}.py",
        "kind": config.kind,
        "mode": config.mode,
        "commit": constants["git_commit"],
        "data_sets": sorted(constants["datasets"]),
        "split": {name: len(frames) for name, frames in data.split.to_json().items()},  # in frames
        "samples": {"train": len(data.train), "val": len(data.val), **constants["samples"]},
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "init_from": constants.get("init_from"),
        "baseline": constants.get("baseline"),
        "processes": distributed.processes(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def score(results: Results, constant: Results, config: RunConfig, data: RunData) -> float:
    """What decides which checkpoint is best: a task's own metric, or the mean over tasks on a common scale."""
    if not config.compares_tasks:
        ((name, task),) = data.tasks.items()
        return task.score(results[name])
    trained = [name for name, count in data.samples_per_task().items() if count]
    scores = [data.tasks[name].relative_score(results[name], constant.get(name, {})) for name in trained]
    return sum(scores) / len(scores)


def gain(results: Results, baseline: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
    """Delta-m of a validation (training/comparison.py), a fraction."""
    return delta_m(deciding_values(results, tasks), baseline, tasks)


def train(trainer: Trainer) -> None:
    """Run the loop to its end or to a signal; KeyboardInterrupt where a person stopped it."""
    run, by_person = trainer.run, False
    try:
        trainer.train()
        print(f"done; best epoch {trainer.best['epoch']}: {run.best}" if trainer.best else f"done; {run.last}")
    except Interrupted as interrupted:
        by_person = interrupted.by_person
        if not by_person and distributed.is_main():
            mark_interrupted(run, trainer.updates.samples_seen)
            print(f"{run.interrupted} tells job scripts of it")
        print(f"interrupted; saved {run.last}; go on with --resume auto")
    finally:
        signals.when_ended(None)
        if not isinstance(sys.exception(), KeyboardInterrupt):  # who presses twice does not wait for a dashboard
            trainer.tracker.finish()
    distributed.stop()
    if by_person:
        raise KeyboardInterrupt


def check_size(size: list[int], network: TaskNetwork, config: Path) -> None:
    """UserError unless the network takes images of this size (W, H)."""
    if any(side % network.divisor for side in size):
        raise UserError(f"{config}: data.size: {size} are no multiples of {network.divisor}: the network halves them")


def check_norms(model: nn.Module, start: Start, data: RunData) -> None:
    """UserError where batch norm would learn statistics that mix unlike data sets."""
    if len(data.roots) > 1 and training_batch_norms(model) and not start.args.force_trained_norms:
        raise UserError(
            "norm: train learns statistics over micro-batches that mix the data sets "
            f"{', '.join(data.roots)}; set norm to group or frozen, or say --force-trained-norms"
        )


def check_precision(balancing: Balancing, precision: Precision) -> None:
    if isinstance(balancing, Rows) and precision.dtype is torch.float16:
        raise UserError("training.precision: balancing by a gradient for each task needs bf16 or fp32, not fp16")


def check_frozen(config: RunConfig, balancing: Balancing) -> None:
    """UserError where gradients of the tasks are asked for that a frozen group does not have."""
    frozen, training = config.training.freeze, config.training
    if frozen and (isinstance(balancing, Rows) or (training.similarity_every and BACKBONE in frozen)):
        raise UserError(
            "training.freeze works neither with balancing by a gradient for each task nor, for the backbone, with "
            "similarity_every"
        )


def check_sync_bn(config: RunConfig, model: nn.Module, balancing: Balancing, device: torch.device) -> None:
    """UserError where batch norm can't be synchronised: every process must go backward as often as all others."""
    if not config.training.sync_bn:
        return
    if isinstance(balancing, Rows) or config.training.similarity_every:
        raise UserError(
            "training.sync_bn works neither with balancing by a gradient for each task nor with similarity_every"
        )
    if not training_batch_norms(model):
        raise UserError("training.sync_bn needs norm: train; the network has no batch norm whose statistics learn")
    if device.type != "cuda":
        raise UserError("training.sync_bn: torch synchronises batch norm on GPUs only; set it to false")
