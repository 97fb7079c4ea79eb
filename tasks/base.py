"""The contract of a task, a label and its objective: what differs between steering, segmentation, depth and boxes.

The loop, the dataset and the evaluation know only this class. A new task is one file beside this one and two lines in
`tasks/__init__.py` (docs/extending.md). How it is drawn is in visual/pictures.

A label passes through these forms:
    parse    what a processed file holds -> label, numpy as it lies on disk (`read` finds the file of a frame)
    collate  B labels       -> target, a dict of tensors whose first dimension is B; still compact (uint8, uint16)
    loss     (output, target) -> B losses and a mask of the samples that have a valid label
    decode   output         -> predictions in physical units, which `metric` compares with the target
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from datasets.frames import Frame
from datasets.processed import ProcessedData, suffixes_of
from datasets.spec import ClassTable, LabelSpec
from errors import UserError
from strict import StrictModel
from tasks.written import Written

if TYPE_CHECKING:  # takes seconds to import: only where something is measured
    from torchmetrics import Metric

Target = dict[str, Tensor]
LOSS = Written("loss", decimals=4, better="lower")


class Task(ABC):
    """One kind of label and what a network makes of it."""

    kind: ClassVar[str]  # of its processed labels
    best_metric: ClassVar[str]  # the key of `metric().compute()` that decides which checkpoint is best
    metrics: ClassVar[Mapping[str, Written]]
    """How people write the metrics, the deciding one at least; what stands before the '/' of a class's own ('iou/Car')
    is for all classes."""
    class_frequency: ClassVar[str | None] = None  # the metric of classes ('share/Car') that tells how common they are
    unscorable: ClassVar[str] = "none has a label"  # what is wrong where no label is `scorable`, for messages
    default_head: ClassVar[str]  # models/registry.py: HEADS
    default_network: ClassVar[str | None] = None  # NETWORKS; None: none of its own, unless a config names one
    likelihood: ClassVar[Literal["regression", "classification"]]  # which the loss resembles; for uncertainty weights

    class Settings(StrictModel):
        """The task's own section of the config; subclasses list their keys here."""

    def __init__(self, settings: Settings | None = None, spec: LabelSpec | None = None, name: str | None = None):
        """spec: what the labels say, classes among it; name: the task's key in the config (default: the kind)."""
        self.settings = self.Settings() if settings is None else settings
        self.spec = LabelSpec() if spec is None else spec
        self.name = name or self.kind

    @property
    def classes(self) -> ClassTable:
        """Those of the labels; only for tasks that have some. UserError: the data set names none."""
        if self.spec.classes is None:
            raise UserError(f"{self.name}: the settings of its {self.kind} labels name no classes")
        return self.spec.classes

    @classmethod
    def written(cls, metric: str) -> Written:
        """How people write a metric of the results; 'iou/Car' and 'iou@cityscapes' as 'iou'."""
        name = re.split("[/@]", metric)[0]
        return {"loss": LOSS, **cls.metrics}.get(name) or Written(name, decimals=4)

    @classmethod
    def deciding(cls) -> Written:
        """How people write `best_metric`."""
        return cls.written(cls.best_metric)

    @abstractmethod
    def parse(self, content: Any) -> Any:
        """The label (numpy) in what a processed file holds: the array of a .npy file, the bytes of any other.

        LookupError, TypeError, ValueError: what is wrong with it.
        """

    def read(self, processed: ProcessedData, frame: Frame) -> Any | None:
        """The frame's label (numpy), or None where it has none. ValueError: the file is not such a label."""
        is_array = suffixes_of(self.kind) == (".npy",)
        content = processed.read_array(self.kind, frame) if is_array else processed.read(self.kind, frame)
        try:
            if isinstance(content, np.ndarray) and (shape := processed.map_shape(self.kind)):
                check_shape(content, shape)
            return None if content is None else self.parse(content)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{processed.source(self.kind, frame)} is not a {self.kind} label: {error}") from None

    @abstractmethod
    def collate(self, labels: list[Any | None]) -> Target:
        """B labels, at least one of them not None -> target; a sample without a label is marked as such."""

    @abstractmethod
    def hflip(self, target: Target, flip: Tensor) -> Target:
        """The target with the samples mirrored left to right where `flip` (B, bool) is true."""

    @abstractmethod
    def loss(self, output: Any, target: Target) -> tuple[Tensor, Tensor]:
        """B losses (at least float32, each normalised within its sample; 0 where invalid), validity (B, bool)."""

    @abstractmethod
    def decode(self, output: Any) -> Any:
        """Predictions in physical units, in the form that `metric().update(predictions, target)` takes."""

    def at_size_of(self, target: Target, output: Any) -> Any:
        """The network's output at the size of the target's maps, whose labels may be larger than what networks see.

        Default: as it is, for targets without a size.
        """
        return output

    def constant_at_size_of(self, target: Target, prediction: Any) -> Any:
        """The same of what `constant` gave."""
        return prediction

    @abstractmethod
    def metric(self) -> "Metric":
        """A streaming metric: `update(predictions, target)`; `compute()` gives {name: float}, 'iou/Car' for classes.

        Its states merge exactly over batches and processes. Samples without a label add nothing.
        """

    def score(self, values: dict[str, float]) -> float:
        """What decides which checkpoint is best, from `metric().compute()`: the higher the better."""
        value = values[self.best_metric]
        return value if self.deciding().higher_is_better else -value

    def relative_score(self, values: dict[str, float], constant_values: dict[str, float]) -> float:
        """The same on a scale that tasks share, for means over tasks: the metric itself, or what is left of an error.

        For errors 1 - min(1, error / error of the constant baseline).
        """
        value = values[self.best_metric]
        if self.deciding().higher_is_better:
            return value
        constant = constant_values[self.best_metric]
        return 1 - min(1.0, value / constant) if constant > 0 else float(value == 0)

    def scorable(self, label: Any) -> bool:
        """Whether the deciding metric over this one label, from `read`, is a number. Default: over any."""
        return True

    @abstractmethod
    def constant(self, labels: Iterable[Any]) -> Any:
        """The constant baseline, fitted to the labels: predictions as from `decode`, B = 1."""

    def fit(self, labels: Iterable[Any]) -> None:
        """Learn from the training labels, once before training, what network and loss need (class weights, a bias).

        Default: nothing; then the labels, a lazy iterable, are not read.
        """

    def state(self) -> dict[str, Tensor]:
        """What `fit` learnt, for the checkpoint."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` gave."""

    @abstractmethod
    def outputs(self) -> dict[str, Any]:
        """What its network and its head must know of the output: their keywords. Call `fit` or `load_state` first."""


def masked_mean(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each sample's masked values -> (B means, 0 for a sample without any; B validity). Differentiable.

    values, mask: B x ...; a masked-out value adds neither to the sum nor to the gradient, NaN included.
    """
    values, mask = values.flatten(1), mask.flatten(1)
    count = mask.sum(1)
    total = torch.where(mask, values, values.new_zeros(())).sum(1)
    return total / count.clamp(min=1), count > 0


def check_shape(label: np.ndarray, shape: tuple[int, int]) -> None:
    """ValueError unless a map is H x W (x ...) as the settings of its kind say."""
    if label.shape[:2] != shape:
        raise ValueError(f"it is of shape {label.shape}; by its settings.json it should be {shape[0]} x {shape[1]}")
