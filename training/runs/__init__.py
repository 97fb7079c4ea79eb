"""The three kinds of run, one a file: each a config with what it means for tasks, samples, network, groups, balancing.

The training scripts and evaluate.py know only `RunConfig`.
"""

from collections.abc import Container

from training.config import ASYMMETRIC, SYMMETRIC
from training.runs.asymmetric import AsymmetricRun
from training.runs.base import RunConfig
from training.runs.single_task import SingleTaskRun
from training.runs.symmetric import SymmetricRun

__all__ = [
    "ASYMMETRIC",
    "RUN_CONFIGS",
    "SYMMETRIC",
    "AsymmetricRun",
    "RunConfig",
    "SingleTaskRun",
    "SymmetricRun",
    "kind_of",
]

# the name that checkpoints give their kind of run -> its class
RUN_CONFIGS: dict[str, type[RunConfig]] = {run.kind: run for run in (SingleTaskRun, SymmetricRun, AsymmetricRun)}


def kind_of(content: Container[str]) -> type[RunConfig]:
    """Which script's a config is, by the keys of the file that only that one has."""
    if "backbone" in content:
        return AsymmetricRun
    multi_task = any(key in content for key in ("network", "micro_batch_size", "batch_size"))
    return SymmetricRun if multi_task else SingleTaskRun
