"""The committed estimates of docs/protocol.md are of the studies as they are shipped."""

from pathlib import Path

import pytest

from benchmarks.readme import RESULTS
from datasets.files import read_json
from studying import full_scales
from studying.config import load_study


def test_committed_estimates_are_of_the_shipped_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studying.estimate.stated_seconds", lambda config, tflops: 0.0)  # FLOPs take minutes to count
    studies = [load_study(path) for path in sorted(Path(full_scales.CONFIGS).glob("*.yaml"))]
    expected = [full_scales.estimate(study, name) | {"hours": None} for study in studies for name in study.scales]
    committed = [row | {"hours": None} for row in read_json(RESULTS / "full_scales.json")["rows"]]
    assert committed == expected, "python -m studying.full_scales --json benchmarks/results/full_scales.json"
    assert all(row["hours"] > 0 for row in read_json(RESULTS / "full_scales.json")["rows"])
