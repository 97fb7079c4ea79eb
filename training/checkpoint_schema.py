"""What a checkpoint holds, entry by entry, so that one that lacks something is refused when it is read."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from strict import StrictModel

Name = Annotated[str, Field(min_length=1)]
FrameName = Annotated[str, Field(pattern=r"\A[^/]+/[^/]+/[^/]+\z")]
# a metric that has nothing to measure is NaN: a class that no label shows
Metrics = dict[str, dict[str, Annotated[float, Field(allow_inf_nan=True)]]]
Nothing = Annotated[dict[str, Any], Field(max_length=0)]
MANY = 10**12  # samples or steps: no training lasts that long
Count = Annotated[int, Field(ge=0, le=MANY)]
PositiveCount = Annotated[int, Field(ge=1, le=MANY)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moving average


def is_floating(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise ValueError(f"{tensor.dtype}, not floating point")
    return tensor


def is_real(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        raise ValueError(f"{tensor.dtype}, not real numbers")
    return tensor


def is_steps(tensor: Tensor) -> Tensor:
    """AdamW keeps its number of steps in a tensor."""
    if tensor.numel() != 1 or tensor.is_complex() or not 0 <= tensor.item() <= MANY:
        raise ValueError("not a number of steps")
    return tensor


def are_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only batch norm's counts of batches are whole numbers."""
    for name, tensor in state.items():
        if tensor.is_floating_point() == name.endswith("num_batches_tracked") or tensor.is_complex():
            raise ValueError(f"{name} is {tensor.dtype}, which no network has there")
    return state


Floating = Annotated[Tensor, AfterValidator(is_floating)]
Weights = Annotated[dict[str, Tensor], AfterValidator(are_weights)]


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

    step: Annotated[Tensor, AfterValidator(is_steps)]
    exp_avg: Floating
    exp_avg_sq: Floating


class OptimizerGroup(Entry):
    """AdamW's settings for some parameters; torch adds others. What no run sets is as torch has it."""

    model_config = ConfigDict(extra="allow")

    params: list[Count]
    lr: NonNegativeFloat
    initial_lr: PositiveFloat
    betas: tuple[Decay, Decay]
    eps: PositiveFloat
    weight_decay: NonNegativeFloat
    amsgrad: Literal[False] = False
    maximize: Literal[False] = False
    capturable: Literal[False] = False
    differentiable: Literal[False] = False


class Optimizer(Entry):
    state: dict[int, Moments]
    param_groups: list[OptimizerGroup]


class SavedGroup(Entry):
    """training/updates.py: Group.state."""

    optimizer: Optimizer
    count: Count
    gradients: list[Floating | None]


class LossScale(Entry):
    value: PositiveFloat
    good_steps: Count
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
    samples_seen: Count
    seen: dict[str, Count]
    steps: Count
    overflows: Count


class SavedPosition(Entry):
    """training/loop.py: Position."""

    epoch: Count
    samples: Count
    blocks: Count
    validated: bool


class Best(Entry):
    score: float
    epoch: PositiveCount
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

    trained: Weights
    updates: Count


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
    samples: dict[str, Count]
    sample_lists: SampleLists
    constant: Metrics
    baseline: dict[str, float] = {}  # task -> deciding metric of its baseline, where one was given
    init_from: str | None = None  # the checkpoint that it took initial weights from, if any

    model: Weights
    average: SavedAverage | None = None
    updates: SavedUpdates
    balancing: dict[str, Any]
    tasks: dict[str, dict[str, Annotated[Tensor, AfterValidator(is_real)]]]
    position: SavedPosition
    best: Best | Nothing
    unreadable: list[str]
    log: SavedLog
    random: RandomStates
