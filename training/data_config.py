"""The config's sections about data: size, split, labels, loading, augmentation."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from arguments import MAX_WORKERS
from strict import StrictModel
from tasks import TASKS

Workers = Annotated[int, Field(ge=0, le=MAX_WORKERS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def check_known_kinds(kinds: Iterable[str]) -> None:
    if unknown := sorted(set(kinds) - set(TASKS)):
        raise ValueError(f"unknown kind of label {', '.join(unknown)}; there are {', '.join(TASKS)}")


def check_unused(config: StrictModel, keys: Iterable[str], need: str, *, used: bool) -> None:
    """ValueError where a key that needs something else differs from its default.

    (A saved config names its defaults too, so they must pass.)
    """
    fields = type(config).model_fields
    for key in () if used else keys:
        if getattr(config, key) != fields[key].default:
            raise ValueError(f"{key} needs {need}")


class SplitConfig(StrictModel):
    """Which frames train, validate and test (datasets/splits.py)."""

    mode: Literal["time", "official", "scenes", "overfit"] = "time"
    """time: by time within each scene; official: as the data set itself says (by time where one says nothing, by
    `fractions` and gaps as with mode time); scenes: the lists below; overfit: the training frames validate."""
    fractions: list[NonNegativeFloat] = Field([0.8, 0.1, 0.1], min_length=3, max_length=3)
    """Shares of train, val and test of each scene (modes time and official)."""
    gap_frames: NonNegativeInt = 2
    """Frames that lie unused between two splits of a scene, at least (modes time and official)."""
    gap_seconds: NonNegativeFloat = 10.0
    """Seconds that pass between two splits of a scene, at least (modes time and official)."""
    train: list[str] = []
    """Scenes of the training split (mode scenes)."""
    val: list[str] = []
    """Scenes of the validation split (mode scenes)."""
    test: list[str] = []
    """Scenes of the test split (mode scenes)."""
    train_on_val: bool = False
    """The validation frames train too and nothing validates: a run of a schedule that is already chosen. There is no
    best.pt; last.pt is the result. training.validate_every, images and keep_images, which the config may have for the
    runs that chose it, then decide nothing."""

    @model_validator(mode="after")
    def _has_no_use_for_others(self) -> Self:
        by_time, listed = ("fractions", "gap_frames", "gap_seconds"), ("train", "val", "test")
        for modes, keys in ((("time", "official"), by_time), (("scenes",), listed)):
            check_unused(self, keys, f"mode: {' or '.join(modes)}", used=self.mode in modes)
        check_unused(self, ["train_on_val"], "another mode than overfit", used=self.mode != "overfit")
        return self

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if not math.isclose(sum(self.fractions), 1, abs_tol=1e-6):
            raise ValueError(f"fractions {self.fractions} do not sum to 1")
        return self


DRAWN = ("one", "random")  # the regimes that draw a frame's labels from some kinds


class LabelsConfig(StrictModel):
    """Which of its labels each training frame keeps (datasets/labels.py); the same frames in all training scripts."""

    regime: Literal["every", "one", "random", "fractions"] = "every"
    """every: all of them; one: exactly one, drawn; random: one or more, drawn, each number of them equally likely (the
    one-label and random-label settings of Li et al. 2022); fractions: a share of the frames keeps a label."""
    kinds: list[str] | None = None
    """Kinds of label that a frame's labels are drawn from (regimes one and random), trained or not; default: all that
    the data set has at the start. Runs that draw from the same kinds keep the same labels, whatever they train."""
    proportions: dict[str, NonNegativeFloat] = {}
    """Kind of label -> its share among the draws (regimes one and random); 1 where not listed, 0 is never drawn."""
    fractions: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Kind of label -> share of its frames that keep it (regime fractions); 1 where not listed."""
    seed: Seed = 0
    """Of the draws."""

    @field_validator("kinds", "proportions", "fractions")
    @classmethod
    def _known(cls, named: Any) -> Any:
        check_known_kinds(named or ())
        return named

    @model_validator(mode="after")
    def _fits_the_regime(self) -> Self:
        check_unused(self, ["seed"], "another regime than every", used=self.regime != "every")
        for regimes, key in ((DRAWN, "kinds"), (DRAWN, "proportions"), (("fractions",), "fractions")):
            if getattr(self, key) and self.regime not in regimes:
                raise ValueError(f"{key} need regime: {' or '.join(regimes)}, not {self.regime}")
        if self.kinds == []:
            raise ValueError("kinds must name one kind of label at least")
        if self.kinds and (others := sorted(set(self.proportions) - set(self.kinds))):
            raise ValueError(f"proportions: {', '.join(others)} is not among the kinds {', '.join(self.kinds)}")
        return self


class DataConfig(StrictModel):
    """Images, split and loading."""

    size: list[PositiveInt] = Field([1024, 1024], min_length=2, max_length=2)
    """W, H of images and label maps: what the preprocessing scripts were given as --size."""
    split: SplitConfig = SplitConfig()
    labels: LabelsConfig = LabelsConfig()
    decode: Literal["loader", "device"] = "loader"
    """Where camera images in JPEG are decoded: by OpenCV in the loader, or by torchvision on the device (nvJPEG on a
    GPU, whose bytes differ from OpenCV's by a few units)."""
    workers: Workers = 8
    """Loader processes; 0 loads in the training process."""

    @property
    def image_size(self) -> tuple[int, int]:
        """`size`, W and H."""
        width, height = self.size
        return width, height


class AugmentationConfig(StrictModel):
    """What happens to training images; never to validation images."""

    hflip: float = Field(0.5, ge=0, le=1)
    """Probability of mirroring a sample with all its labels. Traffic then keeps left."""
    brightness: float = Field(0.2, ge=0, lt=1)
    """Factors are drawn from [1 - x, 1 + x]."""
    contrast: float = Field(0.2, ge=0, lt=1)
    """As brightness."""
    saturation: float = Field(0.2, ge=0, lt=1)
    """As brightness."""
