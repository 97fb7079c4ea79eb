"""A study's YAML: rows, how their learning rates are chosen, seeds, and the comparison that it was made for."""

import itertools
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator, model_validator

from arguments import MAX_SEEDS
from errors import UserError
from strict import StrictModel
from strict_yaml import read_yaml, validated

Script = Literal["single_task", "symmetric", "asymmetric"]


class Row(StrictModel):
    """One row of the tables: a training script with its settings, run once for each seed."""

    script: Script
    mode: str | None = None
    """--train-mode; default: the script's own."""
    labels: str
    """Which labels it trains on, in words for the tables."""
    set: dict[str, Any] = {}
    """Keys of the run's config, such as data.labels.regime, over the study's own."""
    flags: list[str] = []
    """Further flags of the training script, such as --force-trained-norms."""
    rates: list[PositiveFloat] | None = None
    """The grid of its learning rates; default: the study's."""
    curve: str | None = None
    """The line of the plot against the share of the labels that it is a point of."""
    share: float | None = Field(None, gt=0, le=1)
    """Where on that line."""


class Tuning(StrictModel):
    """How learning rates are chosen: on validation, the same small grid for every row, on one seed."""

    seed: NonNegativeInt = 0
    rates: list[PositiveFloat] = Field(min_length=1)
    decays: list[float] = Field([0.01], min_length=1)
    """Weight decays that each rate is tried with."""
    set: dict[str, Any] = {}
    """Keys that differ from those of the final runs."""


class Comparison(StrictModel):
    """A row against its baselines, seed by seed: each task's difference, and Delta-m over all of its tasks."""

    row: str
    against: dict[str, str]
    """Task -> the row that it is compared with."""
    asks: str
    """The question that it answers, a sentence."""
    expected: Literal["better", "worse"] | None = None
    """What was expected before any run; a result that is not so is named among the surprises."""


class DataSets(StrictModel):
    """What the study is run on."""

    roots: list[str] = Field(min_length=1)
    """Names of the data sets, as their dataset.json says: --processed-root must give these."""
    about: str
    limits: str = ""
    """What must be said wherever the numbers are shown."""
    make: list[str] = []
    """Commands that make the processed roots."""
    labels: dict[str, NonNegativeInt] = {}
    """Kind -> frames with such a label that final runs train on: for --dry-run where the data are not here. Frames with
    the rarer labels count among those with the commoner ones; of several data sets, no frame has two kinds."""


class Scale(StrictModel):
    """Another size of the same study (--scale NAME): what differs."""

    about: str
    tflops: PositiveFloat
    """Of the GPU that --dry-run assumes, sustained."""
    data: DataSets | None = None
    seeds: list[NonNegativeInt] | None = Field(None, max_length=MAX_SEEDS)
    scripts: dict[Script, str] = {}
    set: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    """Row -> keys over its own."""
    rates: list[PositiveFloat] | None = None
    row_rates: dict[str, list[PositiveFloat]] = {}
    """Row with a grid of its own -> the grid at this size."""


class StudyConfig(StrictModel):
    """configs/study/NAME.yaml."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    question: str
    data: DataSets
    seeds: list[NonNegativeInt] = Field(min_length=1, max_length=MAX_SEEDS)
    """Seeds of the final runs: of the initial weights, of the order, and of which labels are kept."""
    scripts: dict[Script, str]
    """Training script -> its config file."""
    set: dict[str, Any] = {}
    """Keys for all runs, over the config files'."""
    tuning: Tuning
    final: dict[str, Any] = {"data.split.train_on_val": True}
    """Keys for the final runs alone."""
    notes: str = ""
    """What a reader of the results must know of the runs."""
    rows: dict[str, Row] = Field(min_length=1)
    comparisons: dict[str, Comparison] = {}
    primary: str
    """The one comparison that the study was made for; the others are looks, not tests."""
    scales: dict[str, Scale] = {}
    tflops: PositiveFloat | None = None
    """Of the GPU that --dry-run assumes where there is none, sustained; else a step is measured."""

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds}: a seed is there twice")
        return seeds

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name, row in self.rows.items():
            if row.script not in self.scripts:
                raise ValueError(f"rows.{name}: scripts has no config for {row.script}")
        for name, comparison in self.comparisons.items():
            for named in (comparison.row, *comparison.against.values()):
                if named not in self.rows:
                    raise ValueError(f"comparisons.{name}: there is no row {named!r}; there are {', '.join(self.rows)}")
        for name, scale in self.scales.items():
            if unknown := sorted((scale.rows.keys() | scale.row_rates.keys()) - self.rows.keys()):
                raise ValueError(f"scales.{name}: there is no row {unknown[0]!r}")
            own = [row for row, section in self.rows.items() if section.rates]
            if scale.rates and (left := [row for row in own if row not in scale.row_rates]):
                raise ValueError(f"scales.{name}: rows.{left[0]} has a grid of its own; row_rates must say which")
        if self.primary not in self.comparisons:
            raise ValueError(f"primary: there is no comparison {self.primary!r}")
        if self.tuning.seed in self.seeds:
            raise ValueError(f"tuning.seed: {self.tuning.seed} is among the seeds of the final runs")
        return self

    def with_seeds(self, count: int | None) -> "StudyConfig":
        """The study with so many seeds, the whole numbers that follow after its own. UserError: fewer than one."""
        if count is None:
            return self
        if count < 1:
            raise UserError(f"--seeds {count}: one at least")
        following = range(max(self.seeds) + 1, max(self.seeds) + 1 + count)
        return self.model_copy(update={"seeds": [*self.seeds, *following][:count]})

    def rates_of(self, row: str) -> list[float]:
        return self.rows[row].rates or self.tuning.rates

    def at_scale(self, name: str) -> "StudyConfig":
        """The same study at another size, under a name of its own. UserError: there is no such scale."""
        if name not in self.scales:
            raise UserError(f"--scale {name}: {self.name} has {', '.join(self.scales) or 'no other scale'}")
        scale = self.scales[name]
        changed: dict[str, Any] = {"name": f"{self.name}_{name}", "set": self.set | scale.set, "scales": {}}
        changed["scripts"] = self.scripts | scale.scripts
        changed |= {"data": scale.data or self.data, "seeds": scale.seeds or self.seeds, "tflops": scale.tflops}
        changed["rows"] = {
            row: section.model_copy(
                update={"set": section.set | scale.rows.get(row, {}), "rates": scale.row_rates.get(row, section.rates)}
            )
            for row, section in self.rows.items()
        }
        if scale.rates:
            changed["tuning"] = self.tuning.model_copy(update={"rates": scale.rates})
        return self.model_copy(update=changed)


def load_study(path: Path) -> StudyConfig:
    """UserError (one line with file and key) for a missing or broken file and for every key that is wrong."""
    content = read_yaml(path)
    scales = content["scales"].values() if isinstance(content.get("scales"), dict) else ()
    for part in (content, *scales):
        for section in ("rows", "comparisons"):
            if isinstance(part, dict) and isinstance(part.get(section), dict):
                part[section] = expanded(part[section])
    return validated(StudyConfig, content, str(path))


def expanded(sections: dict[str, Any]) -> dict[str, Any]:
    """Sections with `each` as one section for each combination of its values, their placeholders replaced.

    each: {share: [1.0, 0.1]} puts these where `{share}` stands; {point: [{share: 1.0, epochs: 8}, ...]} several.
    """
    result = {}
    for name, section in sections.items():
        each = section.pop("each", {}) if isinstance(section, dict) else {}
        for values in itertools.product(*each.values()):
            chosen: dict[str, Any] = {}
            for key, value in zip(each, values, strict=True):
                chosen |= value if isinstance(value, dict) else {key: value}
            result[filled(name, chosen)] = filled(section, chosen)
    return result


def filled(content: Any, values: dict[str, Any]) -> Any:
    """The content with `{placeholder}` replaced in all of its texts; a text that is nothing else becomes the value."""
    if isinstance(content, dict):
        return {filled(key, values): filled(value, values) for key, value in content.items()}
    if isinstance(content, list):
        return [filled(value, values) for value in content]
    if not isinstance(content, str):
        return content
    for name, value in values.items():
        if content == f"{{{name}}}":
            return value
        content = content.replace(f"{{{name}}}", str(value))
    return content
