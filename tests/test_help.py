"""What --help tells: each option in words, its default and an example; what is written where. And at once."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "preprocessing")
    for path in folder.glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)
MODULES = ["datasets.synthetic", "fetching"]  # run by python -m
# Each script runs as from a shell, where torch can't be imported; its options are noted instead of printed
DRIVER = """
import argparse, contextlib, io, json, runpy, sys, traceback

found = {}

def note(parser, file=None):
    options = [
        {
            "names": action.option_strings or [action.metavar or action.dest],
            "help": action.help,
            "takes": action.nargs != 0,
            "choices": bool(action.choices),
            "required": action.required,
        }
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    about = f"{parser.description} {parser.epilog}"
    found[script] = {"printed": parser.format_help(), "about": about, "options": options}

argparse.ArgumentParser.print_help = note
for name in ("torch", "torchvision", "torchmetrics", "timm", "matplotlib", "pandas", "wandb"):
    sys.modules[name] = None  # an import of it fails
for script in sys.argv[1:]:
    sys.argv[:] = [script, "--help"]
    code = None
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run = runpy.run_path if script.endswith(".py") else runpy.run_module
            run(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
    found.setdefault(script, {"printed": "", "about": "", "options": []}).update(code=code, err=err.getvalue())
print(json.dumps(found))
"""

Help = dict[str, Any]


@pytest.fixture(scope="module")
def helps() -> dict[str, Help]:
    command = [sys.executable, "-c", DRIVER, *SCRIPTS, *MODULES]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(params=[*SCRIPTS, *MODULES])
def shown(request: pytest.FixtureRequest, helps: dict[str, Help]) -> Help:
    return helps[request.param] | {"script": request.param}


def test_all_scripts_are_found() -> None:
    assert {"train_symmetric.py", "study.py", "preprocessing/camera.py"} <= {*SCRIPTS}


def test_help_needs_no_torch(shown: Help) -> None:
    assert (shown["code"], shown["err"]) == (0, "")


def test_it_says_what_is_written_and_shows_a_command(shown: Help) -> None:
    assert re.search(r"\b[Ww]rites? ", shown["about"])
    command = shown["script"] if shown["script"] in SCRIPTS else f"-m {shown['script']}"
    assert f"python {command} " in shown["about"]


def test_every_option_has_words_a_default_and_an_example(shown: Help) -> None:
    for option in shown["options"]:
        name, words = option["names"][0], option["help"] or ""
        assert words, name
        if option["takes"]:
            assert option["required"] or "default" in words or "must be given" in words, f"{name}: which default?"
            in_command = any(f"{known} " in shown["about"] for known in option["names"])
            assert option["choices"] or in_command or "such as" in words, f"{name}: no example"


def test_sizes_say_what_they_do_not_decide(helps: dict[str, Help]) -> None:
    with_size = [" ".join(shown["printed"].split()) for shown in helps.values() if "--size " in shown["printed"]]
    assert len(with_size) >= 6
    assert all("(default 1024 1024); boxes and steering angles do not depend on it" in words for words in with_size)


def test_nothing_but_scripts_lies_among_the_scripts() -> None:
    files = (path for path in (ROOT / "preprocessing").iterdir() if path.is_file())
    beside = {str(path.relative_to(ROOT)) for path in files} - {*SCRIPTS}
    assert beside == {"preprocessing/__init__.py"}
