"""The YAML configs as pydantic models: unknown keys, wrong types and impossible values are one-line errors."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails
from torch import nn

from errors import UserError
from models.encoder import AnyEncoderSettings
from models.multitask import BACKBONE
from models.registry import HEADS, NETWORKS
from models.settings import Channels, Layers, PartSettings
from strict import StrictModel
from strict_yaml import Config, parse_yaml, read_yaml, validated
from tasks import TASKS
from training.data_config import Workers, check_known_kinds, check_unused
from training.methods import METHODS, MethodSettings

Rate = Annotated[float, Field(gt=0, le=1e30)]  # AdamW of float32 parameters overflows above
BatchSize = Annotated[int, Field(gt=0, le=10**6)]
PrecisionName = Literal["auto", "bf16", "fp16", "fp32"]
PARTS = {"network": NETWORKS, "head": HEADS}
SYMMETRIC = "symmetric"  # the mode of all tasks together, beside the tasks' own
ASYMMETRIC = "asymmetric"  # the one mode of asymmetric training
TAKEN = {BACKBONE: "the shared parameters", SYMMETRIC: "a mode", ASYMMETRIC: "a mode"}  # names that are no task's


def is_unset(value: Any) -> bool:
    """Of keys that are not written where they are not used: a config from before they were there is the same one."""
    return not value


class TrainingConfig(StrictModel):
    """The loop."""

    epochs: int = Field(gt=0, le=10**6)
    """Passes over the training samples."""
    precision: PrecisionName = "auto"
    """auto: bf16 where the GPU has it in hardware, else fp16 with loss scaling; fp32 on the CPU."""
    channels_last: bool = True
    """Memory format of images and weights: faster convolutions on GPUs with tensor cores. Parts of a network with group
    norms stay in N x C x H x W, whatever this says (models/memory_format.py)."""
    compile: bool = False
    """torch.compile the network: backbone and heads each by itself."""
    deterministic: bool = False
    """Operations that give the same bits each time, on the same GPU with the same versions; slower."""
    sync_bn: bool = False
    """Batch norm (norm: train) over the samples of all processes, on GPUs, instead of over each one's own."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Share of the planned samples over which the learning rate rises from 0; then half a cosine down to 0."""
    clip: PositiveFloat = 10.0
    """Largest norm of a group's gradient."""
    validate_every: PositiveInt = 1
    """Epochs between validations; the last epoch is always validated."""
    similarity_every: NonNegativeInt = 0
    """Steps of the backbone between two measurements of the cosine similarity of the tasks' gradients; 0: never, as
    where one task trains alone."""
    images: NonNegativeInt = 4
    """Validation frames, always the same, that are drawn after each validation (runs/NAME/images and dashboard)."""
    keep_images: PositiveInt = 10
    """Validations whose pictures go to the dashboard, evenly over the training; the run's folder keeps those of the
    best and of the last one."""
    ema: float | None = Field(None, gt=0, lt=1, exclude_if=is_unset)
    """Decay of a moving average of the weights (training/averaging.py), such as 0.999: it is then what is validated and
    saved as best."""
    patience: PositiveInt | None = Field(None, exclude_if=is_unset)
    """Validations without a better score after which training ends. The learning rate falls over all epochs that are
    planned, so a run that ends early has not seen its smallest rates."""
    freeze: list[str] = Field([], exclude_if=is_unset)
    """Groups of parameters that do not learn: backbone, or tasks, whose heads are meant. Their norms keep their
    statistics. The weight of a frozen task stays (balancing uncertainty)."""
    log_every: PositiveInt = 20
    """Steps between two lines of losses in metrics.jsonl and on the dashboard."""

    @model_validator(mode="after")
    def _keeps_images_that_are_drawn(self) -> Self:
        check_unused(self, ["keep_images"], "images above 0", used=self.images > 0)
        return self


class GroupConfig(StrictModel):
    """One group of parameters: its optimiser (AdamW) and how many samples it sees before it steps."""

    batch_size: BatchSize
    """Samples with a valid label between two steps, at least."""
    learning_rate: Rate
    """The peak of the schedule (training.warmup)."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's; not of biases and norms."""


class TaskSettings(StrictModel):
    """Base of a task's section."""

    label: str | None = None
    """The kind of its labels (a file of tasks/); default: the task's name."""
    roots: list[str] | None = Field(None, alias="from", min_length=1)
    """The data sets that its labels are from; default: all that have this kind."""

    settings: SerializeAsAny[StrictModel] | dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """The task's own keys (class Settings in tasks/NAME.py)."""


class NetworkConfig(AnyEncoderSettings):
    """The multi-task network (models/multitask.py). Its BiFPN and its heads have group norms, whatever `norm` says."""

    encoder_rate: Rate = 1.0
    """The encoder's learning rate as a factor of the backbone's."""
    channels: Channels = 256
    """Channels of the BiFPN and of what the heads read."""
    layers: Layers = 2
    """BiFPN layers."""


def with_task_settings(tasks: Any, part: str) -> Any:
    """The sections with their `settings` checked by the task that they name, and their network or head (`part`).

    ValueError: an unknown task, or a name that none can have.

    A task whose section is null is left out of training.
    """
    if not isinstance(tasks, dict):
        raise ValueError("must hold one section a task")
    tasks = {name: section for name, section in tasks.items() if section is not None}
    if numbers := [name for name in tasks if not isinstance(name, str)]:
        raise ValueError(f"{numbers[0]} is not a name of a task; put it in quotes")
    if not tasks:
        raise ValueError("must hold one section a task")
    for name in tasks:
        check_task_name(name)
    return {
        name: section
        if not isinstance(section, dict)
        else with_kind_settings(name, label_of(name, section), section, part)
        for name, section in tasks.items()
    }


def check_task_name(name: str) -> None:
    """ValueError unless files, groups of parameters, modes and modules can be called so."""
    if name in TAKEN:
        wrong = f"that is what {TAKEN[name]} is called"
    elif hasattr(nn.ModuleDict(), name):
        wrong = "torch's modules have that word for themselves"
    elif not re.fullmatch(r"[A-Za-z0-9_][\w+-]*", name):
        wrong = "a name is one word of letters, digits, '_', '-' and '+'"
    else:
        return
    raise ValueError(f"{name!r} can't be a task's name: {wrong}; choose another and name its kind in `label`")


def label_of(task: str, section: Mapping[str, Any]) -> str:
    """The kind of a task's labels. ValueError: there is no such kind."""
    kind = section.get("label") or task
    if not isinstance(kind, str) or kind not in TASKS:
        raise ValueError(f"{task}: unknown kind of label {kind}; there are {', '.join(TASKS)} (tasks.{task}.label)")
    return kind


def with_kind_settings(task: str, kind: str, section: dict[str, Any], part: str) -> dict[str, Any]:
    """A task's section with what the kind of its labels decides: its settings, and its network or head."""
    return {
        **section,
        "settings": checked(TASKS[kind].Settings, settings_of(section), task, "settings"),
        part: part_settings(task, kind, part, section.get(part)),
    }


def settings_of(section: Mapping[str, Any]) -> Any:
    """`settings:` without a value is none; false or 0 are for its model to refuse."""
    return {} if section.get("settings") is None else section["settings"]


def part_settings(task: str, kind_of_label: str, part: str, content: Any) -> PartSettings:
    """Of a task's network or head, from its name alone, a section, or nothing: then the task's own."""
    if isinstance(content, PartSettings):
        return content
    kind = TASKS[kind_of_label]
    wanted = HEADS[kind.default_head].outputs.keys()
    fitting = {name: one for name, one in PARTS[part].items() if one.outputs.keys() == wanted}
    section = {"name": content} if isinstance(content, str) else {} if content is None else content
    name = section.get("name", getattr(kind, f"default_{part}")) if isinstance(section, dict) else None
    if not isinstance(name, str) or name not in fitting:
        raise ValueError(f"{task}.{part} must name one of {', '.join(fitting) or '(none fits this task)'}")
    return checked(fitting[name].settings, {"name": name, **section}, task, part)


def checked(kind: type[Config], content: Any, *path: str) -> Config:
    """The content of a section whose kind another key decides; errors name its place below the field in hand."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:  # pydantic puts the field before the names of the keys; give the whole path
        details = [
            InitErrorDetails(type=detail["type"], loc=(*path, *detail["loc"]), input=detail["input"])
            | ({"ctx": detail["ctx"]} if "ctx" in detail else {})
            for detail in error.errors()
        ]
        raise ValidationError.from_exception_data(error.title, details) from None


def method_settings(content: Any) -> MethodSettings:
    """Of a balancing method, from its name alone or a section with its name and parameters."""
    if isinstance(content, MethodSettings):
        return content
    section = {"name": content} if isinstance(content, str) else content
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"must be one of {', '.join(METHODS)}, or a section with that name and parameters")
    return checked(METHODS[name].settings, section)


class MicroBatchSizes(StrictModel):
    """`micro_batch_size` of each training script."""

    single_task: dict[str, BatchSize] = {}
    """Task -> its section's."""
    symmetric: BatchSize | None = None
    asymmetric: BatchSize | None = None

    @field_validator("single_task")
    @classmethod
    def _known(cls, sizes: dict[str, int]) -> dict[str, int]:
        check_known_kinds(sizes)
        return sizes

    def keys(self, kind: str, tasks: Iterable[str]) -> dict[str, int | None]:
        """Key of the config of a kind of run -> value; tasks: those that the config has."""
        if kind == "single_task":
            return {f"tasks.{name}.micro_batch_size": self.single_task.get(name) for name in tasks}
        return {"micro_batch_size": getattr(self, kind)}


class GpuConfig(StrictModel):
    """What a GPU decides and a result does not depend on (configs/gpu): laid over the config of any training script."""

    workers: Workers
    """data.workers"""
    precision: PrecisionName
    """training.precision"""
    micro_batch_size: MicroBatchSizes
    """Of each training script: single_task: {TASK: SIZE}, symmetric: SIZE, asymmetric: SIZE."""

    def keys(self, kind: str, tasks: Iterable[str]) -> dict[str, Any]:
        """Key of the config of a kind of run -> value. ValueError: it says nothing of a micro_batch_size there."""
        sizes = self.micro_batch_size.keys(kind, tasks)
        if missing := [key for key, size in sizes.items() if size is None]:
            raise ValueError(f"micro_batch_size: nothing for {missing[0]} of {kind} training")
        return {"data.workers": self.workers, "training.precision": self.precision, **sizes}


class KindOfRun(StrictModel):
    """The config of a training script (training/runs)."""

    kind: ClassVar[str]  # the name in checkpoints


Run = TypeVar("Run", bound=KindOfRun)


def load_config(kind: type[Run], path: Path, overrides: list[str], gpu: Path | None = None) -> Run:
    """Read a YAML file, lay a GPU's over it, apply `KEY=VALUE` overrides (`training.epochs=3`), validate.

    UserError (one line with file and key) for a missing or broken file and for every key that is wrong.
    """
    content, source = read_yaml(path), str(path)
    if gpu is not None:
        source += f" with {gpu}"
        lay_over(content, gpu, kind.kind, source)
    for override in overrides:
        apply_override(content, override)
    return validated(kind, content, f"{source}{' with --set' if overrides else ''}")


def lay_over(content: dict[str, Any], gpu: Path, kind: str, source: str) -> None:
    """Set a GPU's keys in the content of a config, in place; tasks that the config leaves out stay out."""
    sections = content.get("tasks")
    tasks = [name for name, section in sections.items() if section is not None] if isinstance(sections, dict) else []
    try:
        keys = validated(GpuConfig, read_yaml(gpu), str(gpu)).keys(kind, tasks)
    except ValueError as error:
        raise UserError(f"{gpu}: {error}") from None
    for key, value in keys.items():
        set_key(content, key, value, source)


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set the key of a `KEY=VALUE` in place; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: not of the form KEY=VALUE, such as training.epochs=3")
    try:
        value = parse_yaml(value)
    except ValueError as error:
        raise UserError(f"--set {override}: the value: {' '.join(str(error).split())}") from None
    task = key.removeprefix("tasks.")
    if value is None and task != key and "." not in task and task not in (content.get("tasks") or {}):
        raise UserError(f"--set {override}: there is no task {task}; there are {', '.join(content.get('tasks') or {})}")
    set_key(content, key, value, f"--set {override}")


def set_key(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a key such as training.epochs in place; UserError, begun with `source`: part of it is no section."""
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UserError(f"{source}: {section} is a value, not a section")
    content[last] = value


def to_yaml(config: StrictModel) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
