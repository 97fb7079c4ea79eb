"""A `sbatch` that only notes what it is asked for, and a `python` that does."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Cluster:
    """Programs in a folder of their own, before the real ones; notes lie beside them."""

    def __init__(self, folder: Path, jobs: int = 100, python: str = "exit 0"):
        """sbatch refuses all but the first `jobs` jobs; python: what it does with a script, in the shell's words."""
        self.folder = folder
        self._program(
            "sbatch",
            'case " $* " in *" --test-only "*) exit 0 ;; esac\n'
            f"n=$(wc -l <{folder}/sbatch.asked)\n"
            f'[ "$n" -le {jobs} ] || {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}\n'
            'echo "$((100 + n));cluster"',
        )
        self._program("python", f'[ "$1" != -c ] || exit 0\n{python}')

    def _program(self, name: str, does: str) -> None:
        path, note = self.folder / name, self.folder / f"{name}.asked"
        unnoted = '[ "$1" = -c ] || case " $* " in *" --test-only "*) ;; *)'
        path.write_text(f"#!/bin/sh\n{unnoted} printf '%s\\t' \"$@\" >>{note}; echo >>{note} ;; esac\n{does}\n")
        path.chmod(0o755)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A script of slurm/, submitted from the project's root."""
        path = f"{self.folder}:{os.environ['PATH']}"
        # .venv is not activated: its python would come first
        environment = os.environ | {
            "PATH": path,
            "A2D2_RUNS": str(self.folder / "runs"),
            "CONTAINER": f"env PATH={path}",
        }
        environment |= variables
        return subprocess.run(["bash", *command], cwd=ROOT, env=environment, capture_output=True, text=True)

    def asked(self, program: str = "sbatch") -> list[list[str]]:
        """The arguments of each call."""
        note = self.folder / f"{program}.asked"
        return [line.split("\t")[:-1] for line in note.read_text().splitlines()] if note.exists() else []
