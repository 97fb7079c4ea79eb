"""A network rebuilt from its checkpoint alone, checked against the data that it is to see."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datasets.a2d2.raw import RawData
from datasets.layout import fits_folder
from datasets.processed import ProcessedData
from datasets.roots import Roots
from datasets.samples import Batch, LabelledFrames, Sample
from datasets.spec import LabelSpec
from datasets.splits import Split
from errors import UserError
from models.base import TaskNetwork
from models.multitask import BACKBONE
from progress import warn
from strict import StrictModel
from tasks.base import Task
from training import checkpoint
from training.binding import labelled_samples
from training.compatibility import check_fits, load_checkpoint
from training.data import kept_labels, of_tasks
from training.data_config import LabelsConfig
from training.evaluation import Precision, Results, evaluate, make_loader
from training.fits import Fits, LabelReader, evaluate_constant
from training.runs import RunConfig

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric


@dataclass(frozen=True)
class Rebuilt:
    """A checkpoint with the network that it describes, of which no data are needed."""

    content: dict[str, Any]
    config: RunConfig
    tasks: dict[str, Task]
    model: TaskNetwork


def rebuild(path: Path) -> Rebuilt:
    """UserError: there is no such checkpoint, or its parts do not fit together."""
    content, config = load_checkpoint(path)
    tasks = config.make_tasks(saved_labels(content, config, str(path)))
    with checkpoint.fitting(str(path)):
        for name, task in tasks.items():
            task.load_state(content["tasks"][name])
        model = config.make_model(tasks)
        model.load_state_dict(content["model"])
    return Rebuilt(content, config, tasks, model)


@dataclass
class Restored:
    """A trained network with its tasks, its split and the data sets that it saw."""

    path: Path
    config: RunConfig  # bound to the mode
    model: TaskNetwork
    tasks: dict[str, Task]  # those that it was trained for: a head without any sample tells nothing
    split: Split
    roots: Roots
    bound: dict[str, list[str]]  # task -> the data sets that its labels are from
    training_samples: dict[str, int]  # samples of an epoch with a label, by task
    samples_seen: dict[str, int]  # those with a valid label that it has seen in all, by task
    epoch: int  # finished ones
    networks: dict[str, tuple[StrictModel, ...]]  # task -> the settings of what computes it (RunConfig.network_of)
    readers: dict[str, LabelReader] = field(default_factory=dict)  # task -> what reads its labels in place of the task
    frames: Counter[str] = field(default_factory=Counter)  # task -> labels that the latest `evaluate` has read

    @classmethod
    def load(cls, path: Path, raw: RawData, processed: Sequence[ProcessedData]) -> "Restored":
        """UserError where class table, size or calibration do not fit: better than a wrong number."""
        rebuilt = rebuild(path)
        content, config, tasks, model = rebuilt.content, rebuilt.config, rebuilt.tasks, rebuilt.model
        roots = Roots.open(processed, raw, config.data.image_size)
        check_fits(content, roots, str(path))
        seen = {name: count for name, count in content["updates"]["seen"].items() if name in tasks and count}
        tasks = {name: tasks[name] for name in seen}
        split = Split.from_json(content["split"])
        bound = content["bound"]
        model.eval()
        return cls(
            path=path,
            config=config,
            model=model,
            tasks=tasks,
            split=split,
            roots=roots,
            bound=bound,
            training_samples={name: content["samples"][name] for name in tasks},
            samples_seen=seen,
            epoch=content["position"]["epoch"],
            networks={name: config.network_of(name) for name in tasks},
        )

    @property
    def kind(self) -> str:
        return self.config.kind

    @property
    def mode(self) -> str:
        return self.config.mode

    def check_same_split(self, other: "Restored") -> None:
        """UserError where the other network was validated on other frames."""
        if other.split != self.split:
            raise UserError(f"{self.path} and {other.path} have different splits: their numbers don't compare")

    def parameters(self) -> int:
        """Of the tasks' heads and of what they share: of what `gflop` counts."""
        groups = {name: group for name, group in self.model.groups().items() if name in (BACKBONE, *self.tasks)}
        return sum(parameter.numel() for group in groups.values() for parameter in group)

    def gflop(self) -> float:
        """Of a forward pass through these heads for one image of the run's size; a multiply-add is 2."""
        from torch.utils.flop_counter import FlopCounterMode  # takes half a second to import

        width, height = self.config.data.size
        model = copy.deepcopy(self.model).to("meta")  # shapes alone: nothing is computed
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, height, width, dtype=torch.uint8, device="meta"), dict.fromkeys(self.tasks))
        return counter.get_total_flops() / 1e9

    def predict(self, image: np.ndarray, tasks: Iterable[str]) -> dict[str, Any]:
        """One picture of the run's size, uint8 H x W x 3 RGB -> each task's prediction as from `decode`, B = 1."""
        images = torch.from_numpy(image).permute(2, 0, 1)[None]  # 1 3 H W
        with torch.inference_mode():
            outputs = self.model(images.to(next(self.model.parameters()).device), dict.fromkeys(tasks))
        return {name: self.tasks[name].decode(output) for name, output in outputs.items()}

    def samples(self, split: str, tasks: Mapping[str, Task]) -> list[Sample]:
        """The frames of the split that have a label of at least one of the tasks."""
        self.check_labels(tasks)
        samples = labelled_samples(self.roots, self.bound, self.split.of(split), tasks)
        if not samples:
            raise UserError(f"{self.path}: none of its {split} frames has a label of {', '.join(tasks)} here")
        return samples

    def evaluate(
        self,
        split: str,
        precision: Precision,
        batch_size: int,
        workers: int,
        look: "Callable[[Task, Metric], None] | None" = None,
    ) -> Results:
        """Each task's metrics over every labelled frame of the split; `look` is shown each metric in the end."""
        model = self.model.to(precision.device)
        batches = self._batches(split, precision, batch_size, workers)
        return evaluate(model, self.tasks, batches, precision, look, self.bound)

    def evaluate_constant(self, split: str, *, every_label: bool = False) -> Results:
        """The same for the constant baselines, fitted to the training labels that the run's label regime keeps.

        every_label: to all that its training frames have, whatever the regime.
        """
        samples = self.samples(split, self.tasks)
        config = self.config.with_labels(LabelsConfig()) if every_label else self.config
        labelled = of_tasks(config, self.bound, kept_labels(config, self.roots, self.split))
        fits = Fits(self.roots, fits_folder(self.path.resolve().parents[1]))
        return {
            name: evaluate_constant(
                task, self.roots, labelled[name], samples, fits, f"{self.path}: ", self.readers.get(name)
            )
            for name, task in self.tasks.items()
        }

    def check_labels(self, tasks: Iterable[str]) -> None:
        """UserError where the labels of these tasks do not lie on the images."""
        for name in tasks:
            for root in self.bound[name]:
                self.roots[root].check_labels([self.tasks[name].kind])

    def _batches(self, split: str, precision: Precision, batch_size: int, workers: int) -> Iterator[Batch]:
        dataset = LabelledFrames(self.roots, {**self.tasks, **self.readers}, self.samples(split, self.tasks))
        self.frames.clear()
        for batch in make_loader(dataset, self.tasks, workers, precision.device, batch_size=batch_size):
            for reason in batch.unreadable:
                warn(f"warning: left out: {reason}")
            self.frames.update(task for sample in batch.samples for task in sample.tasks)
            yield batch


def saved_labels(content: Mapping[str, Any], config: RunConfig, source: str) -> dict[str, LabelSpec]:
    """Task -> what its labels said when the network was trained."""
    return {
        name: LabelSpec.of(content["datasets"][names[0]]["labels"][config.kind_of(name)], source)
        for name, names in content["bound"].items()
    }
