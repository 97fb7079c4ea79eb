"""What each study would take at its other scales: runs, samples, and hours of a GPU at a speed that the config assumes.

    python -m studying.full_scales [--json FILE]

Nothing is run: samples follow from the labels that the configs state, hours from counted FLOPs (studying/estimate.py).
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from datasets.files import write_json
from errors import run_as_script
from studying.config import StudyConfig, load_study
from studying.estimate import plan
from studying.grid import all_runs
from studying.work import Place

CONFIGS = Path(__file__).parents[1] / "configs" / "study"
NOWHERE = Place(Path(), (), Path(), Path(), device="cpu", threads=1, wandb=())  # no data are needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    studies = [load_study(path) for path in sorted(CONFIGS.glob("*.yaml"))]
    rows = [estimate(study, name) for study in studies for name in study.scales]
    for row in rows:
        print(
            "{study} {scale}: {runs} runs, {samples:,} samples, {hours:.1f} hours at {tflops:g} TFLOP/s".format(**row)
        )
    if args.json:
        write_json(args.json, {"rows": rows, "machine": describe_machine()})


def estimate(study: StudyConfig, name: str) -> dict[str, Any]:
    """Of a study at one of its scales, tuning runs among the others."""
    scale, at = study.scales[name], study.at_scale(name)
    planned = plan(all_runs(at, {}), at.data, NOWHERE, scale.tflops)
    return {
        "study": study.name,
        "scale": name,
        "about": scale.about,
        "tflops": scale.tflops,
        "runs": len(planned),
        "samples": sum(one.samples for one in planned),
        "hours": sum(one.hours for one in planned),
    }


if __name__ == "__main__":
    run_as_script(main)
