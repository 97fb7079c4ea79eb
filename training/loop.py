"""The one training loop: micro-batches accumulate, groups step at the borders of blocks, tasks judge."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.a2d2 import A2D2, Batch
from datasets.layout import RunDir
from datasets.sampling import MicroBatchSampler, Sampling, epoch_order
from datasets.transforms import Augmentation
from errors import UserError
from models.multitask import BACKBONE
from progress import progress, warn
from tasks.base import Task
from training import checkpoint
from training.balancing import Aggregated, Balancing, GradientSimilarity
from training.config import TrainingConfig
from training.evaluation import Precision, Results, evaluate, make_loader
from training.panels import Panels
from training.tracking import Tracker, TrainingLog
from training.updates import StepReport, Updates


class Interrupted(Exception):
    """SIGTERM or SIGUSR1 came; everything is saved."""


@dataclass
class Position:
    """Where training stands."""

    epoch: int = 0  # epochs trained
    micro_batches: int = 0  # micro-batches trained of the epoch that follows
    validated: bool = True  # whether the last trained epoch has been validated (or needs not be)


class StopFlag:
    """Set by SIGTERM and SIGUSR1: finish the micro-batch in hand, save, leave. Handlers set a flag and nothing else."""

    def __init__(self) -> None:
        self.raised = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._raise)

    def _raise(self, number: int, stack: Any) -> None:
        self.raised = True


@dataclass(frozen=True)
class Data:
    """What to train on and in which portions."""

    train: A2D2
    val: A2D2
    block_size: int
    micro_batch_size: int
    sampling: Sampling
    workers: int


class Trainer:
    """Trains `model` on the tasks' labels; keeps `last.pt` and `best.pt`.

    model: forward(images uint8 B x 3 x H x W, tasks) -> {task: output}.
    A task's loss reaches the groups of parameters named BACKBONE and like the task.
    score: results of a validation -> one number, the higher the better; decides which checkpoint is best.
    constants: what checkpoints hold beside the state (config, split, class lists ...).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tasks: Mapping[str, Task],
        balancing: Balancing,
        updates: Updates,
        augmentation: Augmentation,
        score: Callable[[Results], float],
        data: Data,
        config: TrainingConfig,
        precision: Precision,
        seed: int,
        run: RunDir,
        tracker: Tracker,
        constants: dict[str, Any],
    ):
        self.model, self.tasks, self.balancing, self.updates = model, tasks, balancing, updates
        self.augmentation, self.score = augmentation, score
        self.data, self.config, self.seed, self.precision, self.device = data, config, seed, precision, precision.device
        self.run, self.tracker, self.constants = run, tracker, constants
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.forward = torch.compile(model) if config.compile else model
        self.position = Position()
        self.best: dict[str, Any] = {}  # score, epoch and results of the best validation
        self.unreadable: set[str] = set()
        self.log = TrainingLog(tracker, config.log_every)
        measured = BACKBONE in updates.groups and not isinstance(balancing, Aggregated)  # which has them at every step
        shared = updates.groups[BACKBONE].parameters if measured else []
        self.similarity = GradientSimilarity(shared, config.similarity_every if measured else 0)
        self.panels = Panels(data.val, tasks, config.images, precision, run, tracker)
        self.sampler = MicroBatchSampler()
        self.train_loader = make_loader(data.train, tasks, data.workers, self.device, batch_sampler=self.sampler)
        self.val_loader = make_loader(data.val, tasks, data.workers, self.device, batch_size=data.micro_batch_size)

    # ---- training ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the last epoch. Raises Interrupted after a signal, with everything saved."""
        stop = StopFlag()
        while self.position.epoch < self.config.epochs or not self.position.validated:
            if self.position.validated:
                self._train_epoch(stop)
            if not self.position.validated:
                results = self._validate(stop)
                self.position.validated = True  # best.pt says so too: whoever resumes from it goes on with training
                self._keep_if_best(results)
            self._save(self.run.last)
            if stop.raised and self.position.epoch < self.config.epochs:
                raise Interrupted

    def _train_epoch(self, stop: StopFlag) -> None:
        """Train what is left of the epoch; then move the position to the next one."""
        data, epoch = self.data, self.position.epoch
        sizes = data.block_size, data.micro_batch_size
        order = epoch_order(data.train.samples, *sizes, self.seed, epoch, data.sampling)
        order = order[self.position.micro_batches :]
        self.sampler.order = order
        self.model.train()
        self.log.start_clock(self.updates)
        name, samples = f"epoch {epoch + 1}/{self.config.epochs}", sum(len(part.samples) for part in order)
        parts = progress(
            zip(order, self.train_loader, strict=True), samples, name, self.log.shown, lambda part: len(part[0].samples)
        )
        for micro_batch, batch in parts:
            self._note_unreadable(batch)
            if batch.targets:
                self._accumulate(self.augmentation(batch.to(self.device), self.tasks, epoch))
            self.updates.samples_seen += len(micro_batch.samples)
            self.position.micro_batches += 1
            if micro_batch.ends_block:
                self._after(self.updates.step_full_groups, batch)
            if stop.raised and micro_batch is not order[-1]:
                self._save(self.run.last)
                raise Interrupted
        self._after(self.updates.step_rest, batch)
        self.log.write(self.updates)
        done = epoch + 1
        due = done % self.config.validate_every == 0 or done == self.config.epochs
        self.position = Position(done, validated=not due)

    def _accumulate(self, batch: Batch) -> None:
        """Forward, backward on the weighted sum of the samples' losses, count."""
        with self.precision.autocast():
            outputs = self.forward(batch.images.contiguous(memory_format=self.memory_format), tuple(batch.targets))
        losses, valid = {}, {}
        for name, target in batch.targets.items():
            losses[name], valid[name] = self.tasks[name].loss(outputs[name], target)  # B, B
        self.similarity.record(losses, valid)
        self.balancing.backward(losses, valid, self.updates.loss_scale.value)
        self._count(losses, valid, batch)

    def _count(self, losses: Mapping[str, Tensor], valid: Mapping[str, Tensor], batch: Batch) -> None:
        """Count the samples for the groups that they reach; one transfer from the device a micro-batch."""
        reached = {name: valid[name] for name in losses}
        if BACKBONE in self.updates.groups:
            reached[BACKBONE] = torch.stack(list(valid.values())).any(0)
        sums = [losses[name].detach().sum() for name in losses] + [mask.sum() for mask in reached.values()]
        numbers = torch.stack([value.double() for value in sums]).tolist()
        counts = dict(zip(reached, map(int, numbers[len(losses) :]), strict=True))
        for name, loss in zip(losses, numbers, strict=False):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss of {name}", batch)
            self.log.add_loss(name, loss, counts[name])
        self.updates.add(counts)

    def _after(self, step: Callable[[], list[StepReport]], batch: Batch) -> None:
        """Step groups and log what they did."""
        overflows = self.updates.overflows
        try:
            reports = step()
        except FloatingPointError as error:
            raise self._diverged(str(error).removesuffix(" is not finite"), batch) from None
        if self.updates.overflows > overflows:
            warn(f"a gradient overflowed and was dropped; the loss scale is now {self.updates.loss_scale.value:g}")
        if any(report.group == BACKBONE for report in reports):
            similarities = self.balancing.similarities or self.similarity.stepped()
            self.log.note({f"similarity/{pair}": value for pair, value in similarities.items()})
        self.log.note({f"weight/{task}": weight for task, weight in self.balancing.weights().items()})
        self.log.steps(reports, self.updates)

    def _diverged(self, what: str, batch: Batch) -> UserError:
        frames = ", ".join(map(str, batch.frames))
        return UserError(
            f"{what} is not finite in epoch {self.position.epoch + 1}, frames {frames}; the checkpoints in "
            f"{self.run.dir} are those from before; lower the learning rate or look at these frames"
        )

    def _note_unreadable(self, batch: Batch) -> None:
        for reason in set(batch.unreadable) - self.unreadable:
            self.unreadable.add(reason)
            warn(f"warning: left out, {len(self.unreadable)} so far: {reason}")

    # ---- validation -------------------------------------------------------------------------------------------

    def _validate(self, stop: StopFlag) -> Results:
        self.model.eval()
        batches = self._stoppable(stop, progress(self.val_loader, len(self.val_loader), "validation"))
        last = self.position.epoch == self.config.epochs
        look = partial(self.panels.show_plots, samples=self.updates.samples_seen) if last else None
        results = evaluate(self.forward, self.tasks, batches, self.precision, look)
        trained = {name for sample in self.data.train.samples for name in sample.tasks}
        if missing := [name for name in self.tasks if name in trained and name not in results]:
            raise UserError(f"no validation frame has a readable and valid label of {', '.join(missing)}")
        values = {f"val/{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
        self.tracker.log({"epoch": self.position.epoch, **values}, self.updates.samples_seen)
        for task, scores in results.items():
            shown = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if "/" not in name)
            print(f"epoch {self.position.epoch}/{self.config.epochs} {task}: {shown}", flush=True)
        self.panels.show(self.model, results, self.position.epoch, self.updates.samples_seen)
        return results

    def _stoppable(self, stop: StopFlag, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._note_unreadable(batch)
            yield batch
            if stop.raised:
                self._save(self.run.last)
                raise Interrupted

    def _keep_if_best(self, results: Results) -> None:
        score = self.score(results)
        if not self.best or score > self.best["score"] or math.isnan(self.best["score"]):
            self.best = {"score": score, "epoch": self.position.epoch, "results": results}
            self._save(self.run.best)
            best = {f"best/{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
            self.tracker.summarise({"best/epoch": self.position.epoch, **best})

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def _save(self, path: Path) -> None:
        checkpoint.save(path, {**self.constants, **self.state()})

    def state(self) -> dict[str, Any]:
        """Everything that changes during training."""
        return {
            "model": self.model.state_dict(),
            "updates": self.updates.state(),
            "balancing": self.balancing.state(),
            "similarity": self.similarity.state(),
            "tasks": {name: task.state() for name, task in self.tasks.items()},
            "position": asdict(self.position),
            "best": self.best,
            "unreadable": sorted(self.unreadable),
            "log": self.log.state(),
            "random": checkpoint.random_states(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state (the tasks' states were restored when the network was built)."""
        self.model.load_state_dict(state["model"])
        self.updates.load_state(state["updates"])
        self.balancing.load_state(state["balancing"])
        self.similarity.load_state(state["similarity"])
        self.position = Position(**state["position"])
        self.best, self.unreadable = state["best"], set(state["unreadable"])
        self.log.load_state(state["log"])
        checkpoint.restore_random_states(state["random"])
        self.tracker.forget_after(self.updates.samples_seen)
