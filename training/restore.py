"""A network rebuilt from its checkpoint alone, checked against the data that it is to see."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datasets.a2d2.raw import RawData
from datasets.camera import Camera, check_processed
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.samples import A2D2, Batch, Sample
from datasets.splits import Split
from errors import UserError
from progress import warn
from strict_yaml import validated
from tasks.base import Task
from training import checkpoint
from training.config import DataConfig
from training.evaluation import Precision, Results, evaluate, evaluate_blind, make_loader
from training.runs import RUN_CONFIGS
from training.session import blind_prediction, check_fits, labelled_samples


@dataclass
class Restored:
    """A trained network with its tasks, its split and the camera that it saw."""

    path: Path
    kind: str
    mode: str
    model: nn.Module
    tasks: dict[str, Task]  # those that it was trained for: a head without any sample tells nothing
    split: Split
    data: DataConfig
    camera: Camera
    samples_seen: dict[str, int]  # training samples with a valid label, by task

    @classmethod
    def load(cls, path: Path, raw: RawData, processed: ProcessedData) -> "Restored":
        """UserError where class list, size or calibration do not fit: better than a wrong number."""
        content = checkpoint.load(path)
        config = validated(RUN_CONFIGS[content["kind"]], content["config"], str(path))
        tasks = config.make_tasks(content["mode"])
        for name, task in tasks.items():
            task.load_state(content["tasks"][name])
        model = config.make_model(content["mode"], tasks)
        model.load_state_dict(content["model"])
        camera = Camera(raw, processed, tuple(config.data.size))
        check_fits(content, camera, str(path))
        seen = {name: count for name, count in content["updates"]["seen"].items() if name in tasks and count}
        tasks = {name: tasks[name] for name in seen}
        split = Split.from_json(content["split"])
        return cls(path, config.kind, content["mode"], model.eval(), tasks, split, config.data, camera, seen)

    def check_same_split(self, other: "Restored") -> None:
        """UserError where the other network was validated on other frames."""
        if other.split != self.split:
            raise UserError(f"{self.path} and {other.path} have different splits: their numbers don't compare")

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def gflop(self) -> float:
        """Of a forward pass through all heads for one image of the run's size; a multiplication and its addition: 2."""
        width, height = self.data.size
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

    def samples(self, part: str, tasks: Mapping[str, Task]) -> list[Sample]:
        """The frames of the part that have a label of at least one of the tasks."""
        check_processed(self.camera.processed, self.camera, list(tasks))
        samples = labelled_samples(self.camera.processed, self.split.part(part), tasks)
        if not samples:
            raise UserError(f"{self.path}: none of its {part} frames has a label of {', '.join(tasks)} here")
        return samples

    def evaluate(self, part: str, precision: Precision, batch_size: int, workers: int) -> Results:
        """Each task's metrics over every labelled frame of the part."""
        model = self.model.to(precision.device)
        batches = self._batches(part, precision, batch_size, workers)
        return evaluate(model, self.tasks, batches, precision)

    def evaluate_blind(self, part: str, precision: Precision, batch_size: int, workers: int) -> Results:
        """The same for the predictors that never look at the image, fitted to the training labels."""
        check_processed(self.camera.processed, self.camera, list(self.tasks))
        processed, source = self.camera.processed, f"{self.path}: "
        predictions = {
            name: blind_prediction(task, processed, self._labelled(name, self.split.train), source)
            for name, task in self.tasks.items()
        }
        return evaluate_blind(self.tasks, predictions, self._batches(part, precision, batch_size, workers))

    def _labelled(self, kind: str, frames: tuple[Frame, ...]) -> list[Frame]:
        labelled = set(self.camera.processed.frames(kind))
        return [frame for frame in frames if frame in labelled]

    def _batches(self, part: str, precision: Precision, batch_size: int, workers: int) -> Iterator[Batch]:
        dataset = A2D2(self.camera, self.tasks, self.samples(part, self.tasks))
        for batch in make_loader(dataset, self.tasks, workers, precision.device, batch_size=batch_size):
            for reason in batch.unreadable:
                warn(f"warning: left out: {reason}")
            yield batch
