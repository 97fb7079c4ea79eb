"""From a study's config to its runs: ordinary runs of the training scripts, each known by a hash of its settings."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from studying.config import StudyConfig
from training.config import load_config
from training.runs import ASYMMETRIC, RUN_CONFIGS, SYMMETRIC, RunConfig

ROOT = Path(__file__).resolve().parents[1]
MODES = {"symmetric": SYMMETRIC, "asymmetric": ASYMMETRIC}  # --train-mode where a row names none
Choice = dict[str, float]  # learning_rate and weight_decay


@dataclass(frozen=True)
class Run:
    """One run of a training script."""

    row: str
    seed: int
    purpose: str  # tuning (judged on validation) or final (judged on test)
    choice: Choice
    script: str
    mode: str
    config_file: Path
    overrides: tuple[str, ...]  # KEY=VALUE, as --set takes them
    roots: tuple[str, ...]  # names of the data sets
    flags: tuple[str, ...] = ()  # further ones of the script

    @cached_property
    def config(self) -> RunConfig:
        """With all that it does not say itself. UserError: a key is wrong."""
        return loaded(self.script, self.mode, self.config_file, self.overrides)

    @cached_property
    def key(self) -> str:
        """Of all that decides the result but the code, with its defaults, and the data's content: a key of the config
        that comes new leaves it as it is."""
        settings: dict[str, Any] = {
            "script": self.script,
            "mode": self.mode,
            "purpose": self.purpose,
            "roots": self.roots,
        }
        settings |= {"flags": self.flags} if self.flags else {}
        settings["config"] = self.config.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Of its folder."""
        row = re.sub(r"[^a-z0-9]+", "-", self.row.lower()).strip("-")[:60]
        return f"{self.purpose}-{row}-seed{self.seed}-{self.key}"

    @property
    def title(self) -> str:
        """For messages."""
        chosen = ", ".join(f"{name} {value:g}" for name, value in self.choice.items())
        return f"{self.purpose} run of '{self.row}', seed {self.seed}, {chosen}"


def tuning_runs(study: StudyConfig) -> list[Run]:
    """Every row with every choice of the grid, on the one seed."""
    return [make_run(study, row, study.tuning.seed, choice) for row in study.rows for choice in choices(study, row)]


def final_runs(study: StudyConfig, chosen: dict[str, Choice]) -> list[Run]:
    """Every row whose rate is chosen, seed by seed: where a study is cut off, its seeds are complete."""
    return [
        make_run(study, row, seed, chosen[row], final=True)
        for seed in study.seeds
        for row in study.rows
        if row in chosen
    ]


def all_runs(study: StudyConfig, chosen: dict[str, Choice]) -> list[Run]:
    """Tuning and final ones; a final run whose rate is not chosen yet is there with the first of its grid."""
    return [*tuning_runs(study), *final_runs(study, {row: choices(study, row)[0] for row in study.rows} | chosen)]


def choices(study: StudyConfig, row: str) -> list[Choice]:
    pairs = product(study.rates_of(row), study.tuning.decays)
    return [{"learning_rate": rate, "weight_decay": decay} for rate, decay in pairs]


def make_run(study: StudyConfig, row: str, seed: int, choice: Choice, *, final: bool = False) -> Run:
    """UserError: a key of the config is wrong."""
    section = study.rows[row]
    mode = section.mode or MODES[section.script]
    file = ROOT / study.scripts[section.script]
    settings = study.set | section.set | (study.final if final else study.tuning.set)
    config = loaded(section.script, mode, file, as_overrides(settings))
    settings |= {f"{group}{key}": value for group in groups(config, mode) for key, value in choice.items()}
    settings["seed"] = seed
    if config.data.labels.regime != "every":
        settings["data.labels.seed"] = seed
    return Run(
        row=row,
        seed=seed,
        purpose="final" if final else "tuning",
        choice=choice,
        script=section.script,
        mode=mode,
        config_file=file,
        overrides=as_overrides(settings),
        roots=tuple(study.data.roots),
        flags=tuple(section.flags),
    )


def groups(config: RunConfig, mode: str) -> list[str]:
    """Where a config says the learning rates of a mode's groups of parameters: the sections' keys, with a dot."""
    if config.kind == "symmetric":
        return [""]
    if config.kind == "single_task":
        return [f"tasks.{mode}."]
    return ["backbone.", *(f"tasks.{task}." for task in config.tasks)]


def as_overrides(settings: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())


@cache  # the runs of a study are listed each time that its results are written
def loaded(script: str, mode: str, file: Path, overrides: tuple[str, ...]) -> RunConfig:
    return load_config(RUN_CONFIGS[script], file, list(overrides)).of_mode(mode, file)
