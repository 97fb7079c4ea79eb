"""wandb may be missing: nothing needs it to be imported, and a training goes on without it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.layout import RunDir
from tests.test_architecture import project_files
from training.tracking import Listing, Tracker, start_wandb

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def imported_at_once(node: ast.AST) -> Iterator[str]:
    """Libraries that importing this source imports: not those that wait in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module.split(".")[0]
        elif not isinstance(child, FUNCTIONS):
            yield from imported_at_once(child)


def test_only_functions_import_wandb() -> None:
    found = {path.name: set(imported_at_once(ast.parse(path.read_text()))) for path in project_files()}
    assert "torch" in set().union(*found.values())
    assert not [name for name, libraries in found.items() if "wandb" in libraries]


@pytest.mark.parametrize(("mode", "warnings"), [("auto", 1), ("online", 1), ("offline", 1), ("disabled", 0)])
def test_a_run_without_wandb(
    mode: str, warnings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    run = RunDir(tmp_path, "night")
    run.dir.mkdir()
    tracker = Tracker(run, start_wandb(mode, run, Listing("abcd1234", "night", "single_task", "train"), {}))
    tracker.log({"x": 1.0}, 8)
    tracker.show_images("images", [], 8)
    tracker.show_table("classes", ["class"], [["Car"]], 8)
    tracker.summarise({"best/epoch": 1})
    tracker.finish()
    assert run.metrics.read_text() == '{"samples": 8, "x": 1.0}\n'
    assert capsys.readouterr().err.count("warning: wandb can't start, going on without it") == warnings
