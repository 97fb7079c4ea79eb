"""What a run will do, told before it does it."""

from collections import Counter
from collections.abc import Mapping

from datasets.sampling import epoch_order
from models.multitask import BACKBONE
from training import distributed
from training.build import Network
from training.data import RunData
from training.runs import RunConfig
from training.start import Start


def describe(start: Start, config: RunConfig, data: RunData, network: Network) -> str:
    """Frames, samples, steps and parameters, in a few lines."""
    used = {sample.frame for sample in data.train.samples}
    left_out = {frame for name in data.tasks for frame in data.labelled[name]} - used
    trained = {task.kind for task in data.tasks.values()}
    others = {kind: len(frames) for kind, frames in data.by_kind.items() if kind not in trained and frames}
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    return "\n".join(
        [
            f"split: {data.split.summary()}",
            f"training samples: {len(data.train)}, of {len(used)} frames; with a label of "
            f"{listed(data.samples_per_task())}; "
            f"{len(left_out)} frames left out for want of a label"
            + (f"; fell to kinds that this run does not train: {listed(others)}" if others else ""),
            f"validation samples: {len(data.val.samples)}",
            f"samples planned: {config.training.epochs * len(data.train)}, "
            f"in blocks of {data.block_size}; an epoch has {', '.join(paces(config, data, network))}",
            f"parameters: {parameters / 1e6:.2f} M; precision {network.precision.name}; device {start.device}"
            + (f"; {distributed.processes()} processes" if distributed.processes() > 1 else ""),
        ]
    )


def paces(config: RunConfig, data: RunData, network: Network) -> list[str]:
    """Each group's steps in the first epoch and the mean count at which it steps (if all labels are valid)."""
    samples, groups = data.train.samples, network.updates.groups
    counts, steps, seen = Counter(), Counter(), Counter()
    for block in epoch_order(samples, data.block_size, config.seed, 0, data.sampling):
        counts[BACKBONE] += len(block)
        counts.update(task for visit in block for task in samples[visit.place].tasks)
        for name, group in groups.items():
            if counts[name] and (network.updates.together or counts[name] >= group.config.batch_size):
                steps[name] += 1
                seen[name] += counts.pop(name)
    for name in groups:  # what is left at the epoch's end steps too
        steps[name] += counts[name] > 0
        seen[name] += counts[name]
    return [f"{name} {steps[name]} steps of {seen[name] / max(steps[name], 1):.3g}" for name in groups]


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
