"""The flags that the training scripts share. Reading them loads no torch."""

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from arguments import add_dashboard_arguments, add_device_argument, whole
from datasets.layout import RunDir, add_data_root_argument, add_processed_roots_argument, add_runs_root_argument
from datasets.staging import add_stage_argument

ROOT = Path(__file__).resolve().parents[1]
WRITES = """\
Writes into RUNS_ROOT/NAME/, of --runs-root and --name: best.pt and last.pt (checkpoints), metrics.jsonl (all numbers),
config.yaml and split.json (what was trained on), images/ (validation frames), wandb/. What was learnt from the labels
before training is kept in RUNS_ROOT/.fits for other runs. A run that was interrupted leaves INTERRUPTED there."""
TOP_KEYS = (  # of the configs, beside their sections
    "seed",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "micro_batch_size",
    "block_size",
    "frames",
    "visit",
    "sampling",
    "balancing",
)
KEY = re.compile(rf"--(\w+(\.\w+)+|{'|'.join(TOP_KEYS)})=")
NAME = re.compile(r"\w[\w.+=@-]{0,99}")


def parse_arguments(description: str, config: str, default_mode: str | None, what_modes: str) -> argparse.Namespace:
    """The flags of a training script, as `make_parser` knows them."""
    parser = make_parser(description, config, default_mode, what_modes)
    args = parse(parser, sys.argv[1:])
    for flag in ("accept_new_labels", "extend"):
        if getattr(args, flag) and not args.resume:
            parser.error(f"--{flag.replace('_', '-')} needs --resume")
    if args.only and not args.init_from:
        parser.error("--only needs --init-from")
    if args.extend:
        args.set.append(f"training.epochs={args.extend}")
    if args.config is parser.get_default("config"):  # none was given
        args.config = own_config(args) or args.config
    return args


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The flags, among them keys of the config as the agents of sweeps pass them: --training.epochs=3 is --set
    training.epochs=3."""
    args, others = parser.parse_known_args(words)
    keys = [word.removeprefix("--") for word in others if KEY.match(word)]
    if unknown := [word for word in others if word.removeprefix("--") not in keys]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.set += keys
    if args.name is None and (sweep := os.environ.get("WANDB_SWEEP_ID")):
        run = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # each run of a sweep has a folder of its own
        args.name = run_name(f"{args.train_mode}-{sweep}-{run}")
    return args


def own_config(args: argparse.Namespace) -> Path | None:
    """The config.yaml of the run that --resume goes on with; None: it starts, or has none any more."""
    if args.resume is None:
        return None
    run = RunDir(args.runs_root, args.name or str(args.train_mode))
    last = run.last if args.resume == "auto" else Path(args.resume).resolve()
    config = RunDir(last.parent.parent, last.parent.name).config
    return config if last.exists() and config.is_file() else None


def make_parser(description: str, config: str, default_mode: str | None, what_modes: str) -> argparse.ArgumentParser:
    """The flags of a training script.

    config: its default. default_mode: of --train-mode; None: one must be given. what_modes: says for --help which there
    are (the config's sections decide).
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=WRITES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train-mode", metavar="MODE", default=default_mode, help=what_modes)
    beside_the_code = Path(os.path.relpath(ROOT / config))  # wherever the script is called from
    parser.add_argument(
        "--config",
        type=Path,
        default=beside_the_code,
        metavar="FILE.yaml",
        help="what decides a result; docs/configuration.md explains each key "
        f"(default {config}; of --resume the run's own)",
    )
    add_override_arguments(parser)
    parser.add_argument("--name", type=run_name, help="of the run and its folder, such as ours (default: the mode)")
    add_runs_root_argument(parser)
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_stage_argument(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="auto: go on from last.pt, or start if there is none; or from a checkpoint such as runs/ours/last.pt; "
        "what was --set need not be given again (default: a new run)",
    )
    parser.add_argument(
        "--extend",
        type=whole(1),
        metavar="EPOCHS",
        help="with --resume: train to so many epochs in all, such as 300; the learning rate starts at its peak again "
        "and falls over the rest (default: what was planned)",
    )
    parser.add_argument(
        "--init-from",
        type=Path,
        metavar="PATH",
        help="of a new run: take initial weights from a checkpoint of any training script, such as runs/A/best.pt "
        "(default: none)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="GROUP",
        help="with --init-from: only some of backbone and the tasks, such as backbone depth (default: all)",
    )
    parser.add_argument(
        "--accept-new-labels",
        action="store_true",
        help="with --resume: go on though other frames have labels now than when the run was saved",
    )
    parser.add_argument(
        "--force-trained-norms", action="store_true", help="with several data sets: train with norm: train all the same"
    )
    add_dashboard_arguments(
        parser,
        "auto",
        "metrics.jsonl has the numbers in any case",
        group="its kind",
        tags="the run's kind and mode",
    )
    parser.add_argument(
        "--wandb-best", action="store_true", help="send best.pt as an artifact at the end (default: it stays here)"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="checkpoints of networks of one task, one for each task here, such as runs/depth/best.pt: Delta-m against "
        "them after each validation (default: none)",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="read the flags and the config, and end; needs no data"
    )
    parser.add_argument("--dry-run", action="store_true", help="print samples, steps and parameters; train nothing")
    return parser


def run_name(text: str) -> str:
    """A name that is one part of a path. ArgumentTypeError otherwise."""
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} names no folder: at most 100 letters, digits and . _ + = @ -, a letter or a digit first"
        )
    return text


def add_override_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that change what a --config says."""
    parser.add_argument(
        "--gpu",
        type=Path,
        metavar="FILE",
        help="micro-batch, loader processes and precision for a card, such as configs/gpu/24gb.yaml, laid over the "
        "config (default: the config's own)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="over the config's keys, such as training.epochs=3 seed=1; null leaves a task out (default: none)",
    )
