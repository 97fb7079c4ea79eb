"""What a checkpoint holds, entry by entry, so that one that lacks something is refused when it is read."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from strict import StrictModel

Name = Annotated[str, Field(min_length=1)]
FrameName = Annotated[str, Field(pattern=r"\A[^/]+/[^/]+/[^/]+\z")]
# a metric that has nothing to measure is NaN: a class that no label shows
Metrics = dict[str, dict[str, Annotated[float, Field(allow_inf_nan=True)]]]
Nothing = Annotated[dict[str, Any], Field(max_length=0)]


class Entry(StrictModel):
    """Entries may be tensors."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class SavedSplit(Entry):
    """datasets/splits.py: Split.to_json."""

    train: list[FrameName]
    val: list[FrameName]
    test: list[FrameName]
    unused: list[FrameName]


class SavedDataset(Entry):
    """datasets/roots.py: Roots.to_json."""

    geometry: Any
    labels: dict[str, dict[str, Any]]


class SampleLists(Entry):
    """training/loop.py: Data.lists."""

    data_set: str
    train: str
    val: str


class Moments(Entry):
    """AdamW's of one parameter."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class OptimizerGroup(Entry):
    """AdamW's settings for some parameters; torch adds others."""

    model_config = ConfigDict(extra="allow")

    params: list[NonNegativeInt]
    lr: NonNegativeFloat
    initial_lr: PositiveFloat
    betas: tuple[float, float]
    eps: float
    weight_decay: NonNegativeFloat


class Optimizer(Entry):
    state: dict[int, Moments]
    param_groups: list[OptimizerGroup]


class SavedGroup(Entry):
    """training/updates.py: Group.state."""

    optimizer: Optimizer
    count: NonNegativeInt
    gradients: list[Tensor | None]


class LossScale(Entry):
    value: PositiveFloat
    good_steps: NonNegativeInt
    enabled: bool | None = None  # whether the precision was fp16; older checkpoints don't say


class Schedule(Entry):
    warmup: NonNegativeFloat
    start: NonNegativeFloat
    peak: NonNegativeFloat
    end: PositiveFloat


class SavedUpdates(Entry):
    """training/updates.py: Updates.state."""

    groups: dict[str, SavedGroup]
    loss_scale: LossScale
    schedule: Schedule
    samples_seen: NonNegativeInt
    seen: dict[str, NonNegativeInt]
    steps: NonNegativeInt
    overflows: NonNegativeInt


class SavedPosition(Entry):
    """training/loop.py: Position."""

    epoch: NonNegativeInt
    samples: NonNegativeInt
    blocks: NonNegativeInt
    validated: bool


class Best(Entry):
    score: float
    epoch: PositiveInt
    results: Metrics


class SavedLog(Entry):
    """training/tracking.py: TrainingLog.state."""

    sums: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]
    latest: dict[str, Annotated[float, Field(allow_inf_nan=True)]]
    noted: bool
    shown: dict[str, Annotated[float, Field(allow_inf_nan=True)]] = {}


class RandomStates(Entry):
    cpu: Tensor
    cuda: list[Tensor]


class SavedAverage(Entry):
    """training/averaging.py: MovingAverage.state; `model` holds the average."""

    trained: dict[str, Tensor]
    updates: NonNegativeInt


class Content(Entry):
    """All of it: first what never changes during a run (Session.constants, Plan.trainer), then Trainer.state."""

    format: int
    kind: Literal["single_task", "symmetric", "asymmetric"]
    mode: Name
    config: dict[str, Any]
    split: SavedSplit
    datasets: dict[str, SavedDataset] = Field(min_length=1)
    bound: dict[str, Annotated[list[Name], Field(min_length=1)]] = Field(min_length=1)
    git_commit: str | None
    wandb_id: Name
    samples: dict[str, NonNegativeInt]
    sample_lists: SampleLists
    constant: Metrics
    baseline: dict[str, float] = {}  # task -> deciding metric of its baseline, where one was given
    init_from: str | None = None  # the checkpoint that it took initial weights from, if any

    model: dict[str, Tensor]
    average: SavedAverage | None = None
    updates: SavedUpdates
    balancing: dict[str, Any]
    tasks: dict[str, dict[str, Tensor]]
    position: SavedPosition
    best: Best | Nothing
    unreadable: list[str]
    log: SavedLog
    random: RandomStates
