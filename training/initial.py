"""Initial weights from one of this project's own checkpoints (--init-from), whichever training script wrote it.

A network takes parts (its encoder, its BiFPN, a head, or a whole single-task network), each whole or not at all: a part
of which some weights are missing or of another shape starts as it would have without.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from errors import UserError
from models.base import TaskNetwork
from training.compatibility import load_checkpoint


@dataclass(frozen=True)
class Taken:
    """What a network takes from a checkpoint."""

    path: Path
    state: dict[str, Tensor]
    of_group: dict[str, str]  # part of the network -> the group of parameters that it belongs to
    refused: dict[str, str]  # part that is not taken -> why

    @classmethod
    def plan(cls, path: Path, model: TaskNetwork, only: Collection[str]) -> "Taken":
        """only: the groups of parameters (the backbone, tasks) to take; none: all that fit.

        UserError: it is no checkpoint, nothing of it fits, or a group of `only` does not.
        """
        state: dict[str, Tensor] = load_checkpoint(path)[0]["model"]
        of_group = groups_of_parts(model)
        if unknown := sorted({*only} - {*of_group.values()}):
            raise UserError(f"--only {unknown[0]}: the network has {', '.join(dict.fromkeys(of_group.values()))}")
        refused = {}
        for part, group in of_group.items():
            if only and group not in only:
                refused[part] = "not asked for"
            elif why := misfit(part, model.state_dict(), state):
                refused[part] = why
        wanting = [part for part in refused if of_group[part] in only or len(refused) == len(of_group)]
        if wanting:
            raise UserError(f"--init-from {path}: {'; '.join(f'{part}: {refused[part]}' for part in wanting)}")
        return cls(path, state, of_group, refused)

    def holds(self, group: str) -> bool:
        """Whether all of a group's parts are taken."""
        return all(part not in self.refused for part, its in self.of_group.items() if its == group)

    def load(self, model: TaskNetwork) -> None:
        taken = [part for part in self.of_group if part not in self.refused]
        chosen = {name: value for name, value in self.state.items() if any(name.startswith(f"{p}.") for p in taken)}
        model.load_state_dict(chosen, strict=False)

    def __str__(self) -> str:
        taken = ", ".join(part for part in self.of_group if part not in self.refused)
        rest = "; ".join(f"{part} ({why})" for part, why in self.refused.items())
        unused = sorted({name for name in map(part_of, self.state) if name not in self.of_group})
        return (
            f"taken from {self.path}: {taken}"
            + (f"; not taken: {rest}" if rest else "")
            + (f"; of no use here: {', '.join(unused)}" if unused else "")
        )


def groups_of_parts(model: TaskNetwork) -> dict[str, str]:
    """Name of a part (models/base.py: parts) -> the group of its parameters."""
    owners = {parameter: group for group, parameters in model.groups().items() for parameter in parameters}
    return {part: owners[parameter] for parameter, part in parts_by_parameter(model).items()}


def parts_by_parameter(model: TaskNetwork) -> dict[nn.Parameter, str]:
    """Parameter -> the name of the part that it is of."""
    names = {module: name for name, module in model.named_modules()}
    return {parameter: names[part] for part in model.parts() for parameter in part.parameters()}


def part_of(name: str) -> str:
    """The part that a weight of this name is of, in a network of ours: heads have a name each."""
    first, second, *_ = name.split(".")
    return f"{first}.{second}" if first == "heads" else first


def misfit(part: str, ours: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> str:
    """Why the weights of a part can't be taken; empty: they can."""
    mine, theirs = ({k: v for k, v in state.items() if k.startswith(f"{part}.")} for state in (ours, saved))
    if not theirs:
        return "not there"
    if mine.keys() != theirs.keys():
        return f"another network or norm there, {min(mine.keys() ^ theirs.keys())} the first difference"
    other = next((name for name in mine if mine[name].shape != theirs[name].shape), None)
    return "" if other is None else f"{other} has {list(theirs[other].shape)} there, {list(mine[other].shape)} here"
