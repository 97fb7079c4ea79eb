"""What becomes of the frames of a preprocessing run, one by one and in its report.json."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.files import write_json


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: `written`, `present` (already there), `without_label` or `failed`."""

    frame: str
    status: str
    path: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    copies_differ: bool = False  # the source file lies in two folders, with different contents


class Report:
    """Counts of one run, and every frame that failed or has no label by name."""

    def __init__(self, kind: str, settings: dict[str, Any]):
        self.kind, self.settings = kind, settings
        self.status: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.without_label: list[str] = []
        self.differing_copies: list[str] = []
        self.failures: list[dict[str, str]] = []

    def add(self, outcome: Outcome) -> None:
        self.status[outcome.status] += 1
        self.counts.update(outcome.counts)
        if outcome.status == "without_label":
            self.without_label.append(outcome.frame)
        if outcome.copies_differ:
            self.differing_copies.append(outcome.frame)
        if outcome.status == "failed":
            self.failures.append({key: asdict(outcome)[key] for key in ("frame", "path", "reason")})

    def summary(self) -> str:
        status = self.status
        return (
            f"{self.kind}: {status['written']} written, {status['present']} already there, "
            f"{status['without_label']} without label, {status['failed']} failed"
            + (f"; {len(self.differing_copies)} frames lie in two folders and differ" if self.differing_copies else "")
        )

    def write(self, path: Path) -> None:
        status = {key: self.status[key] for key in ("written", "present", "without_label", "failed")}
        names = {
            "without_label_frames": self.without_label,
            "differing_copies": self.differing_copies,
            "failures": self.failures,
        }
        content = {"kind": self.kind, **status, "counts": self.counts, **names, "settings": self.settings}
        write_json(path, content, indent=2)
