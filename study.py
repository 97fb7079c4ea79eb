"""Run a study: a grid of ordinary training runs, judged on the test split, with statistics over seeds and plots.

python study.py configs/study/NAME.yaml [--seeds N] [--jobs N] [--dry-run]
"""

import argparse
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from datasets.layout import add_data_root_argument, add_processed_roots_argument, add_runs_root_argument
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from studying.config import StudyConfig, load_study
from studying.grid import Run, final_runs, tuning_runs
from studying.results import Finished, StudyDir
from studying.work import Children, Place, RunFailed, carry_out, constant_results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="such as configs/study/nyuv2_partial.yaml")
    parser.add_argument("--scale", metavar="NAME", help="another size of the study that its config has, such as full")
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N (more: the whole numbers that follow)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, each with cores / N threads")
    parser.add_argument("--out", type=Path, default=Path("studies"), metavar="DIR", help="of results (default studies)")
    add_runs_root_argument(parser)
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--wandb", choices=["auto", "online", "offline", "disabled"], default="disabled")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    study = with_seeds(load_study(args.config), args.seeds)
    if args.scale:
        study = study.at_scale(args.scale)
    check_roots(study, args.processed_root)
    place = place_of(args, study)
    finished = Finished(study, StudyDir(args.out, study.name))
    try:
        carry_out_all(tuning_runs(study), place, finished, args.jobs)
        carry_out_all(final_runs(study, finished.chosen()), place, finished, args.jobs)
    finally:
        finished.write()
    for failure in finished.failures.values():
        print(f"failed: {failure['reason']}")
    return 1 if finished.failures else 0


def with_seeds(study: StudyConfig, count: int | None) -> StudyConfig:
    """The study with as many seeds; UserError: fewer than one."""
    if count is None:
        return study
    if count < 1:
        raise UserError(f"--seeds {count}: one at least")
    more = range(max(study.seeds) + 1, max(study.seeds) + 1 + max(0, count - len(study.seeds)))
    return study.model_copy(update={"seeds": [*study.seeds[:count], *more]})


def check_roots(study: StudyConfig, paths: list[Path]) -> None:
    """UserError unless the processed roots hold the data sets that the study is about."""
    found = [ProcessedData(path).name for path in paths]
    if found != study.data.roots:
        made = f"; made by: {' && '.join(study.data.make)}" if study.data.make else ""
        raise UserError(f"{study.name} is about {' '.join(study.data.roots)}, not {' '.join(found)}{made}")


def place_of(args: argparse.Namespace, study: StudyConfig) -> Place:
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: one at least")
    return Place(
        runs_root=(args.runs_root / "studies" / study.name).resolve(),
        processed=tuple(path.resolve() for path in args.processed_root),
        data_root=args.data_root.resolve(),
        frames=StudyDir(args.out, study.name).frames,
        device=args.device,
        threads=max(1, len(os.sched_getaffinity(0)) // args.jobs),
        wandb=("--wandb", args.wandb),
    )


def carry_out_all(runs: list[Run], place: Place, finished: Finished, jobs: int) -> None:
    """What is missing of the runs, `jobs` at a time; a failed one is named, and the others go on."""
    missing = [run for run in runs if not finished.has(run)]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished", flush=True)
    torch.set_num_threads(place.threads)
    children = Children()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def one(run: Run) -> None:
        if children.stopping:
            return
        try:
            result = carry_out(run, place, children)
        except RunFailed as failure:
            finished.add_failure(run, str(failure))
            print(f"failed: {failure}", flush=True)
            return
        if finished.constant is None and run.purpose == "final":
            finished.constant = constant_results(run, place)
        finished.add(run, result)
        print(f"done: the {run.title}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for outcome in [pool.submit(one, run) for run in missing]:
                outcome.result()
        except BaseException:  # Ctrl-C, SIGTERM, or a bug: trainings save and end
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    run_as_script(main)
