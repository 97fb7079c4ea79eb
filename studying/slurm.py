"""A study as job arrays: first the tuning runs, then the final ones, each element a share of them."""

import subprocess
from collections.abc import Sequence

from errors import UserError
from studying.grid import ROOT

JOB = "slurm/study.sbatch"


def submit(config: str, arguments: Sequence[str], elements: dict[str, int]) -> list[str]:
    """Submit an array for each purpose (purpose -> elements), each after the one before -> the jobs' ids.

    UserError: there is no Slurm, or it refuses.
    """
    jobs: list[str] = []
    for purpose, count in elements.items():
        # afterany: a failed run must not hold up the others
        after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        options = ["--parsable", f"--array=1-{count}", *after]
        command = ["bash", "slurm/submit.sh", *options, JOB, purpose, str(count), config, *arguments]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.split()).removeprefix("error: ")
            raise UserError(f"--submit slurm: refused: {reason}") from None
        jobs.append(done.stdout.strip().partition(";")[0])
    return jobs
