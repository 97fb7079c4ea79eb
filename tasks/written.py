"""How people write a metric: as the literature calls it, in its unit, with the digits that mean something."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Written:
    """Results hold fractions; one whose unit is % is written times 100."""

    title: str
    unit: str = ""
    decimals: int = 3
    better: Literal["higher", "lower"] | None = None  # None: it tells how much there was, not how good it is

    @property
    def scale(self) -> int:
        """Of what is written to what results hold."""
        return 100 if self.unit == "%" else 1

    @property
    def higher_is_better(self) -> bool:
        return self.better == "higher"

    @property
    def heading(self) -> str:
        """'mIoU, %'."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def directed(self) -> str:
        """'mIoU, % ↑': with the direction that is better."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.heading + arrow

    def number(self, value: float | None) -> str:
        """'38.9'; '-' where there is none."""
        if value is None or math.isnan(value):
            return "-"
        return f"{self.scale * value:.{self.decimals}f}"

    def with_unit(self, value: float | None) -> str:
        """'38.9 %'."""
        return " ".join(part for part in (self.number(value), self.unit) if part)

    def difference(self, value: float) -> str:
        """Of two values: signed, one digit more."""
        return f"{self.scale * value:+.{self.decimals + 1}f}"
