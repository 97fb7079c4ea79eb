"""The one training loop: micro-batches accumulate, groups step at the borders of blocks, tasks judge."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets.layout import RunDir
from datasets.samples import Batch, LabelledFrames
from datasets.sampling import Block, MicroBatchSampler, epoch_order, micro_batches
from datasets.transforms import Augmentation
from errors import UserError
from models.base import TaskNetwork
from models.multitask import BACKBONE
from progress import progress, warn
from tasks.base import Task
from training import checkpoint, distributed
from training.averaging import MovingAverage
from training.config import TrainingConfig
from training.data import Data
from training.evaluation import Precision, Results, evaluate, make_loader
from training.methods.base import Balancing
from training.panels import Panels
from training.step import Sums, accumulate
from training.stopping import StopFlag
from training.tracking import Pace, Tracker, TrainingLog, is_of_class
from training.updates import StepReport, Updates


class Interrupted(Exception):
    """A signal or the stop file came; everything is saved."""

    def __init__(self, by_person: bool):
        self.by_person = by_person  # by Ctrl-C
        super().__init__()


@dataclass
class Position:
    """Where training stands."""

    epoch: int = 0  # epochs trained
    samples: int = 0  # samples seen in them
    blocks: int = 0  # blocks trained of the epoch that follows
    validated: bool = True  # whether the last trained epoch has been validated (or needs not be)


class Trainer:
    """Trains `model` on the tasks' labels; keeps `last.pt` and `best.pt`.

    model: forward(images uint8 B x 3 x H x W, places) -> {task: output}, as in models/multitask.py.
    A task's loss reaches the groups of parameters named BACKBONE and like the task.
    score: results of a validation -> one number, the higher the better; decides which checkpoint is best.
    constants: what checkpoints hold beside the state (config, split, class lists ...).
    gain: results of a validation -> Delta-m, where baselines are known; decides nothing.
    """

    def __init__(
        self,
        *,
        model: TaskNetwork,
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
        gain: Callable[[Results], float] | None = None,
    ):
        self.model, self.tasks, self.balancing, self.updates = model, tasks, balancing, updates
        self.augmentation, self.score, self.gain = augmentation, score, gain
        self.data, self.config, self.seed, self.precision, self.device = data, config, seed, precision, precision.device
        self.run, self.tracker, self.constants = run, tracker, constants
        self.average = MovingAverage(model, copy.deepcopy(model), config.ema) if config.ema else None
        self.judged = self.average.model if self.average else model  # what is validated, and saved as the result
        if config.sync_bn:
            distributed.sync_batch_norm(model)
        if config.compile:
            for part in dict.fromkeys([*model.parts(), *self.judged.parts()]):
                part.compile()
        self.position = Position()
        self.best: dict[str, Any] = {}  # score, epoch and results of the best validation
        self.unreadable: set[str] = set()
        self.log = TrainingLog(tracker, config.log_every, balancing.weights)
        self.panels = Panels(data.val, tasks, config, precision, run, tracker)
        self.sampler = MicroBatchSampler()
        self.train_loader = make_loader(data.train, tasks, data.workers, self.device, batch_sampler=self.sampler)
        own = LabelledFrames(data.val.roots, tasks, data.val.samples[distributed.rank() :: distributed.processes()])
        self.val_loader = make_loader(own, tasks, data.workers, self.device, batch_size=data.micro_batch_size)

    # ---- training ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the last epoch. Raises Interrupted after a signal, with everything saved."""
        self.pace = Pace(self.updates.samples_seen)
        with StopFlag() as stop:
            self._train(stop)

    def _train(self, stop: StopFlag) -> None:
        if not distributed.is_main():  # dropout differs between processes
            torch.manual_seed(self.seed + 1_000_003 * distributed.rank() + self.updates.samples_seen)
        finished = self._finished()
        while not self._finished():
            if self.position.validated:
                self._train_epoch(stop)
            if not self.position.validated:
                results, score = self._validate(stop)
                self._check_validation(results, score)
                if not self.best:  # a run that has best.pt has last.pt: without it --resume auto would start anew
                    self._save(self.run.last)
                self.position.validated = True  # best.pt says so too: whoever resumes from it goes on with training
                self._keep_if_best(results, score)
                self.panels.keep(self.best["epoch"], self.position.epoch)
            self._save(self.run.last)
            print(f"epoch {self.position.epoch}/{self.config.epochs}: {self._standing()}", flush=True)
            if self._any(stop.raised) and not self._finished():
                raise Interrupted(stop.by_person)
        if self.position.epoch < self.config.epochs:
            print(f"stopped: no better score in {self.config.patience} validations", flush=True)
        if self.best and not finished:
            self.panels.show_classes(self.best["results"], self.updates.samples_seen)
            self.tracker.send_best()

    def _finished(self) -> bool:
        done = self.position.epoch >= self.config.epochs or self._without_gain(self.config.patience)
        return done and self.position.validated

    def _without_gain(self, validations: int | None) -> bool:
        """Whether so many validations at least have passed since the best one; None: never."""
        if validations is None or not self.best:
            return False
        return (self.position.epoch - self.best["epoch"]) // self.config.validate_every >= validations

    def _standing(self) -> str:
        """What a log says after an epoch: the best score, how fast it goes, and how long it will take."""
        left = (self.config.epochs - self.position.epoch) * len(self.data.train.samples)
        best = f"best score {self.best['score']:.4g}, epoch {self.best['epoch']}; " if self.best else ""
        rates = " ".join(f"{name} {group.learning_rate:.2g}" for name, group in self.updates.groups.items())
        memory = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else 0
        on_device = f"; {memory:.1f} GB of GPU memory" if memory else ""
        return f"{best}{self.pace.shown(self.updates.samples_seen, left)}; learning rates {rates}{on_device}"

    def _train_epoch(self, stop: StopFlag) -> None:
        """Train what is left of the epoch; then move the position to the next one."""
        data, epoch = self.data, self.position.epoch
        order = epoch_order(data.train.samples, data.block_size, self.seed, epoch, data.sampling)
        order = order[self.position.blocks :]
        mine = [self._share(block) for block in order]
        self.sampler.order = [part for parts in mine for part in parts]
        loaded = iter(self.train_loader)
        self.model.train()
        for part in self.model.parts():  # a frozen one keeps its statistics and drops nothing
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        self.log.start_clock(self.updates)
        name, samples = f"epoch {epoch + 1}/{self.config.epochs}", sum(map(len, order))
        blocks = progress(zip(order, mine, strict=True), samples, name, self.log.progress, lambda item: len(item[0]))
        for block, parts in blocks:
            sums = Sums()
            for i in range(self._rounds(block)):
                sums += self._accumulate(next(loaded) if i < len(parts) else None)
            self.position.blocks += 1
            stopping = self._close(block, sums, stop)
            if stopping and block is not order[-1]:
                self._save(self.run.last)
                raise Interrupted(stop.by_person)
        self._step(self.updates.step_rest, order[-1])
        self.balancing.epoch_ended()
        self.log.write(self.updates)
        done = epoch + 1
        due = len(self.data.val) > 0 and (done % self.config.validate_every == 0 or done == self.config.epochs)
        self.position = Position(done, self.updates.samples_seen, validated=not due)

    def _share(self, block: Block) -> list[Block]:
        """This process's micro-batches of a block."""
        return micro_batches(block, self.data.micro_batch_size, distributed.rank(), distributed.processes())

    def _rounds(self, block: Block) -> int:
        """The most micro-batches that any process has of a block."""
        return math.ceil(len(block) / (self.data.micro_batch_size * distributed.processes()))

    def _accumulate(self, batch: Batch | None) -> Sums:
        """A micro-batch as it comes from the loader; None: other processes have one."""
        if batch is not None:
            self._note_unreadable(batch)
            batch = self.augmentation(batch.to(self.device), self.tasks, self.position.epoch) if batch.targets else None
        return accumulate(self.model, batch, self.tasks, self.balancing, self.precision, self.updates.loss_scale.value)

    def _close(self, block: Block, sums: Sums, stop: StopFlag) -> bool:
        """A block's border: count its samples, step the groups that are full -> whether to stop."""
        losses, counts, stopping = sums.total(list(self.tasks), list(self.updates.seen), self.device, stop=stop.raised)
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise self._diverged(f"the loss of {name}", sums.culprits())
            self.log.add_loss(name, loss, counts[name])
        self._step(partial(self.updates.close, len(block), counts), block)
        return stopping

    def _any(self, flag: bool) -> bool:
        """Whether the flag is raised in one of the processes."""
        return distributed.count_raised(flag, self.device) > 0

    def _step(self, step: Callable[[], list[StepReport]], block: Block) -> None:
        """Step groups and log what they did."""
        overflows = self.updates.overflows
        try:
            reports = step()
        except FloatingPointError as error:
            frames = [str(self.data.train.samples[visit.place].frame) for visit in block]
            raise self._diverged(str(error).removesuffix(" is not finite"), frames) from None
        if self.updates.overflows > overflows:
            warn(f"a gradient overflowed and was dropped; the loss scale is now {self.updates.loss_scale.value:g}")
        if any(report.group == BACKBONE for report in reports):
            similarities = self.balancing.shared_stepped()
            self.log.note({f"similarity/{pair}": value for pair, value in similarities.items()})
        if reports and self.average:
            self.average.update()
        self.log.steps(reports, self.updates)

    def _diverged(self, what: str, frames: list[str] | None = None) -> UserError:
        """frames: those that may be the cause, where they are known."""
        frames = frames or []
        named = ", ".join(frames[:8]) + (f" and {len(frames) - 8} more" if len(frames) > 8 else "")
        in_epoch = bool(frames or self.position.blocks)  # else after it: the position has moved on
        epoch = self.position.epoch + in_epoch
        where, look = (f", frames {named}", " or look at these frames") if frames else ("", "")
        return UserError(
            f"{what} is not finite in epoch {epoch}{where}; the checkpoints in {self.run.dir} are those from before; "
            f"lower the learning rate{look}"
        )

    def _note_unreadable(self, batch: Batch) -> None:
        for reason in set(batch.unreadable) - self.unreadable:
            self.unreadable.add(reason)
            warn(f"warning: left out, {len(self.unreadable)} so far: {reason}")

    # ---- validation -------------------------------------------------------------------------------------------

    def _validate(self, stop: StopFlag) -> tuple[Results, float]:
        """Its results and their score, what decides whether this is the best checkpoint."""
        self._merge_buffers()
        self.judged.eval()
        batches = self._stoppable(stop)
        last = self.position.epoch == self.config.epochs or self._without_gain(self.config.patience)
        look = partial(self.panels.show_plots, samples=self.updates.samples_seen) if last else None
        results = evaluate(self.judged, self.tasks, batches, self.precision, look, self.data.bound)
        trained = {name for sample in self.data.train.samples for name in sample.tasks}
        if missing := [name for name in self.tasks if name in trained and name not in results]:
            raise UserError(f"no validation frame has a readable and valid label of {', '.join(missing)}")
        values = {f"val/{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
        score = self.score(results)
        whole = {"val/score": score, "val/best_score": max(score, self.best.get("score", -math.inf))}
        if self.gain:
            whole["val/delta_m"] = self.gain(results)
        self.tracker.log({"epoch": self.position.epoch, **whole, **values}, self.updates.samples_seen)
        width = max(map(len, results), default=0)
        for task, scores in results.items():
            written = {self.tasks[task].written(name): value for name, value in scores.items() if "/" not in name}
            shown = ", ".join(f"{metric.title} {metric.with_unit(value)}" for metric, value in written.items())
            print(f"epoch {self.position.epoch}/{self.config.epochs} {task:{width}}: {shown}", flush=True)
        self.panels.show(self.judged, self.position.epoch, self.updates.samples_seen)
        return results, score

    def _stoppable(self, stop: StopFlag) -> Iterator[Batch]:
        """This process's validation batches; every process takes as many turns, so that all stop together."""
        rounds = math.ceil(len(self.data.val) / (distributed.processes() * self.data.micro_batch_size))
        loaded = iter(self.val_loader)
        for _ in progress(range(rounds), rounds, "validation"):
            batch = next(loaded, None)
            if batch is not None:
                self._note_unreadable(batch)
                yield batch
            if self._any(stop.raised):
                self._save(self.run.last)
                raise Interrupted(stop.by_person)

    def _check_validation(self, results: Results, score: float) -> None:
        """UserError where the network has diverged."""
        numbers = {f"the validation loss of {name}": scores["loss"] for name, scores in results.items()}
        for what, number in {**numbers, "the score": score}.items():
            if not math.isfinite(number):
                raise self._diverged(what)

    def _keep_if_best(self, results: Results, score: float) -> None:
        if not self.best or score > self.best["score"]:
            self.best = {"score": score, "epoch": self.position.epoch, "results": results}
            self._save(self.run.best)
            best = {f"best/{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
            best = {name: value for name, value in best.items() if not is_of_class(name)}
            self.tracker.summarise({"best/epoch": self.position.epoch, "best/score": score, **best})

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def _save(self, path: Path) -> None:
        """Every process takes part, the first writes. UserError, and nothing is written, where something diverged."""
        self._merge_buffers()
        self._collect()
        state = self.state()
        if what := checkpoint.first_not_finite(checkpoint.state_tensors(state)):
            raise self._diverged(what)
        if distributed.is_main():
            checkpoint.save(path, {**self.constants, **state})

    def _merge_buffers(self) -> None:
        """Batch norm's statistics of all processes become each one's, and the average's."""
        distributed.average_batch_norm(self.model)
        if self.average:
            self.average.copy_buffers()

    def _collect(self) -> None:
        """What the processes hold in parts becomes the first one's."""
        self.unreadable = distributed.union(self.unreadable)
        self.updates.collect()
        self.balancing.collect()

    def state(self) -> dict[str, Any]:
        """Everything that changes during training: the first process's is the run's, once it has been collected."""
        return {
            "model": self.judged.state_dict(),
            **({"average": self.average.state()} if self.average else {}),
            "updates": self.updates.state(),
            "balancing": self.balancing.state(),
            "tasks": {name: task.state() for name, task in self.tasks.items()},
            "position": asdict(self.position),
            "best": self.best,
            "unreadable": sorted(self.unreadable),
            "log": self.log.state(),
            "random": checkpoint.random_states(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state (the tasks' states were restored when the network was built)."""
        if self.average:
            self.average.load_state(state["model"], state["average"])
        else:
            self.model.load_state_dict(state["model"])
        self.updates.load_state(state["updates"])
        self.balancing.load_state(state["balancing"])
        self.position = Position(**state["position"])
        self.best, self.unreadable = state["best"], set(state["unreadable"])
        self.log.load_state(state["log"])
        checkpoint.restore_random_states(state["random"])
        self.tracker.forget_after(self.updates.samples_seen)

    def extend(self) -> None:
        """The checkpoint had planned fewer epochs: the learning rate falls anew from its peak, over what is to come."""
        end = self.position.samples + (self.config.epochs - self.position.epoch) * len(self.data.train)
        self.updates.schedule = self.updates.schedule.restarted(self.updates.samples_seen, end)

    def accept_new_samples(self) -> None:
        """The checkpoint was of another list of training samples: start the epoch in hand again, with this one.

        What was pending is dropped. The learning rate goes on from where the last epoch left it, over the samples that
        are still to come.
        """
        left = (self.config.epochs - self.position.epoch) * len(self.data.train)
        self.updates.start_again(self.position.samples, self.position.samples + left)
        self.balancing.start_epoch_again()
        self.log.clear()
        self.position.blocks = 0
        self.tracker.forget_after(self.position.samples)

    def forget_best(self) -> None:
        """The checkpoint was of another list of validation samples: scores on this one don't compare with it."""
        self.best = {}
