"""What a training script settles before it looks at the data: device, run folder, checkpoint to go on from."""

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import signals
from datasets.files import check_writable
from datasets.layout import RunDir
from datasets.locks import Lock
from errors import UserError
from training import distributed
from training.compatibility import load_checkpoint
from training.runs import RunConfig
from training.runs.base import Portions
from training.tracking import Listing


@dataclass(frozen=True)
class Start:
    """One start of a training script."""

    args: argparse.Namespace
    device: torch.device
    run: RunDir
    checkpoint: dict[str, Any] | None  # that it goes on from

    @classmethod
    @contextmanager
    def open(cls, args: argparse.Namespace, config: RunConfig) -> Iterator["Start"]:
        """Join the other processes, and have the run's folder to itself within a `with` block.

        UserError: the processes do not divide a block, the folder must not be used, or another training uses it.
        """
        device = distributed.start(args.device)
        set_determinism(config.training.deterministic)
        check_processes(config.portions())
        run = RunDir(args.runs_root, args.name or config.mode)
        with ExitStack() as held:
            distributed.from_main(lambda: claim(run, args, held))  # before the checkpoint is read: it may be changing
            seen = 0
            if not args.dry_run and distributed.is_main():  # a signal before the loop, which has a way of its own
                signals.when_ended(lambda: mark_interrupted(run, seen))
            loaded = checkpoint_to_resume(args.resume, run)
            seen = loaded["updates"]["samples_seen"] if loaded else 0
            yield cls(args, device, run, loaded)

    def listed(self, listing: Listing) -> Listing:
        """See `listed`."""
        return listed(listing, self.args)

    def changed_lists(self, lists: Mapping[str, str]) -> set[str]:
        """Which of the lists of samples (split -> hash) are not those of the checkpoint.

        UserError where one is another and --accept-new-labels does not say that this is meant.
        """
        if self.checkpoint is None:
            return set()
        changed = {split for split in lists if lists[split] != self.checkpoint["sample_lists"][split]}
        if changed and not self.args.accept_new_labels:
            raise UserError(
                f"--resume: other {' and '.join(sorted(changed))} frames have labels "
                "now than when the run was saved; bring them back, start a new run with --name, or go on with "
                "--accept-new-labels, which starts the epoch in hand again"
            )
        return changed


def listed(listing: Listing, args: argparse.Namespace) -> Listing:
    """With what the flags say of the run's place on the dashboard, else wandb's own variables."""
    given = {"group": args.wandb_group, "project": args.wandb_project, "tags": args.wandb_tags}
    return replace(listing.with_environment(), **{name: value for name, value in given.items() if value})


def mark_interrupted(run: RunDir, samples: int) -> None:
    """Tell the batch script to requeue: by INTERRUPTED in the run's folder, and by the file that it names itself.

    Both say after how many samples, so that a job that gets nowhere is not requeued for ever.
    """
    run.dir.mkdir(parents=True, exist_ok=True)
    run.interrupted.write_text(f"{os.environ.get('SLURM_JOB_ID', '')}\n")
    if named := os.environ.get("A2D2_INTERRUPTED_FILE"):
        Path(named).write_text(f"{run.dir} {samples}\n")


def set_determinism(wanted: bool) -> None:
    """Before the first operation on a GPU. What has no deterministic form raises an error that names it."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted  # else the fastest algorithm for each shape is found by trying


def check_processes(portions: Portions) -> None:
    """UserError unless micro-batches and processes share a block evenly."""
    processes = distributed.processes()
    if portions.block_size % (portions.micro_batch_size * processes):
        raise UserError(
            f"{processes} processes with micro_batch_size {portions.micro_batch_size} do not divide the block of "
            f"{portions.block_size}; set another micro_batch_size or batch_size"
        )


def claim(run: RunDir, args: argparse.Namespace, held: ExitStack) -> None:
    """Lock the run's folder until `held` closes, but for a dry run. UserError where it must not be used."""
    run.check_files()
    check_unused(run, args)
    if not args.dry_run:
        check_writable(run.lock)
        if not run.lock.parent.exists():
            held.callback(remove_if_empty, run.lock.parent)  # a mistake leaves nothing behind
        held.enter_context(Lock(run.lock, str(run.dir)))


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_unused(run: RunDir, args: argparse.Namespace) -> None:
    """UserError where a new run would write into the folder of another, or over what is left of the same one."""
    elsewhere = args.resume not in (None, "auto") and Path(args.resume).resolve().parent != run.dir.resolve()
    if (args.resume is None or elsewhere) and run.exists() and not args.dry_run:
        raise UserError(f"{run.dir} exists; go on with --resume auto, or choose another --name")
    # a run has best.pt only after last.pt (training/loop.py): it was lost, and this is not the start before the first
    if args.resume == "auto" and not run.last.exists() and (os.path.lexists(run.best) or run.last.is_symlink()):
        raise UserError(
            f"{run.last} is gone, and a new start would write over what the run left; bring it back, go on with "
            f"--resume {run.best}, or choose another --name"
        )


def checkpoint_to_resume(resume: str | None, run: RunDir) -> dict[str, Any] | None:
    if resume is None or (resume == "auto" and not run.last.exists()):
        return None
    return load_checkpoint(run.last if resume == "auto" else Path(resume))[0]
