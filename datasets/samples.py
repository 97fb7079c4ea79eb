"""The torch Dataset: a frame -> its image and those labels that exist, as they lie on disk.

Nothing is blown up in the workers: the image is uint8, class maps uint8, depth uint16. The image is decoded once a
sample, whatever the number of tasks; labels that nobody asked for are not read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datasets.frames import Frame
from datasets.roots import Root, decode_on_cpu
from errors import UserError, reason_of


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame and the tasks whose labels are wanted of it."""

    frame: Frame
    tasks: tuple[str, ...]


class Visit(NamedTuple):
    """One use of a sample during an epoch."""

    place: int  # of the sample in the list of samples
    nth: int = 0  # how often its frame has been visited before in this epoch


@dataclass
class Batch:
    """B samples, each with the labels that it has. `targets` and `places` have a task where one of them has its label.

    A task's target holds the n <= B samples that have its label, and those alone, in the batch's order; its `places`
    say where they stand in the batch (int64 n), or are None where all do.
    """

    samples: list[Sample]
    images: Tensor  # uint8 B x 3 x H x W, RGB
    targets: dict[str, dict[str, Tensor]]
    places: dict[str, Tensor | None]
    visits: list[int] = field(default_factory=list)  # `nth` of each sample's visit
    encoded: list[Tensor] = field(default_factory=list)  # B JPEGs, uint8, where `to` decodes them; else none
    unreadable: list[str] = field(default_factory=list)  # 'path: reason' of the samples that were left out

    @property
    def frames(self) -> list[Frame]:
        return [sample.frame for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device) -> "Batch":
        """There, with decoded images. UserError: torchvision can't decode one there."""
        batch = self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(batch, images=self._decoded(device), encoded=[]) if self.encoded else batch

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader."""
        return self._with_tensors(torch.Tensor.pin_memory)

    def _decoded(self, device: torch.device) -> Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg  # takes a second to import, and few decode here

        try:
            return torch.stack(decode_jpeg(self.encoded, mode=ImageReadMode.RGB, device=device))
        except RuntimeError as error:
            frames = ", ".join(map(str, self.frames))
            reason = str(error).splitlines()[0]
            raise UserError(f"camera images of {frames}: {reason}; decode them with data.decode: loader") from None

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        targets = {task: {key: change(value) for key, value in target.items()} for task, target in self.targets.items()}
        places = {task: None if places is None else change(places) for task, places in self.places.items()}
        return replace(self, images=change(self.images), targets=targets, places=places)


class LabelledFrames(Dataset):
    """Visits of samples -> {"sample", "nth", "image" as `Root.load`, "labels" {task: label or None}}, or
    {"unreadable": reason}.

    roots: data set -> where its frames are read; tasks: name -> object with `read(processed, frame)`. A sample with a
    file that can't be read is not replaced by another one or by zeros: it comes out as unreadable, for the loop to
    count and to name.
    """

    def __init__(self, roots: Mapping[str, Root], tasks: Mapping[str, Any], samples: Sequence[Sample]):
        self.roots, self.tasks, self.samples = roots, tasks, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, visit: Visit | int) -> dict[str, Any]:
        """A plain number is a first visit."""
        cv2.setNumThreads(1)  # the loader's workers already use every core
        place, nth = visit if isinstance(visit, Visit) else Visit(visit)
        sample = self.samples[place]
        frame = sample.frame
        try:
            image = self.roots[frame.dataset].load(frame)
            labels = {task: self._label(task, frame) for task in sample.tasks}
        except (ValueError, OSError) as error:
            return {"unreadable": f"{frame}: {reason_of(error)}"}
        return {"sample": sample, "nth": nth, "image": image, "labels": labels}

    def _label(self, task: str, frame: Frame) -> Any | None:
        return self.tasks[task].read(self.roots[frame.dataset].processed, frame)


class Collate:
    """Items of `LabelledFrames` -> Batch. Tasks batch their own labels."""

    def __init__(self, tasks: Mapping[str, Any]):
        self.tasks = tasks

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        unreadable = [item["unreadable"] for item in items if "unreadable" in item]
        items = [item for item in items if "unreadable" not in item]
        if not items:
            return Batch([], torch.empty(0, dtype=torch.uint8), {}, {}, unreadable=unreadable)
        targets, places = {}, {}
        for name, task in self.tasks.items():
            labelled = [i for i, item in enumerate(items) if item["labels"].get(name) is not None]
            if labelled:
                targets[name] = task.collate([items[i]["labels"][name] for i in labelled])
                places[name] = None if len(labelled) == len(items) else torch.tensor(labelled)
        images, encoded = _images_of([item["image"] for item in items])
        samples, visits = [item["sample"] for item in items], [item["nth"] for item in items]
        return Batch(samples, images, targets, places, visits, encoded, unreadable)


def _images_of(loaded: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Images B x 3 x H x W, or none and B JPEGs. Where one was made from its raw PNG, the others are decoded here."""
    are_encoded = [image.ndim == 1 for image in loaded]
    if all(are_encoded):
        return torch.empty(0, dtype=torch.uint8), loaded
    if any(are_encoded):
        loaded = [torch.from_numpy(decode_on_cpu(x.numpy().tobytes())) if x.ndim == 1 else x for x in loaded]
    # default_collate, as in a worker it stacks into shared memory, where the batch must go: one copy less.
    # permuted after stacking, which is a plain copy so; the batch lies in memory as channels_last
    return default_collate(loaded).permute(0, 3, 1, 2), []
