"""benchmarks/cuda_bare.sh in a repository of its own, with a benchmarks.cuda that tells what it got."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "cuda_bare.sh"
CUDA = """
import small_library, sys
from importlib.util import find_spec
print(small_library.__file__, find_spec("torch").origin, sys.argv[1:], sep="\\n")
sys.exit(7)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "a repository"
    (root / "benchmarks").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "benchmarks")
    (root / "benchmarks" / "cuda.py").write_text(CUDA)
    return root


def write_wheel(folder: Path, name: str, tag: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def bare(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [root / "benchmarks" / "cuda_bare.sh", *arguments]
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, cwd=root.parent, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("folder", [False, True])
def test_without_a_bundle_one_line_and_exit_2(repository: Path, folder: bool) -> None:
    if folder:
        (repository / "bundle").mkdir()
    done = bare(repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "make cuda-bundle" in done.stderr


@pytest.mark.parametrize("venv", [True, False])
def test_arguments_go_in_and_the_status_comes_out(repository: Path, venv: bool) -> None:
    """In a virtual environment that sees this one; where none can be made, the wheels lie on PYTHONPATH."""
    environment = {"PYTHONPATH": ""}
    write_wheel(repository / "bundle", "small_library", "py3-none-any")
    if not venv:
        (repository / "machine").mkdir()
        (repository / "machine" / "venv.py").write_text("raise SystemExit(1)")
        environment["PYTHONPATH"] = str(repository / "machine")
    done = bare(repository, "--minutes", "1", "--out", "a b", **environment)
    assert done.returncode == 7, done.stderr
    where, torch, arguments = done.stdout.splitlines()
    assert arguments == "['--minutes', '1', '--out', 'a b']"
    assert Path(where).is_relative_to(repository / ".cuda_bare")
    assert torch == find_spec("torch").origin
    assert (repository / ".cuda_bare" / "pyvenv.cfg").exists() == venv


def test_a_wheel_that_does_not_fit_costs_itself_only(repository: Path) -> None:
    write_wheel(repository / "bundle", "small_library", "py3-none-any")
    write_wheel(repository / "bundle", "other_library", "cp27-cp27m-win32")
    done = bare(repository, PYTHONPATH="")
    assert done.returncode == 7
    assert "going on without bundle/other_library-1.0-cp27-cp27m-win32.whl\n" in done.stderr


def test_what_the_bundle_pins_pip_takes_as_constraints(tmp_path: Path) -> None:
    """Names and versions, without extras. By the Makefile's own line; nothing is downloaded."""
    rules = subprocess.run(
        ["make", "-n", "cuda-bundle", f"BUNDLE={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    (line,) = (line for line in rules.stdout.splitlines() if line.startswith("grep") and "pins.txt" in line)
    subprocess.run(line, shell=True, cwd=ROOT, check=True)
    pins = [pin.split("#")[0].strip() for pin in (tmp_path / "pins.txt").read_text().splitlines()]
    assert {pin.split("==")[0] for pin in pins} >= {"pydantic", "torchjd", "pytest"}
    assert [pin for pin in pins if not re.fullmatch(r"[\w-]+==[\w.]+", pin)] == []
