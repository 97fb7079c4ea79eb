"""Trains several runs one after the other as the scripts do, but in float64, without dropout.

Started by the tests of several processes. Argument: a JSON file with a list of runs, each {"script", "flags"} and
stop_after: the stop file appears at so many micro-batches of rank 0;  die_at: the last rank dies there;
formula: the network starts from the weights of tests/training/golden.py.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import train_asymmetric
import train_single_task
import train_symmetric
from errors import run_as_script
from tests.training.golden import set_weights
from training import build, distributed
from training.loop import Trainer
from training.panels import Panels
from training.step import Sums

SCRIPTS = {script.__name__: script for script in (train_single_task, train_symmetric, train_asymmetric)}


def disturb(stop_after: int | None, die_at: int | None) -> None:
    """Rank 0 asks for a stop, or the last rank dies, at a micro-batch of its own."""
    accumulate, calls = Trainer._accumulate, []

    def disturbed(self: Trainer, batch: object) -> Sums:
        calls.append(batch)
        if distributed.is_main() and len(calls) == stop_after:
            Path(os.environ["A2D2_STOP_FILE"]).touch()
        if distributed.rank() == distributed.processes() - 1 and len(calls) == die_at:
            raise RuntimeError("this process dies")
        return accumulate(self, batch)

    Trainer._accumulate = disturbed


def start_from_formula(make: type[Trainer], **parts: Any) -> Trainer:
    set_weights(parts["model"])
    return make(**parts)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    Panels.show_plots = lambda *_, **__: None  # a second a run, and the same pictures in any number of processes
    nn.Dropout.forward = nn.Dropout2d.forward = lambda self, x: x
    keep_group, distributed.stop = distributed.stop, lambda: None
    original = Trainer._accumulate
    for run in json.loads(Path(sys.argv[1]).read_text()):
        Trainer._accumulate = original
        disturb(run.get("stop_after"), run.get("die_at"))
        build.Trainer = partial(start_from_formula, Trainer) if run.get("formula") else Trainer
        sys.argv[1:] = run["flags"]
        SCRIPTS[run["script"]].main()
        stop_file = Path(os.environ["A2D2_STOP_FILE"])
        distributed.from_main(lambda path=stop_file: path.unlink(missing_ok=True))
    keep_group()


if __name__ == "__main__":
    run_as_script(main)
