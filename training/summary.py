"""What a run will do, told before it does it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from datasets.sampling import epoch_order
from models.multitask import BACKBONE
from training import distributed
from training.build import Network
from training.data import RunData
from training.initial import parts_by_parameter
from training.methods.base import Balancing
from training.runs import RunConfig
from training.start import Start
from training.tables import aligned


def describe(start: Start, config: RunConfig, data: RunData, network: Network) -> str:
    """Frames, samples, steps and parameters, in a few lines."""
    used = {sample.frame for sample in data.train.samples}
    left_out = {frame for name in data.tasks for frame in data.labelled[name]} - used
    trained = {task.kind for task in data.tasks.values()}
    others = {kind: len(frames) for kind, frames in data.by_kind.items() if kind not in trained and frames}
    steps = steps_of_epoch(config, data, network)
    return "\n".join(
        [
            f"split: {data.split.summary()}",
            *unused(config, data),
            f"training samples: {len(data.train)}, of {len(used)} frames; with a label of "
            f"{listed(data.samples_per_task())}; "
            f"{len(left_out)} frames left out for want of a label"
            + (f"; fell to kinds that this run does not train: {listed(others)}" if others else ""),
            *untrained(data),
            *unused_weights(config, network.balancing),
            f"validation samples: {len(data.val.samples)}",
            f"samples planned: {config.training.epochs * len(data.train)}, "
            f"in blocks of {data.block_size}; an epoch has {', '.join(paces(steps))}",
            *short_steps(steps, network),
            f"parameters: {numbers(network.model.parameters()) / 1e6:.2f} M; "
            f"precision {network.precision.name}; device {start.device}"
            + (f"; {distributed.processes()} processes" if distributed.processes() > 1 else ""),
            *([group_table(network)] if start.args.dry_run else []),
        ]
    )


def group_table(network: Network) -> str:
    """What is in each group of parameters, at which rate and decay, and how many there are; a line for each part of it
    that has its own."""
    names, model = parts_by_parameter(network.model), network.model
    rows = [["group", "holds", "batch", "learning rate", "decay", "parameters"]]
    for name, parameters in model.groups().items():
        if (group := network.updates.groups.get(name)) is None:
            rows.append([name, holds(parameters, names), "", "frozen", "", f"{numbers(parameters):,}"])
            continue
        for part in group.optimizer.param_groups:
            settings = [str(group.config.batch_size), f"{part['initial_lr']:g}", f"{part['weight_decay']:g}"]
            rows.append([name, holds(part["params"], names), *settings, f"{numbers(part['params']):,}"])
    return aligned(rows)


def holds(parameters: Sequence[nn.Parameter], names: Mapping[nn.Parameter, str]) -> str:
    """The parts of the network that the parameters are of; others are the balancing's."""
    parts = ", ".join(dict.fromkeys(names.get(parameter, "weights of losses") for parameter in parameters))
    return f"{parts}: biases, norms" if all(p.ndim == 1 for p in parameters) else parts


def numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def unused(config: RunConfig, data: RunData) -> Iterator[str]:
    """A line where more than a tenth of the frames are of no split."""
    count, split = len(data.split.unused), data.split
    frames = {*split.train, *split.val, *split.test, *split.unused}
    if count > len(frames) / 10:
        why = (
            "gaps between splits: data.split.gap_seconds and gap_frames"
            if config.data.split.mode == "time"
            else "no split"
        )
        yield f"of {len(frames)} frames {count} are not used, {100 * count / len(frames):.0f} % ({why})"


def untrained(data: RunData) -> Iterator[str]:
    """A line for each task that no training sample has a label of."""
    for name, count in data.samples_per_task().items():
        if not count:
            yield f"{name} has no training sample: its head does not learn, and it counts for no score"


def unused_weights(config: RunConfig, balancing: Balancing) -> Iterator[str]:
    """A line where the config weighs tasks and the balancing does not ask for it."""
    if balancing.uses_weights:
        return
    if given := [name for name in config.task_names() if config.tasks[name].weight != 1]:
        yield f"the balancing learns its own weights: tasks.NAME.weight of {', '.join(given)} is not used"


def paces(steps: Mapping[str, Sequence[int]]) -> list[str]:
    """steps: as from `steps_of_epoch`. Each group's steps in the first epoch and the mean count at which it steps."""
    return [f"{name} {len(counts)} steps of {sum(counts) / max(len(counts), 1):.3g}" for name, counts in steps.items()]


def short_steps(steps: Mapping[str, Sequence[int]], network: Network) -> Iterator[str]:
    """A line where the last step of an epoch has fewer samples than a batch."""
    groups = network.updates.groups
    watched = list(steps)[:1] if network.updates.together else list(steps)  # together: by the frames, which all count
    short = [
        f"{name} {steps[name][-1]} of {groups[name].config.batch_size}"
        for name in watched
        if steps[name] and steps[name][-1] < groups[name].config.batch_size
    ]
    if short:
        yield f"the last step of the first epoch has fewer samples than a batch: {', '.join(short)}"


def steps_of_epoch(config: RunConfig, data: RunData, network: Network) -> dict[str, list[int]]:
    """Group -> the samples of each of its steps in the first epoch, if all labels are valid."""
    samples, groups = data.train.samples, network.updates.groups
    counts: Counter[str] = Counter()
    steps: dict[str, list[int]] = {name: [] for name in groups}
    for block in epoch_order(samples, data.block_size, config.seed, 0, data.sampling):
        counts[BACKBONE] += len(block)
        counts.update(task for visit in block for task in samples[visit.place].tasks)
        for name, group in groups.items():
            if counts[name] and (network.updates.together or counts[name] >= group.config.batch_size):
                steps[name].append(counts.pop(name))
    for name in groups:  # what is left at the epoch's end steps too
        if counts[name]:
            steps[name].append(counts[name])
    return steps


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
