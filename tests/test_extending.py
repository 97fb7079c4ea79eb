"""docs/extending.md is true: its code runs as printed, its shortened task is the tested one, its files exist."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.multitask import BACKBONE
from tests.small_roots import SIZE, write_root
from tests.toy_edges import KIND, EdgesTask
from training.methods import Context

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
# file name -> the block of code that begins with it
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", DOCUMENT, re.DOTALL))


def test_the_balancing_method_sums_the_logarithms_of_losses() -> None:
    module: dict[str, object] = {"__name__": "logarithmic"}
    exec(compile(BLOCKS["training/methods/logarithmic.py"], "logarithmic.py", "exec"), module)
    method = module["METHODS"]["logarithmic"]
    parameter = torch.nn.Parameter(torch.ones(()))
    context = Context({"a": 1.0, "b": 2.0}, {}, {BACKBONE: [parameter]})
    balancing = method.make(method.settings(name="logarithmic", epsilon=0.5), context)
    losses = {"a": parameter * torch.tensor([3.0, 0.0]), "b": parameter * torch.tensor([1.0, 4.0])}
    balancing.backward(losses, {"a": torch.tensor([True, False]), "b": torch.tensor([True, True])})
    assert parameter.grad.item() == pytest.approx(3 / 3.5 + 2 * (1 / 1.5 + 4 / 4.5))


def test_the_shortened_task_is_the_tested_one() -> None:
    whole = (ROOT / "tests" / "toy_edges.py").read_text().splitlines()
    assert not [line for line in BLOCKS["tasks/edges.py"].splitlines() if line not in whole]


def test_the_labels_are_written_as_the_task_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processed = write_root(tmp_path, "lines", (), 2)
    monkeypatch.setattr(sys, "argv", ["write_edges.py", str(tmp_path)])
    exec(compile(BLOCKS["write_edges.py"], "write_edges.py", "exec"), {"__name__": "__main__"})
    labels = [EdgesTask().read(processed, frame) for frame in processed.frames("camera")]
    assert all(0 < label.mean() < 0.2 and set(np.unique(label)) == {0, 1} for label in labels)
    assert json.loads(processed.settings_path(KIND).read_text()) == {"size": list(SIZE)}


def test_files_that_it_names_exist() -> None:
    new = {"tasks/edges.py", "training/methods/logarithmic.py"}
    named = set(
        re.findall(r"(?:training|tasks|models|datasets|tests|configs|preprocessing)/[\w/]+\.(?:py|yaml)", DOCUMENT)
    )
    assert not [path for path in named - new if not (ROOT / path).is_file()]
