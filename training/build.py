"""From a config to a trainer: tasks, samples, network, groups. The same for all training scripts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from datasets.labels import Labelled
from datasets.samples import LabelledFrames, Sample
from datasets.sampling import epoch_order
from datasets.transforms import Augmentation
from errors import UserError
from models.memory_format import lay_out
from models.multitask import BACKBONE
from models.norms import training_batch_norms
from tasks.base import Task
from training import distributed
from training.evaluation import Precision, Results
from training.fits import labels_of
from training.loop import Data, Trainer
from training.methods.base import Balancing
from training.methods.rows import Rows
from training.runs import RunConfig
from training.session import Session, check_size
from training.updates import Group, LossScale, Schedule, Updates


@dataclass
class Plan:
    """What a run will do: everything but the loop, so that --dry-run can tell it."""

    session: Session
    tasks: dict[str, Task]
    by_kind: Labelled  # kind -> the training frames that keep its label
    labelled: Labelled  # task -> the same, of the data sets that it is bound to
    data: Data
    model: nn.Module
    balancing: Balancing
    updates: Updates
    precision: Precision

    @classmethod
    def make(cls, session: Session) -> "Plan":
        """UserError where data, config and network do not fit together."""
        config, mode = session.config, session.mode
        tasks, by_kind = config.make_tasks(mode, session.labels), session.labelled()
        labelled = session.of_tasks(by_kind)
        data = make_data(session, tasks, labelled)
        session.prepare_tasks(tasks, labelled)

        model = config.make_model(mode, tasks)
        check_size(config.data.size, model, session.args.config)
        check_norms(model, session)
        if session.checkpoint is None:
            config.load_pretrained(model, tasks)
        lay_out(model.to(session.device), channels_last=config.training.channels_last)

        precision = Precision(config.training.precision, session.device)
        balancing = config.make_balancing(mode, model, tasks)
        check_precision(balancing, precision)
        check_sync_bn(config, model, balancing, session.device)
        updates = make_updates(session, model, balancing, data, precision)
        return cls(session, tasks, by_kind, labelled, data, model, balancing, updates, precision)

    def trainer(self) -> Trainer:
        """The loop over this plan; makes the run folder."""
        session, config = self.session, self.session.config
        lists = self.data.lists()
        session.accepted_changes(lists)  # before the run's folder is touched
        constants = {**session.constants(), "samples": self.samples_per_task(), "sample_lists": lists, "constant": {}}
        if config.compares_tasks:
            constants["constant"] = session.constant_results(self.tasks, self.labelled, self.data)
        tracker = session.start(constants)
        samples = {f"samples/{task}": count for task, count in constants["samples"].items()}
        tracker.summarise(samples)
        if session.checkpoint is None:
            tracker.log(samples, 0)
        return Trainer(
            model=self.model,
            tasks=self.tasks,
            balancing=self.balancing,
            updates=self.updates,
            augmentation=Augmentation(**config.augmentation.model_dump(), seed=config.seed),
            score=lambda results: self.score(results, constants["constant"]),
            data=self.data,
            config=config.training,
            precision=self.precision,
            seed=config.seed,
            run=session.run,
            tracker=tracker,
            constants=constants,
        )

    def score(self, results: Results, constant: Results) -> float:
        """What decides which checkpoint is best: a task's own metric, or the mean over tasks on a common scale."""
        if not self.session.config.compares_tasks:
            ((name, task),) = self.tasks.items()
            return task.score(results[name])
        trained = [name for name, count in self.samples_per_task().items() if count]
        scores = [self.tasks[name].relative_score(results[name], constant.get(name, {})) for name in trained]
        return sum(scores) / len(scores)

    def samples_per_task(self) -> dict[str, int]:
        """How many training samples carry each label."""
        counts = Counter(task for sample in self.data.train.samples for task in sample.tasks)
        return {name: counts[name] for name in self.tasks}

    def describe(self) -> str:
        """Frames, samples, steps and parameters, in a few lines."""
        session, config, samples = self.session, self.session.config, self.samples_per_task()
        used = {sample.frame for sample in self.data.train.samples}
        left_out = {frame for name in self.tasks for frame in self.labelled[name]} - used
        trained = {task.kind for task in self.tasks.values()}
        others = {kind: len(frames) for kind, frames in self.by_kind.items() if kind not in trained and frames}
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return "\n".join(
            [
                f"split: {session.split.summary()}",
                f"training samples: {len(self.data.train)}, of {len(used)} frames; with a label of "
                f"{listed(samples)}; "
                f"{len(left_out)} frames left out for want of a label"
                + (f"; fell to kinds that this run does not train: {listed(others)}" if others else ""),
                f"validation samples: {len(self.data.val.samples)}",
                f"samples planned: {config.training.epochs * len(self.data.train)}, "
                f"in blocks of {self.data.block_size}; an epoch has {', '.join(self.paces())}",
                f"parameters: {parameters / 1e6:.2f} M; precision {self.precision.name}; device {session.device}"
                + (f"; {distributed.processes()} processes" if distributed.processes() > 1 else ""),
            ]
        )

    def paces(self) -> list[str]:
        """Each group's steps in the first epoch and the mean count at which it steps (if all labels are valid)."""
        samples = self.data.train.samples
        counts, steps, seen = Counter(), Counter(), Counter()
        for block in epoch_order(samples, self.data.block_size, self.session.config.seed, 0, self.data.sampling):
            counts[BACKBONE] += len(block)
            counts.update(task for visit in block for task in samples[visit.place].tasks)
            for name, group in self.updates.groups.items():
                if counts[name] and (self.updates.together or counts[name] >= group.config.batch_size):
                    steps[name] += 1
                    seen[name] += counts.pop(name)
        for name in self.updates.groups:  # what is left at the epoch's end steps too
            steps[name] += counts[name] > 0
            seen[name] += counts[name]
        return [f"{name} {steps[name]} steps of {seen[name] / max(steps[name], 1):.3g}" for name in self.updates.groups]


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def make_data(session: Session, tasks: Mapping[str, Task], labelled: Labelled) -> Data:
    config, mode, roots = session.config, session.mode, session.roots
    train, val = config.make_samples(mode, labelled), session.validation_samples(tasks)
    for part, samples in (("train", train), ("val", val)):
        if not samples and session.split.of(part):
            frames = len(session.split.of(part))
            raise UserError(f"none of the {frames} {part} frames has the labels that {mode} needs: {', '.join(tasks)}")
    if session.split.val:
        check_scorable(session, tasks, train, val)
    sampling = config.sampling_of(mode)
    drawn = {task for sample in train for task in sample.tasks if isinstance(sampling, str) or sampling.get(task)}
    if not drawn:
        raise UserError(f"sampling: none of the training frames has a label of {', '.join(sampling)}")
    return Data(
        train=LabelledFrames(roots, tasks, train),
        val=LabelledFrames(roots, tasks, val),
        block_size=config.block_size_of(mode),
        micro_batch_size=config.micro_batch_size_of(mode),
        sampling=sampling,
        workers=config.data.workers,
        bound=session.bound,
    )


def check_scorable(session: Session, tasks: Mapping[str, Task], train: list[Sample], val: list[Sample]) -> None:
    """UserError where a trained task's deciding metric can't be a number: no validation label says anything."""
    trained = {name for sample in train for name in sample.tasks}
    distributed.from_main(
        lambda: [_check_scorable(session, task, val) for name, task in tasks.items() if name in trained]
    )


def _check_scorable(session: Session, task: Task, val: list[Sample]) -> None:
    frames = [sample.frame for sample in val if task.name in sample.tasks]
    if not any(map(task.scorable, labels_of(task, session.roots, frames))):
        raise UserError(
            f"{task.name}: {task.best_metric_title} over the {len(val)} validation frames would not be a number: "
            f"{task.unscorable}; use more frames, or another data.split"
        )


def make_groups(config: RunConfig, mode: str, model: nn.Module, balancing: Balancing) -> list[Group]:
    """The network's groups of parameters with their optimisers; the balancing's own parameters join their heads'."""
    configs = config.groups_of(mode)
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
    ]


def make_updates(session: Session, model: nn.Module, balancing: Balancing, data: Data, precision: Precision) -> Updates:
    config = session.config
    return Updates(
        make_groups(config, session.mode, model, balancing),
        schedule=Schedule.over(config.training.epochs * len(data.train), config.training.warmup),
        loss_scale=LossScale(enabled=precision.dtype is torch.float16),
        together=config.steps_together,
    )


def check_norms(model: nn.Module, session: Session) -> None:
    """UserError where batch norm would learn statistics that mix unlike data sets."""
    if len(session.roots) > 1 and training_batch_norms(model) and not session.args.force_trained_norms:
        raise UserError(
            "norm: train learns statistics over micro-batches that mix the data sets "
            f"{', '.join(session.roots)}; set norm to group or frozen, or say --force-trained-norms"
        )


def check_precision(balancing: Balancing, precision: Precision) -> None:
    if isinstance(balancing, Rows) and precision.dtype is torch.float16:
        raise UserError("training.precision: balancing by gradients does not work with fp16; set it to bf16 or fp32")


def check_sync_bn(config: RunConfig, model: nn.Module, balancing: Balancing, device: torch.device) -> None:
    """UserError where batch norm can't be synchronised: every process must go backward as often as all others."""
    if not config.training.sync_bn:
        return
    if isinstance(balancing, Rows) or config.training.similarity_every:
        raise UserError("training.sync_bn works neither with balancing by gradients nor with similarity_every")
    if not training_batch_norms(model):
        raise UserError("training.sync_bn needs norm: train; the network has no batch norm whose statistics learn")
    if device.type != "cuda":
        raise UserError("training.sync_bn: torch synchronises batch norm on GPUs only; set it to false")
