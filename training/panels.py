"""What a training shows beside numbers: the same few validation frames after each validation, tables of classes."""

import io
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchmetrics import Metric

from datasets.files import whole_file
from datasets.frames import Frame
from datasets.layout import RunDir
from datasets.samples import Batch, Collate, LabelledFrames
from progress import warn
from tasks.base import Task
from training import distributed
from training.config import TrainingConfig
from training.evaluation import Precision, Results
from training.tracking import Shown, Tracker
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions

WIDTH = 640  # px of a picture; its height follows from the camera's aspect ratio


class Panels:
    """Pictures below `runs/NAME/images/` (truth left, prediction right) and on the dashboard.

    The frames are spread evenly over the validation samples. However long the training, so many pictures are kept as
    `config` says.
    """

    def __init__(
        self,
        val: LabelledFrames,
        tasks: Mapping[str, Task],
        config: TrainingConfig,
        precision: Precision,
        run: RunDir,
        tracker: Tracker,
    ):
        self.val, self.tasks, self.precision, self.run, self.tracker = val, tasks, precision, run, tracker
        self.config, places = config, np.linspace(0, len(val) - 1, config.images, dtype=int)
        self.places = sorted({*places.tolist()}) if len(val) else []
        self.pictures = {name: picture_of(task) for name, task in tasks.items()}
        self.silent = not distributed.is_main()

    def show(self, forward: Callable[..., dict[str, Any]], epoch: int, samples: int) -> None:
        """Draw the frames."""
        if self.silent:
            return
        images: dict[str, list[Shown]] = defaultdict(list)
        for place in self.places:
            batch = Collate(self.tasks)([self.val[place]]).to(torch.device("cpu"))
            if batch.targets:
                for task, shown in self._draw(forward, batch, epoch):
                    images[task].append(shown)
        for task, pictures in images.items() if self._is_for_dashboard(epoch) else ():
            self.tracker.show_images(f"images/{task}", pictures, samples)

    def _is_for_dashboard(self, epoch: int) -> bool:
        """Whether it is one of the validations, evenly over all that there will be, whose pictures are shown there."""
        number, total = (math.ceil(epochs / self.config.validate_every) for epochs in (epoch, self.config.epochs))
        return number * self.config.keep_images // total > (number - 1) * self.config.keep_images // total

    def keep(self, *epochs: int) -> None:
        """Remove the pictures of all other epochs from the run's folder."""
        for folder in () if self.silent else self.run.images_of_others(epochs):
            shutil.rmtree(folder, ignore_errors=True)

    def show_plots(self, task: Task, metric: Metric, samples: int) -> None:
        """The task's plots of a complete metric, once at the end."""
        for name, figure in ({} if self.silent else self.pictures[task.name].plots(metric)).items():
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=100)
            write_picture(self.run.plot(task.name, name), content.getvalue())
            picture = np.array(Image.open(content).convert("RGB"))
            self.tracker.show_images(f"plots/{task.name}-{name}", [Shown(picture, name)], samples)

    def show_classes(self, results: Results, samples: int) -> None:
        """The values of single classes of all tasks in one table, once at the end."""
        columns, rows = classes_table(results)
        if rows and not self.silent:
            self.tracker.show_table("classes", columns, rows, samples)

    def _draw(self, forward: Callable[..., dict[str, Any]], batch: Batch, epoch: int) -> list[tuple[str, Shown]]:
        """Every task with a label of this one frame."""
        (frame,) = batch.frames
        image = self._at_aspect(batch.images[0].permute(1, 2, 0).numpy(), frame)  # H W 3
        with torch.inference_mode(), self.precision.autocast():
            outputs = forward(batch.images.to(self.precision.device), batch.places)
        drawn = []
        for name, target in batch.targets.items():
            picture, prediction = self.pictures[name], self.tasks[name].decode(outputs[name])
            truth = picture.draw(image, None, target, DrawOptions())
            both = np.hstack([truth, picture.draw(image, prediction, target, DrawOptions())])
            write_picture(self.run.image(epoch, name, frame), jpeg_of(both))
            overlay = picture.overlay(image, prediction, target)
            drawn.append((name, Shown(image if overlay else both, str(frame), overlay)))
        return drawn

    def _at_aspect(self, image: np.ndarray, frame: Frame) -> np.ndarray:
        size = WIDTH, round(WIDTH / self.val.roots[frame.dataset].aspect)
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def jpeg_of(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="JPEG", quality=85)
    return content.getvalue()


def write_picture(path: Path, content: bytes) -> None:
    """A picture is not worth a training: one that can't be written is named and left out."""
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        warn(f"warning: {path} can't be written: {error.strerror}")


def class_table(values: dict[str, float]) -> tuple[list[str], list[list[Any]]]:
    """{"iou/Car": 0.5, ...} -> columns ["class", "iou", ...], a row a class; other values left out."""
    by_class: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in values.items():
        metric, slash, name = key.partition("/")
        if slash:
            by_class[name][metric] = value
    metrics = list(dict.fromkeys(metric for scores in by_class.values() for metric in scores))
    return ["class", *metrics], [[name, *(scores.get(m) for m in metrics)] for name, scores in by_class.items()]


def classes_table(results: Results) -> tuple[list[str], list[list[Any]]]:
    """Values of single classes, a row for each class of each task -> columns, rows."""
    found = {task: class_table(values) for task, values in results.items()}
    metrics = dict.fromkeys(column for columns, rows in found.values() if rows for column in columns[1:])
    table = []
    for task, (columns, rows) in found.items():
        for row in rows:
            values = dict(zip(columns, row, strict=True))
            table.append([task, values["class"], *(values.get(metric) for metric in metrics)])
    return ["task", "class", *metrics], table
