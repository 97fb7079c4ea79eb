"""What the training scripts share before and after the loop: flags, run folder, resume, data, parts of a checkpoint."""

import argparse
import os
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.a2d2.classes import BOX_CLASSES, SEMANTIC_CLASSES
from datasets.a2d2.raw import RawData
from datasets.camera import Camera
from datasets.files import whole_file, write_json
from datasets.frames import Frame
from datasets.labels import Labelled, frame_samples, keep_fractions, keep_one
from datasets.layout import RunDir, add_root_arguments, add_runs_root_argument
from datasets.processed import ProcessedData
from datasets.samples import Sample
from datasets.splits import Split, overfit, split_by_scenes, split_by_time
from datasets.staging import add_stage_argument, stage
from errors import UserError
from progress import warn
from tasks.base import Task
from training import checkpoint, distributed
from training.config import SplitConfig, to_yaml
from training.evaluation import Results, evaluate_blind, make_loader
from training.loop import Data, Interrupted, Trainer
from training.runs import RunConfig
from training.tracking import Tracker, start_wandb

CLASSES = {"semantic_classes": list(SEMANTIC_CLASSES), "box_classes": list(BOX_CLASSES)}


def parse_arguments(
    description: str,
    config: str,
    modes: list[str],
    default_mode: str | None,
    add_more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.Namespace:
    """The flags of the training scripts. Without a default, a missing --train-mode is an error that lists the modes.

    add_more: adds a script's own flags.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-mode", choices=modes, default=default_mode)
    parser.add_argument("--config", type=Path, default=Path(config), help=f"default {config}")
    add_override_arguments(parser)
    parser.add_argument("--name", help="name of the run (default: the mode)")
    add_runs_root_argument(parser)
    add_root_arguments(parser)
    add_stage_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", metavar="auto|PATH", help="auto: go on from last.pt, or start if there is none")
    parser.add_argument(
        "--accept-new-labels",
        action="store_true",
        help="with --resume: go on though other frames have labels now than when the run was saved",
    )
    parser.add_argument("--wandb", choices=["auto", "online", "offline", "disabled"], default="auto")
    parser.add_argument("--dry-run", action="store_true", help="print samples, steps and parameters; train nothing")
    if add_more:
        add_more(parser)
    args = parser.parse_args()
    if args.train_mode is None:
        parser.error(f"--train-mode is needed: one of {', '.join(modes)}")
    if args.accept_new_labels and not args.resume:
        parser.error("--accept-new-labels needs --resume")
    args.name = args.name or args.train_mode
    return args


def add_override_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that change what a --config says."""
    parser.add_argument("--gpu", type=Path, metavar="FILE", help="such as configs/gpu/24gb.yaml, laid over the config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as training.epochs=3")


@dataclass
class Session:
    """One start of a training script: its run folder, its data, and the checkpoint that it goes on from."""

    args: argparse.Namespace
    config: RunConfig
    mode: str
    device: torch.device
    run: RunDir
    camera: Camera
    split: Split
    checkpoint: dict[str, Any] | None

    @classmethod
    def open(cls, args: argparse.Namespace, config: RunConfig) -> "Session":
        """Check the run folder and the data, make or restore the split, seed torch.

        The config becomes what this start resolves it to: the kinds of label that its regime draws from, and the tasks
        that have labels.
        """
        mode = args.train_mode
        if missing := set(config.task_names(mode)) - set(config.tasks):
            there = ", ".join(config.tasks)
            raise UserError(f"{args.config}: tasks.{', tasks.'.join(sorted(missing))} is missing; there are {there}")
        device = distributed.start(args.device)
        set_determinism(config.training.deterministic)
        check_processes(config.block_size_of(mode), config.micro_batch_size_of(mode))
        run = RunDir(args.runs_root, args.name)
        loaded = _checkpoint_to_resume(args.resume, run)
        processed = stage(ProcessedData(args.processed_root), None if args.dry_run else args.stage_to)
        encoded = config.data.decode == "device"
        camera = Camera(RawData(args.data_root), processed, tuple(config.data.size), encoded=encoded)
        if loaded is not None:
            check_fits(loaded, camera, "--resume: the checkpoint")
        split = distributed.from_main(lambda: _check_run_and_split(args, config, run, camera, loaded))
        there = distributed.from_main(processed.kinds)
        config = with_present_tasks(with_regime_kinds(config, there, loaded), mode, there, processed)
        if loaded is not None:
            check_same_run(loaded, config, mode)
        torch.manual_seed(config.seed)
        return cls(args, config, mode, device, run, camera, split, loaded)

    # ---- data ---------------------------------------------------------------------------------------------------

    def labelled(self) -> Labelled:
        """Kind -> the training frames that keep its label under the regime: the same frames whatever the mode.

        Of the run's tasks, and of the other kinds that the regime draws from.
        """
        return distributed.from_main(self._labelled)

    def _labelled(self) -> Labelled:
        processed, regime = self.camera.processed, self.config.data.labels
        train = set(self.split.train)
        kinds = dict.fromkeys([*self.config.task_names(self.mode), *(regime.kinds or ())])
        labelled = {kind: [frame for frame in processed.frames(kind) if frame in train] for kind in kinds}
        if regime.regime == "one":
            return keep_one(labelled, regime.kinds, regime.proportions, regime.seed)
        if regime.regime == "fractions":
            return keep_fractions(labelled, regime.fractions, regime.seed)
        return labelled

    def validation_samples(self, tasks: Mapping[str, Task]) -> list[Sample]:
        """The validation frames that have a label of at least one of the tasks; all their labels count."""
        return labelled_samples(self.camera.processed, self.split.val, tasks)

    def accepted_changes(self, lists: Mapping[str, str]) -> set[str]:
        """Which of the lists of samples (part -> hash) are not those of the checkpoint that the run goes on from.

        UserError where one is another and --accept-new-labels does not say that this is meant.
        """
        if self.checkpoint is None:
            return set()
        changed = {part for part in lists if lists[part] != self.checkpoint["sample_lists"][part]}
        if changed and not self.args.accept_new_labels:
            raise UserError(
                f"--resume: other {' and '.join(sorted(changed))} frames have labels in {self.camera.processed.root} "
                "now than when the run was saved; bring them back, start a new run with --name, or go on with "
                "--accept-new-labels, which starts the epoch in hand again"
            )
        return changed

    def prepare_tasks(self, tasks: Mapping[str, Task], labelled: Labelled) -> None:
        """Let the tasks learn from the training labels what they need, or restore what they had learnt."""
        for name, task in tasks.items():
            if self.checkpoint is not None:
                task.load_state(self.checkpoint["tasks"][name])
                continue
            task.load_state(distributed.from_main(partial(self._fitted, task, labelled[name])))

    def _fitted(self, task: Task, frames: list[Frame]) -> dict[str, torch.Tensor]:
        try:
            task.fit(labels_of(task, self.camera.processed, frames))
        except ValueError as error:
            raise UserError(f"{task.name}: {error}") from None
        return task.state()

    def blind_results(self, tasks: Mapping[str, Task], labelled: Labelled, data: Data) -> Results:
        """The validation errors of the predictors that never look, for the tasks whose metric is an error."""
        if self.checkpoint is not None:
            return self.checkpoint["blind"]
        return distributed.from_main(lambda: self._blind_results(tasks, labelled, data))

    def _blind_results(self, tasks: Mapping[str, Task], labelled: Labelled, data: Data) -> Results:
        errors = {name: task for name, task in tasks.items() if labelled[name] and not task.higher_is_better}
        predictions = {
            name: blind_prediction(task, self.camera.processed, labelled[name]) for name, task in errors.items()
        }
        batches = make_loader(data.val, tasks, data.workers, torch.device("cpu"), batch_size=data.micro_batch_size)
        return evaluate_blind(errors, predictions, batches)

    # ---- the run --------------------------------------------------------------------------------------------------

    def constants(self) -> dict[str, Any]:
        """The parts of the run's checkpoints that never change."""
        return {
            "kind": self.config.kind,
            "mode": self.mode,
            "config": self.config.model_dump(mode="json"),
            "split": self.split.to_json(),
            "calibration": self.camera.calibration.to_json(),
            **CLASSES,
            "git_commit": checkpoint.git_commit(),
            "wandb_id": self.checkpoint["wandb_id"] if self.checkpoint else secrets.token_hex(4),
        }

    def start(self, constants: Mapping[str, Any]) -> Tracker:
        """Make the run folder and the wandb run; the first process does it for all."""
        if not distributed.is_main():
            return Tracker(self.run, None)
        self.run.remove_abandoned()
        with whole_file(self.run.config) as file:
            file.write(to_yaml(self.config).encode())
        write_json(self.run.split, self.split.to_json())
        self.run.interrupted.unlink(missing_ok=True)
        if self.checkpoint is None:  # left by a start that was killed before its first checkpoint
            self.run.metrics.unlink(missing_ok=True)
        kind = self.config.kind
        names = (constants["wandb_id"], self.args.name, kind, [kind, self.mode])
        return Tracker(self.run, start_wandb(self.args.wandb, self.run, *names, constants["config"]))

    def train(self, trainer: Trainer) -> None:
        """Run the loop to its end or to a signal; then `INTERRUPTED`, with the job's id, tells the batch script to
        requeue."""
        if self.checkpoint is not None:
            trainer.load_state(self.checkpoint)
            changed = self.accepted_changes(trainer.constants["sample_lists"])
            if "train" in changed:
                trainer.accept_new_samples()
            if "val" in changed:
                trainer.forget_best()
            print(f"goes on after {trainer.updates.samples_seen} samples, epoch {trainer.position.epoch + 1}")
        try:
            trainer.train()
        except Interrupted:
            if distributed.is_main():
                self.run.interrupted.write_text(os.environ.get("SLURM_JOB_ID", "") + "\n")
            print(f"interrupted; saved {self.run.last}; go on with --resume auto")
        else:
            best = trainer.best
            print(f"done; best epoch {best['epoch']}: {self.run.best}")
        finally:
            trainer.tracker.finish()
        distributed.stop()


def _check_run_and_split(
    args: argparse.Namespace, config: RunConfig, run: RunDir, camera: Camera, loaded: dict[str, Any] | None
) -> Split:
    """The split, restored or made; UserError where the run's folder must not be used."""
    elsewhere = args.resume not in (None, "auto") and Path(args.resume).resolve().parent != run.dir.resolve()
    if (args.resume is None or elsewhere) and run.exists() and not args.dry_run:
        raise UserError(f"{run.dir} exists; go on with --resume auto, or choose another --name")
    return Split.from_json(loaded["split"]) if loaded else make_split(config.data.split, camera.frames(), args)


def _checkpoint_to_resume(resume: str | None, run: RunDir) -> dict[str, Any] | None:
    if resume is None or (resume == "auto" and not run.last.exists()):
        return None
    return checkpoint.load(run.last if resume == "auto" else Path(resume))


def with_regime_kinds(config: RunConfig, there: list[str], loaded: dict[str, Any] | None) -> RunConfig:
    """The config with the kinds that its regime draws from: those of the checkpoint, else all that there are."""
    regime = config.data.labels
    if regime.regime != "one" or regime.kinds is not None:
        return config
    saved = loaded["config"]["data"]["labels"]["kinds"] if loaded else None
    return config.with_kinds(saved or there)


def with_present_tasks(config: RunConfig, mode: str, there: list[str], processed: ProcessedData) -> RunConfig:
    """The config without the tasks whose kind of label the data lack, each named; UserError where none is left."""
    names = config.task_names(mode)
    absent = [name for name in names if name not in there]
    if len(absent) == len(names):
        raise UserError(f"no {', '.join(absent)} labels below {processed.root}; run the preprocessing script first")
    for name in absent:
        print(f"no {name} labels below {processed.kind_dir(name)}: the run leaves {name} out")
    return config.without(absent)


def check_same_run(loaded: Mapping[str, Any], config: RunConfig, mode: str) -> None:
    """UserError unless the checkpoint is of the same kind of training, with the same tasks and the same config."""
    found, asked = (loaded["kind"], loaded["mode"]), (config.kind, mode)
    if found != asked:
        raise UserError(f"--resume: the checkpoint is of {' '.join(found)} training, not {' '.join(asked)}")
    saved, names = list(loaded["tasks"]), config.task_names(mode)
    if sorted(saved) != sorted(names):
        raise UserError(
            f"--resume: the checkpoint trains {', '.join(saved)}; now it would be {', '.join(names)}: set "
            "tasks.NAME=null for what it does not train, or start a new run with --name"
        )
    check_same_config(of_tasks(loaded["config"], names), of_tasks(config.model_dump(mode="json"), names))


def of_tasks(config: Mapping[str, Any], tasks: Container[str]) -> dict[str, Any]:
    """A run's config without the sections of other tasks: they decide nothing of it."""
    return {**config, "tasks": {name: section for name, section in config["tasks"].items() if name in tasks}}


def check_same_config(saved: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> None:
    """UserError naming the first key that differs. The number of loader workers may change."""
    for key in sorted({*saved, *asked}):
        ours, theirs, name = asked.get(key), saved.get(key), f"{prefix}{key}"
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            check_same_config(theirs, ours, f"{name}.")
        elif ours != theirs and name != "data.workers":
            raise UserError(f"--resume: {name} is {ours}, the checkpoint has {theirs}; a new run needs --name")


def check_fits(content: Mapping[str, Any], camera: Camera, source: str) -> None:
    """UserError where a checkpoint's class lists or calibration are not those of the data."""
    for name, classes in CLASSES.items():
        if content[name] != classes:
            raise UserError(f"{source} was trained with other {name}: {', '.join(content[name])}")
    if content["calibration"] != camera.calibration.to_json():
        raise UserError(f"{source} was trained with another calibration than that of {camera.raw.root}")


def set_determinism(wanted: bool) -> None:
    """Before the first operation on a GPU. What has no deterministic form raises an error that names it."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted  # else the fastest algorithm for each shape is found by trying


def check_size(size: list[int], network: nn.Module, config: Path) -> None:
    """UserError unless the network takes images of this size (W, H)."""
    if any(side % network.divisor for side in size):
        raise UserError(f"{config}: data.size: {size} are no multiples of {network.divisor}: the network halves them")


def check_processes(block_size: int, micro_batch_size: int) -> None:
    """UserError unless micro-batches and processes share a block evenly."""
    processes = distributed.processes()
    if block_size % (micro_batch_size * processes):
        raise UserError(
            f"{processes} processes with micro_batch_size {micro_batch_size} do not divide the block of {block_size}; "
            "set another micro_batch_size or batch_size"
        )


def make_split(config: SplitConfig, frames: list[Frame], args: argparse.Namespace) -> Split:
    """Split the frames that have an image, as the config says."""
    if not frames:
        raise UserError(
            f"no camera images below {args.data_root} or {args.processed_root}; 'sh get_data.sh' fetches the raw data"
        )
    if config.mode == "scenes":
        return split_by_scenes(frames, {"train": config.train, "val": config.val, "test": config.test})
    if config.mode == "overfit":
        return overfit(frames)
    return split_by_time(frames, config.fractions, config.gap_frames, config.gap_seconds)


def labelled_samples(processed: ProcessedData, frames: Iterable[Frame], tasks: Mapping[str, Task]) -> list[Sample]:
    """The frames that have a label of at least one of the tasks, each with those that it has."""
    labelled = {name: set(processed.frames(name)) for name in tasks}
    frames = list(frames)
    return frame_samples({name: [frame for frame in frames if frame in labelled[name]] for name in tasks}, list(tasks))


def blind_prediction(task: Task, processed: ProcessedData, frames: list[Frame], source: str = "") -> Any:
    """The task's predictor that never looks, fitted to the frames' labels. UserError, begun with `source`: no label."""
    try:
        return task.blind(labels_of(task, processed, frames))
    except ValueError as error:
        raise UserError(f"{source}{task.name}: {error}") from None


def labels_of(task: Task, processed: ProcessedData, frames: list[Frame]) -> Iterator[Any]:
    """The task's labels of the frames, one at a time; those that can't be read are named and left out."""
    for frame in frames:
        try:
            label = task.read(processed, frame)
        except (ValueError, OSError) as error:
            warn(f"warning: left out: {frame}: {error}")
            continue
        if label is not None:
            yield label
