"""Where numbers go: `metrics.jsonl` beside the run, which is the source of truth, and wandb, which may fail."""

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets.files import parse_json, whole_file
from datasets.layout import RunDir
from progress import warn
from training import distributed
from training.updates import StepReport, Updates

PATIENCE = 10  # seconds that a training waits for the dashboard, once at its start and once at its end


class Tracker:
    """Logs {name: value} at a number of samples seen; of several processes the first one does.

    wandb never stops a training: whatever it raises is printed once, and the run goes on with metrics.jsonl alone.
    """

    def __init__(self, run: RunDir, wandb_run: Any | None, *, sends_best: bool = False):
        """sends_best: best.pt becomes an artifact when the training ends."""
        self.run, self.wandb_run, self.sends_best = run, wandb_run, sends_best

    def log(self, values: dict[str, float], samples: int) -> None:
        """One line in metrics.jsonl and one wandb step; `samples` seen so far is the x-axis."""
        if not distributed.is_main():
            return
        row = {"samples": samples, **values}
        line = json.dumps(
            {name: value if math.isfinite(value) else None for name, value in row.items()}
        )  # no NaN in JSON
        try:
            with open(self.run.metrics, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            warn(f"warning: {self.run.metrics} can't be written: {error.strerror}")
        panels = {name: value for name, value in row.items() if not is_of_class(name)}
        self._wandb(lambda wandb_run: wandb_run.log(panels, step=samples))

    def define(self, metrics: Iterable[Mapping[str, Any]]) -> None:
        """Tell the dashboard how to show what is logged: keywords of wandb's define_metric, one mapping a key."""

        def define(wandb_run: Any) -> None:
            for metric in metrics:
                wandb_run.define_metric(**metric)

        self._wandb(define)

    def send_best(self) -> None:
        """best.pt as an artifact of the dashboard, where that was asked for."""

        def send(wandb_run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", self.run.dir.name), type="model")
            artifact.add_file(str(self.run.best))
            wandb_run.log_artifact(artifact)

        if self.sends_best:
            self._wandb(send)

    def show_images(self, name: str, images: list["Shown"], samples: int) -> None:
        """Pictures on the dashboard."""
        self._wandb(lambda wandb_run: wandb_run.log({name: [image.for_wandb() for image in images]}, step=samples))

    def show_table(self, name: str, columns: list[str], rows: list[list[Any]], samples: int) -> None:
        """A table on the dashboard."""

        def log(wandb_run: Any) -> None:
            import wandb

            wandb_run.log({name: wandb.Table(columns=[*columns], data=rows)}, step=samples)

        self._wandb(log)

    def summarise(self, values: dict[str, Any]) -> None:
        """Put values (the best ones) into wandb's summary."""
        self._wandb(lambda wandb_run: wandb_run.summary.update(values))

    def forget_after(self, samples: int) -> None:
        """Drop lines that were written after the checkpoint from which the run goes on."""
        if not (distributed.is_main() and self.run.metrics.exists()):
            return
        rows = [line for line in self.run.metrics.read_bytes().splitlines() if _samples_of(line) <= samples]
        with whole_file(self.run.metrics) as file:
            file.write(b"".join(row + b"\n" for row in rows))

    def finish(self) -> None:
        self._wandb(lambda wandb_run: wandb_run.finish())

    def _wandb(self, call: Any) -> None:
        if self.wandb_run is None:
            return
        try:
            call(self.wandb_run)
        except Exception as error:  # no network, a full disk, a service that is down: the training goes on
            warn(f"warning: wandb failed, going on without it: {error}")
            self.wandb_run = None


@dataclass(frozen=True)
class Shown:
    """A picture for the dashboard: uint8 H x W x 3, RGB; `overlay`: keywords of wandb.Image (masks, boxes)."""

    picture: np.ndarray
    caption: str
    overlay: dict[str, Any] = field(default_factory=dict)

    def for_wandb(self) -> Any:
        import wandb

        return wandb.Image(self.picture, caption=self.caption, **self.overlay)


def is_of_class(key: str) -> bool:
    """Whether it is a metric of a single class (val/TASK/iou/Car): of these hundreds the dashboard has one table."""
    return key.startswith(("val/", "best/")) and key.count("/") > 2


def _samples_of(line: bytes) -> float:
    try:
        return float(parse_json(line)["samples"])
    except (ValueError, LookupError, TypeError):
        return math.inf  # cut short by a crash, or not ours


@dataclass(frozen=True)
class Listing:
    """Where a run stands among others on the dashboard: keywords of wandb.init."""

    id: str
    name: str
    group: str
    job_type: str
    tags: Sequence[str] = ()
    project: str = "a2d2-multitask"

    def with_environment(self) -> "Listing":
        """With what wandb's own variables say in place of defaults."""
        names = {
            "WANDB_PROJECT": "project",
            "WANDB_NAME": "name",
            "WANDB_RUN_GROUP": "group",
            "WANDB_JOB_TYPE": "job_type",
        }
        given: dict[str, Any] = {field: os.environ[name] for name, field in names.items() if os.environ.get(name)}
        if tags := os.environ.get("WANDB_TAGS"):
            given["tags"] = [tag.strip() for tag in tags.split(",")]
        return replace(self, **given)

    def options(self) -> dict[str, Any]:
        return {**asdict(self), "tags": list(dict.fromkeys(self.tags))}


def start_wandb(mode: str, run: RunDir, listing: Listing, config: dict[str, Any]) -> Any | None:
    """A wandb run, offline unless asked for or logged in; None where wandb is disabled or can't start.

    A resumed run passes the id that its checkpoint holds and so continues the same wandb run. A server that does not
    answer is waited for PATIENCE seconds, then the run is an offline one.
    """
    if mode == "disabled":
        return None
    try:
        import wandb  # takes a second to import: only where it is used

        settings = wandb.Settings(silent=True, console="off", init_timeout=PATIENCE, finish_timeout=PATIENCE)
        options = {**listing.options(), "config": config, "dir": run.dir, "settings": settings}
        if mode != "offline":
            try:
                if mode == "online" or _logged_in(wandb):
                    return wandb.init(**options, mode="online", resume="allow")
            except Exception as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                warn(f"warning: wandb can't be reached within {PATIENCE} s, going on offline: {reason}")
                wandb.teardown()  # of the attempt, which would say that the run is in use
        return wandb.init(**options, mode="offline", resume=None)
    except Exception as error:
        warn(f"warning: wandb can't start, going on without it: {error}")
        return None


def _logged_in(wandb: Any) -> bool:
    return os.environ.get("WANDB_MODE", "online") == "online" and wandb.login(prompt=False, verify=False)


class Pace:
    """How fast samples pass, validations included, since this start."""

    def __init__(self, seen: int):
        self.began, self.seen = time.monotonic(), seen

    def shown(self, seen: int, left: int) -> str:
        """After `seen` samples, with `left` to come."""
        speed = (seen - self.seen) / (time.monotonic() - self.began)
        return f"{speed:.1f} samples/s, {tqdm.format_interval(int(left / speed)) if speed else '?'} left"


class TrainingLog:
    """Mean losses between two lines, and what was measured since the last one: learning rates and gradient norms of the
    groups that stepped, similarities, samples per second."""

    def __init__(self, tracker: Tracker, every: int, weights: Callable[[], Mapping[str, float]]):
        """weights: what each task's loss is multiplied by at present; asked where a line is due."""
        self.tracker, self.every, self.weights = tracker, every, weights
        self.sums: dict[str, list[float]] = {}  # task -> [sum of losses, samples]
        self.latest: dict[str, float] = {}  # since the last line
        self.noted = False  # something since the last line
        self.shown: dict[str, float] = {}  # the weights of the last line that had some
        self.clock = (time.monotonic(), 0)  # when, and how many samples had been seen

    def add_loss(self, task: str, loss: float, count: int) -> None:
        total = self.sums.setdefault(task, [0.0, 0])
        total[0] += loss
        total[1] += count

    def note(self, values: Mapping[str, float]) -> None:
        """Values that the next line shows beside the losses."""
        self.latest.update(values)
        self.noted |= bool(values)

    def steps(self, reports: list[StepReport], updates: Updates) -> None:
        """Note steps; write a line where one is due."""
        for report in reports:
            self.latest[f"gradient_norm/{report.group}"] = report.gradient_norm
            self.latest[f"learning_rate/{report.group}"] = updates.groups[report.group].learning_rate
            self.noted = True
        due = (updates.steps - len(reports)) // self.every < updates.steps // self.every
        if due and reports:
            self.write(updates)

    def start_clock(self, updates: Updates) -> None:
        """Samples per second are counted from here: validation is not training."""
        self.clock = (time.monotonic(), updates.samples_seen)

    def write(self, updates: Updates) -> None:
        """One line of what has come since the last one, if anything."""
        if not (self.sums or self.noted):
            return
        now, (then, seen) = time.monotonic(), self.clock
        weights = self.weights()
        values = self._losses(weights)
        if weights != self.shown:
            self.shown = {**weights}
            values |= {f"weight/{task}": weight for task, weight in weights.items()}
        values |= self.latest
        if updates.loss_scale.enabled:
            values |= {"fp16/loss_scale": updates.loss_scale.value, "fp16/overflows": updates.overflows}
        if updates.samples_seen > seen:
            values["speed/samples_per_second"] = (updates.samples_seen - seen) / (now - then)
        if torch.cuda.is_available() and (memory := torch.cuda.max_memory_allocated()):
            values["speed/gpu_memory_gb"] = memory / 1e9
        self.tracker.log(values, updates.samples_seen)
        self.clear()
        self.start_clock(updates)

    def _losses(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The tasks' mean losses, and their sum as weighed at present."""
        means = {task: loss / count for task, (loss, count) in self.sums.items() if count}
        total = {"train/loss": sum(weights[task] * loss for task, loss in means.items())} if means else {}
        return total | {f"train/{task}/loss": loss for task, loss in means.items()}

    def clear(self) -> None:
        """Drop what has come since the last line."""
        self.sums, self.latest, self.noted = {}, {}, False

    def progress(self) -> str:
        """Mean losses since the last line, for the progress bar."""
        return " ".join(f"{task} {loss / count:.3f}" for task, (loss, count) in self.sums.items() if count)

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "latest": self.latest, "noted": self.noted, "shown": self.shown}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.sums, self.latest, self.noted = state["sums"], state["latest"], state["noted"]
        self.shown = state.get("shown", {})  # which older checkpoints lack
