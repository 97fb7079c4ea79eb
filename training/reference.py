"""Write docs/configuration.md, every key of the configs, from the classes that read them.

python -m training.reference
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from datasets.files import whole_file
from models.registry import HEADS, NETWORKS
from models.settings import PartSettings
from strict import StrictModel
from tasks import TASKS
from tasks.base import Task
from training.compatibility import FREE, ROUNDING
from training.config import GpuConfig, GroupConfig, NetworkConfig, TaskSettings, TrainingConfig
from training.data_config import AugmentationConfig, DataConfig, LabelsConfig, SplitConfig
from training.methods import METHODS
from training.methods.base import MethodSettings
from training.runs import RUN_CONFIGS
from training.runs.asymmetric import AsymmetricTaskConfig
from training.runs.multi_task import HeadConfig
from training.runs.single_task import SingleTaskConfig
from training.tables import markdown

Keys = dict[str, tuple[FieldInfo, str]]  # key -> its field, and what its docstring says
PATH = Path(__file__).parents[1] / "docs" / "configuration.md"
SECTIONS: dict[str, type[StrictModel]] = {
    "data": DataConfig,
    "data.split": SplitConfig,
    "data.labels": LabelsConfig,
    "augmentation": AugmentationConfig,
    "training": TrainingConfig,
}
TOP = ("data", "augmentation", "training", "backbone", "network", "tasks")  # sections of a file
GROUP = "backbone, tasks.NAME (asymmetric); tasks.NAME (single-task); the file's top (symmetric)"
TASK_CONFIGS: dict[str, type[TaskSettings]] = {
    "train_single_task.py": SingleTaskConfig,
    "train_symmetric.py": HeadConfig,
    "train_asymmetric.py": AsymmetricTaskConfig,
}


def document() -> str:
    rounding = f"; `{ROUNDING}` changes weights by rounding, which is said" if ROUNDING in FREE else ""
    parts = [
        "# Configuration",
        "Written by `python -m training.reference` from the classes that read the files. `--set KEY=VALUE` sets a key; "
        "an unknown one is an error.",
        "## What may change on --resume",
        f"`--resume` takes the run's own `config.yaml`. What is given again, by `--config`, `--gpu` or `--set`, must "
        f"agree with it, but for {listed(FREE)}{rounding}. Flags say the rest: the device, and `--extend` for more "
        "epochs.",
        "## The top of a file",
        "Keys of the three training scripts beside their sections.",
        *(
            section(f"train_{kind}.py", own(run, GroupConfig, without=TOP), level=3)
            for kind, run in RUN_CONFIGS.items()
        ),
        *(section(name, fields(kind)) for name, kind in SECTIONS.items()),
        section("A group of parameters", fields(GroupConfig), GROUP),
        section("network", fields(NetworkConfig), "The multi-task network's encoder and BiFPN."),
        "## tasks.NAME",
        *(
            section(script, own(kind, GroupConfig, without=["settings"]), level=3)
            for script, kind in TASK_CONFIGS.items()
        ),
        "## tasks.NAME.settings",
        *(section(name, fields(task.Settings), level=3) for name, task in TASKS.items() if has_own(task)),
        "## tasks.NAME.network (single-task) and tasks.NAME.head (multi-task)",
        f"`name`, or the name alone. Heads: {listed(HEADS)}. Networks with keys of their own:",
        *(section(name, own(part.settings, PartSettings), level=3) for name, part in NETWORKS.items()),
        "## balancing",
        f"`name`, or the name alone: {listed(METHODS)}. Those with keys of their own:",
        *(
            section(name, own(m.settings, MethodSettings), level=3)
            for name, m in METHODS.items()
            if m.settings != MethodSettings
        ),
        section("Files of --gpu", fields(GpuConfig), "`configs/gpu/*.yaml`, laid over a config."),
    ]
    return "\n\n".join(parts) + "\n"


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def has_own(task: type[Task]) -> bool:
    return bool(task.Settings.model_fields)


def own(kind: type[StrictModel], *others: type[StrictModel], without: Iterable[str] = ()) -> Keys:
    """The keys that the other classes do not have, without those named."""
    elsewhere = {key for other in others for key in other.model_fields} | {*without}
    return {key: value for key, value in fields(kind).items() if key not in elsewhere}


def fields(kind: type[StrictModel]) -> Keys:
    texts = {name: text for base in reversed(kind.__mro__) for name, text in docstrings(base)}
    return {field.alias or name: (field, texts.get(name, "")) for name, field in kind.model_fields.items()}


def docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """Of a class's own annotated names: the text that follows each."""
    if not (issubclass(kind, StrictModel) and "__annotations__" in vars(kind)):
        return
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(ast.Constant(str(text))):
                    yield statement.target.id, " ".join(text.split())


def section(name: str, keys: Keys, about: str = "", level: int = 2) -> str:
    rows = [
        [f"`{key}`", kind_of(field.annotation), default_of(field), text]
        for key, (field, text) in keys.items()
        if not is_section(field.annotation)
    ]
    made = markdown([["key", "value", "default", "meaning"], *rows]) if rows else "No keys of its own."
    return "\n\n".join(part for part in (f"{'#' * level} {name}", about, made) if part)


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation in (*SECTIONS.values(), NetworkConfig)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        return "see there"
    default = field.default.name if isinstance(field.default, MethodSettings) else field.default
    return "none" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def kind_of(annotation: Any) -> str:
    """What a value is, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind_of(part) for part in parts if part is not type(None)))
    if origin is list:
        return f"list of {kind_of(parts[0])}s"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, "section")


def main() -> None:
    with whole_file(PATH) as file:
        file.write(document().encode())


if __name__ == "__main__":
    main()
