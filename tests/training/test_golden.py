"""Every mode with every balancing still trains as on the day when the golden traces were made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.golden import STEPS, STORED, cases, differences, trace
from training.methods import METHODS
from training.methods.gradients import AGGREGATORS

# The methods with a row a task differ in what one process does with the rows once they are summed: with two processes,
# one that draws random numbers and one that does not stand for all, and one scalarization for the others.
# (`golden trace --processes 2` runs the others too.)
SCALARIZATIONS = {name for name, method in METHODS.items() if method.complete}
ALIKE = {f"symmetric {name}" for name in {*AGGREGATORS, *SCALARIZATIONS} - {"upgrad", "graddrop", "dwa"}}


def parts() -> Iterator[Any]:
    """Processes and cases, in parts that test processes share."""
    for processes in (1, 2):
        names = [name for name in cases() if processes == 1 or name not in ALIKE]
        for start in range(2):
            yield pytest.param(processes, names[start::2], id=f"{processes}-{'ab'[start]}")


@pytest.mark.parametrize(("processes", "part"), [*parts()])
def test_training_is_what_it_was(tmp_path: Path, processes: int, part: list[str]) -> None:
    found, expected = trace(tmp_path, processes, part), stored()
    assert differences(found, {name: expected[name] for name in part}, 1e-6) == []


def test_the_traces_are_of_30_steps_of_every_mode_and_balancing() -> None:
    found = stored()
    assert found.keys() == cases().keys()
    for name, content in found.items():
        # fewer frames have a steering label, or all labels
        few = name == "steering" or name.removeprefix("symmetric ") in SCALARIZATIONS
        fewest = 24 if few else STEPS
        assert sum("gradient_norm/" in "".join(row) for row in content["rows"]) >= fewest, name


@pytest.mark.parametrize("number", [0, 1])
def test_a_difference_is_seen(number: int) -> None:
    expected = {"a": {"rows": [{"x": 1.0}, {"x": 1e-9}], "weights": {"w": 2.0}}}
    found = json.loads(json.dumps(expected))
    assert differences(found, expected, 1e-6) == []
    found["a"]["rows"][number]["x"] += 2e-6
    assert len(differences(found, expected, 1e-6)) == 1


def stored() -> dict[str, Any]:
    return json.loads(STORED.read_text())
