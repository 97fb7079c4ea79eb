"""What the training scripts share before and after the loop: flags, run folder, resume, data, parts of a checkpoint."""

import argparse
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.a2d2.raw import RawData
from datasets.files import whole_file, write_json
from datasets.frames import Frame
from datasets.labels import Labelled, frame_samples, keep_fractions, keep_one
from datasets.layout import (
    RunDir,
    add_data_root_argument,
    add_processed_roots_argument,
    add_runs_root_argument,
    fits_folder,
)
from datasets.roots import Root, Roots, agreed_label, stage_all
from datasets.samples import Sample
from datasets.spec import LabelSpec
from datasets.splits import Split, joined, official_split, overfit, split_by_scenes, split_by_time
from datasets.staging import add_stage_argument
from errors import UserError
from tasks.base import Task
from training import checkpoint, distributed
from training.compatibility import check_fits, check_same_run
from training.config import SplitConfig, to_yaml
from training.evaluation import Results
from training.fits import Fits, evaluate_constants
from training.loop import Data, Interrupted, Trainer
from training.runs import RunConfig
from training.tracking import Tracker, start_wandb


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
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_stage_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", metavar="auto|PATH", help="auto: go on from last.pt, or start if there is none")
    parser.add_argument(
        "--accept-new-labels",
        action="store_true",
        help="with --resume: go on though other frames have labels now than when the run was saved",
    )
    parser.add_argument(
        "--force-trained-norms", action="store_true", help="with several data sets: train with norm: train all the same"
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
    roots: Roots
    split: Split
    labels: dict[str, LabelSpec]  # task -> what its labels say
    bound: dict[str, list[str]]  # task -> the data sets that its labels are from
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
        processed = stage_all(args.processed_root, None if args.dry_run else args.stage_to)
        encoded = config.data.decode == "device"
        roots = Roots.open(processed, RawData(args.data_root), tuple(config.data.size), encoded=encoded)
        split = distributed.from_main(lambda: _check_run_and_split(args, config, run, roots, loaded))
        config = with_regime_kinds(config, distributed.from_main(roots.kinds), loaded)
        bound = distributed.from_main(lambda: bound_roots(config, mode, roots))
        config = without_absent_tasks(config, bound, roots)
        bound = {name: names for name, names in bound.items() if names}
        for name, names in bound.items():
            for root in names:
                roots[root].check_labels([config.kind_of(name)])
        labels = {
            name: agreed_label(config.kind_of(name), [roots[root] for root in names], name)
            for name, names in bound.items()
        }
        if loaded is not None:
            check_fits(loaded, roots, "--resume: the checkpoint")
            check_same_run(loaded, config, mode)
        torch.manual_seed(config.seed)
        return cls(args, config, mode, device, run, roots, split, labels, bound, loaded)

    # ---- data ---------------------------------------------------------------------------------------------------

    def labelled(self) -> Labelled:
        """Kind -> the training frames that keep its label under the regime: the same frames whatever the mode.

        Of the kinds of the run's tasks, and of the others that the regime draws from.
        """
        return distributed.from_main(self._labelled)

    def _labelled(self) -> Labelled:
        regime, train = self.config.data.labels, set(self.split.train)
        kinds = dict.fromkeys([*map(self.config.kind_of, self.bound), *(regime.kinds or ())])
        labelled = {kind: [frame for frame in self.roots.labelled(kind) if frame in train] for kind in kinds}
        if regime.regime == "one":
            return keep_one(labelled, regime.kinds, regime.proportions, regime.seed)
        if regime.regime == "fractions":
            return keep_fractions(labelled, regime.fractions, regime.seed)
        return labelled

    def of_tasks(self, labelled: Labelled) -> Labelled:
        """Kind -> frames, as from `labelled`, to task -> frames: those of the data sets that the task is bound to."""
        return {
            name: [frame for frame in labelled[self.config.kind_of(name)] if frame.dataset in names]
            for name, names in self.bound.items()
        }

    def validation_samples(self, tasks: Mapping[str, Task]) -> list[Sample]:
        """The validation frames that have a label of at least one of the tasks; all their labels count."""
        return labelled_samples(self.roots, self.bound, self.split.val, tasks)

    def accepted_changes(self, lists: Mapping[str, str]) -> set[str]:
        """Which of the lists of samples (part -> hash) are not those of the checkpoint that the run goes on from.

        UserError where one is another and --accept-new-labels does not say that this is meant.
        """
        if self.checkpoint is None:
            return set()
        changed = {part for part in lists if lists[part] != self.checkpoint["sample_lists"][part]}
        if changed and not self.args.accept_new_labels:
            raise UserError(
                f"--resume: other {' and '.join(sorted(changed))} frames have labels "
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
            task.load_state(distributed.from_main(partial(self.fits.state, task, labelled[name])))

    @cached_property
    def fits(self) -> Fits:
        """What earlier runs in the same folder have learnt from the same labels is not learnt again."""
        return Fits(self.roots, fits_folder(self.args.runs_root))

    def constant_results(self, tasks: Mapping[str, Task], labelled: Labelled, data: Data) -> Results:
        """The validation errors of the constant baselines, for the tasks whose metric is an error."""
        if self.checkpoint is not None:
            return self.checkpoint["constant"]
        return distributed.from_main(lambda: self._constant_results(tasks, labelled, data))

    def _constant_results(self, tasks: Mapping[str, Task], labelled: Labelled, data: Data) -> Results:
        if not data.val.samples:
            return {}
        errors = {name: task for name, task in tasks.items() if labelled[name] and not task.higher_is_better}
        return evaluate_constants(errors, self.roots, labelled, data.val.samples, self.fits)

    # ---- the run --------------------------------------------------------------------------------------------------

    def constants(self) -> dict[str, Any]:
        """The parts of the run's checkpoints that never change."""
        return {
            "kind": self.config.kind,
            "mode": self.mode,
            "config": self.config.model_dump(mode="json"),
            "split": self.split.to_json(),
            "datasets": self.roots.to_json(),
            "bound": self.bound,
            "git_commit": checkpoint.git_commit(),
            "wandb_id": self.checkpoint["wandb_id"] if self.checkpoint else secrets.token_hex(4),
        }

    def start(self, constants: Mapping[str, Any]) -> Tracker:
        """Make the run folder and the wandb run; the first process does it for all."""
        if not distributed.is_main():
            return Tracker(self.run, None)
        self.fits.keep()
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
            best = f"best epoch {trainer.best['epoch']}: {self.run.best}" if trainer.best else f"{self.run.last}"
            print(f"done; {best}")
        finally:
            trainer.tracker.finish()
        distributed.stop()


def _check_run_and_split(
    args: argparse.Namespace, config: RunConfig, run: RunDir, roots: Roots, loaded: dict[str, Any] | None
) -> Split:
    """The split, restored or made; UserError where the run's folder must not be used."""
    elsewhere = args.resume not in (None, "auto") and Path(args.resume).resolve().parent != run.dir.resolve()
    if (args.resume is None or elsewhere) and run.exists() and not args.dry_run:
        raise UserError(f"{run.dir} exists; go on with --resume auto, or choose another --name")
    if loaded:
        return Split.from_json(loaded["split"])
    split = make_split(config.data.split, roots, args)
    return split.with_val_in_train() if config.data.split.train_on_val else split


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


def bound_roots(config: RunConfig, mode: str, roots: Roots) -> dict[str, list[str]]:
    """Task -> the data sets that its labels are from: those that the config names, else all that have the kind."""
    bound = {}
    for name in config.task_names(mode):
        kind, named = config.kind_of(name), config.tasks[name].roots
        having = [root.name for root in roots.values() if kind in root.processed.kinds()]
        if unknown := [root for root in named or () if root not in roots]:
            raise UserError(
                f"tasks.{name}.from: no data set {', '.join(unknown)} here; --processed-root gives {', '.join(roots)}"
            )
        if lacking := [root for root in named or () if root not in having]:
            raise UserError(f"tasks.{name}.from: {', '.join(lacking)} has no {kind} labels")
        bound[name] = named or having
    return bound


def without_absent_tasks(config: RunConfig, bound: Mapping[str, list[str]], roots: Roots) -> RunConfig:
    """The config without the tasks whose kind of label no data set has, each named; UserError where none is left."""
    absent = [name for name, names in bound.items() if not names]
    where = " or ".join(str(root.processed.root) for root in roots.values())
    if len(absent) == len(bound):
        raise UserError(f"no {', '.join(absent)} labels below {where}; run the preprocessing script first")
    for name in absent:
        print(f"no {config.kind_of(name)} labels below {where}: the run leaves {name} out")
    return config.without(absent)


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


def make_split(config: SplitConfig, roots: Roots, args: argparse.Namespace) -> Split:
    """Split the frames that have an image, as the config says."""
    by_root = {root: root.frames() for root in roots.values()}  # each root is listed once
    frames = sorted(frame for found in by_root.values() for frame in found)
    if not frames:
        where = ", ".join(map(str, [args.data_root, *args.processed_root]))
        raise UserError(f"no camera images below {where}; 'sh get_data.sh' fetches the raw data of A2D2")
    if config.mode == "scenes":
        return joined([split_by_scenes(frames, {"train": config.train, "val": config.val, "test": config.test})])
    if config.mode == "overfit":
        return joined([overfit(frames)])
    return joined([_split_root(config, root, found) for root, found in by_root.items()])


def _split_root(config: SplitConfig, root: Root, frames: list[Frame]) -> Split:
    spec = root.processed.spec() if config.mode == "official" else None
    if spec and spec.split:
        return official_split(frames, spec)
    seconds = root.seconds(frames)
    if frames and not seconds:
        print(f"{root.name} says nothing of times: its frames are split in the order of their names")
    return split_by_time(frames, seconds, config.fractions, config.gap_frames, config.gap_seconds)


def labelled_samples(
    roots: Roots, bound: Mapping[str, Iterable[str]], frames: Iterable[Frame], tasks: Mapping[str, Task]
) -> list[Sample]:
    """The frames that have a label of at least one of the tasks, each with those that it has.

    bound: task -> the data sets that its labels are from.
    """
    frames = list(frames)
    labelled = {
        name: {frame for root in bound[name] for frame in roots[root].processed.frames(task.kind)}
        for name, task in tasks.items()
    }
    return frame_samples({name: [frame for frame in frames if frame in labelled[name]] for name in tasks}, list(tasks))
