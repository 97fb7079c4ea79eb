"""Forward passes over a split and the tasks' metrics: validation during training and evaluate.py."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import signals
from datasets.samples import Batch, Collate, LabelledFrames
from tasks.base import Task
from training import distributed

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric

Results = dict[str, dict[str, float]]  # task -> metric -> value


class Precision:
    """Autocast as a config's `precision` says.

    auto: bf16 where the GPU has it in hardware, else fp16; fp32 on the CPU.
    """

    def __init__(self, name: str, device: torch.device):
        if name == "auto":
            name = _best_precision(device)
        self.name, self.device = name, device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def _best_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def make_loader(
    dataset: LabelledFrames, tasks: Mapping[str, Task], workers: int, device: torch.device, **how: Any
) -> DataLoader:
    """A DataLoader of Batches; `how`: batch_size or batch_sampler."""
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=Collate(tasks),
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        # a generator of its own: starting a loader must not move the global random state
        generator=torch.Generator(),
        **how,
    )


def _start_worker(worker: int) -> None:
    """Signals reach every process of a job; only the one that started this one acts on them, and it needs it."""
    signals.ignore_signals()
    sys.excepthook = _show_unless_hung_up


def _show_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread that hands tensors over shows its errors so. A script that ends while it takes one needs no traceback
    of the worker's beside its own message."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def evaluate(
    forward: Callable[..., dict[str, Any]],
    tasks: Mapping[str, Task],
    batches: Iterable[Batch],
    precision: Precision,
    look: "Callable[[Task, Metric], None] | None" = None,
    bound: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """Every task's metrics and mean loss over the batches of all processes; a task without any label has no entry.

    bound: task -> the data sets that its labels are from; of several, each has metrics of its own beside those over all
    (`miou@cityscapes`).

    forward(images, places) -> {task: output}, as in models/multitask.py; the network is in evaluation mode already.
    look: shown each task's metric once it is complete.
    """
    metrics = {name: task.metric().to(precision.device) for name, task in tasks.items()}
    by_root = {
        (name, root): tasks[name].metric().to(precision.device)
        for name, roots in (bound or {}).items()
        for root in (roots if name in tasks and len(roots) > 1 else ())
    }
    # losses and valid samples stay on the device: reading them here would wait for it after every batch
    sums = {name: torch.zeros(2, dtype=torch.float64, device=precision.device) for name in tasks}
    with torch.inference_mode():
        for batch in batches:
            if not batch.targets:
                continue
            batch = batch.to(precision.device)
            with precision.autocast():
                outputs = forward(batch.images, batch.places)
            for name, target in batch.targets.items():
                outputs[name] = tasks[name].at_size_of(target, outputs[name])
                losses, valid = tasks[name].loss(outputs[name], target)
                sums[name] += torch.stack([losses.sum(), valid.sum()])
                metrics[name].update(tasks[name].decode(outputs[name]), target)
            for (name, root), metric in by_root.items():
                update_with(metric, tasks[name], outputs, batch, root)
    distributed.sum_tensors(*sums.values())
    results = {}
    for name in tasks:
        loss, count = sums[name].tolist()
        if count > 0:
            results[name] = {"loss": loss / count, **metrics[name].compute()}  # of all processes: compute merges them
            for (_, root), metric in ((key, metric) for key, metric in by_root.items() if key[0] == name):
                values = {key: value for key, value in metric.compute().items() if "/" not in key}
                results[name] |= {f"{key}@{root}": value for key, value in values.items()}
            if look:
                with metrics[name].sync_context():
                    look(tasks[name], metrics[name])
    return results


def update_with(metric: "Metric", task: Task, outputs: Mapping[str, Any], batch: Batch, root: str) -> None:
    """Show a metric the samples of one data set."""
    if task.name not in batch.targets:
        return
    places = batch.places[task.name]
    frames = batch.frames if places is None else [batch.frames[place] for place in places.tolist()]
    chosen = [index for index, frame in enumerate(frames) if frame.dataset == root]
    if chosen:
        target = {key: rows_of(value, chosen) for key, value in batch.targets[task.name].items()}
        metric.update(task.decode(outputs[task.name][chosen]), target)


def rows_of(values: Tensor, chosen: list[int]) -> Tensor:
    """Those samples of a target. On a GPU torch can't pick from uint16: the bits are taken as int16."""
    bits = values.view(torch.int16) if values.dtype == torch.uint16 else values
    return bits[chosen].view(values.dtype)
