"""The README is true: its tables are those of the committed results, its commands exist with the flags it prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.readme import DOCUMENTS, RESULTS, TABLES, rendered

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    set(re.findall(r"python ((?:preprocessing/)?\w+\.py)((?: [^`|\n\\]*)?)", README.replace("\\\n", " ")))
)
SCRIPTS = sorted({script for script, _ in COMMANDS})
HELP = """
import contextlib, io, json, runpy, sys
found = {}
for script in sys.argv[1:]:
    sys.argv[:] = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    found[script] = printed.getvalue()
print(json.dumps(found))
"""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(document: Path) -> None:
    assert rendered(document.read_text()) == document.read_text(), "run `make readme`"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_its_place_and_its_results(name: str) -> None:
    assert sum(f"<!-- table: {name} -->" in document.read_text() for document in DOCUMENTS) == 1
    assert (RESULTS / TABLES[name][0]).is_file() or name == "cuda"  # which says so where there are none yet


def test_commands_are_found() -> None:
    assert {"train_single_task.py", "evaluate.py", "preprocessing/camera.py"} <= {script for script, _ in COMMANDS}


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What each script prints for --help: all from one process, which imports torch once."""
    done = subprocess.run([sys.executable, "-c", HELP, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_know_the_flags_that_the_readme_prints(helps: dict[str, str], script: str) -> None:
    printed = {flag for name, rest in COMMANDS if name == script for flag in re.findall(r"--[a-z-]+", rest)}
    assert "usage: " in helps[script]
    assert not {flag for flag in printed if flag not in helps[script]}


def test_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"`((?:datasets|tasks|training|configs|benchmarks)/[\w/]+\.\w+)`", README)
    assert named
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


@pytest.mark.parametrize(("given", "kept"), [("", False), ("TORCH=keep", True)])
def test_an_images_torch_is_kept_where_asked_for(given: str, kept: bool) -> None:
    """The Makefile's commands, not run: what they would install."""
    make = ["make", "-n", "-W", "requirements.txt", *given.split(), ".venv/installed"]
    lines = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any("--system-site-packages" in line for line in lines) == kept
    listing = next(line for line in lines if line.startswith("grep")).partition(" > ")[0]
    listed = subprocess.run(listing, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\nnumpy==" in listed
    assert ("\ntorch==" in listed, "\ntorchvision==" in listed) == (not kept, not kept)
