"""What study.py does once its flags are read: plan, submit, or carry out."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from datasets.processed import ProcessedData
from errors import UserError
from studying.carry_out import carry_out_all, write_report
from studying.config import StudyConfig, load_study
from studying.dashboard import show_tables
from studying.estimate import plan, plan_table
from studying.grid import Run, all_runs, final_runs, tuning_runs
from studying.results import Finished, StudyDir, read_results
from studying.slurm import submit
from studying.work import Place
from training.distributed import default_device


def carry_out_command(args: argparse.Namespace) -> int:
    """Do what the flags ask for -> exit code: 0, or 1 where a run failed."""
    args.device = args.device or default_device()
    study = load_study(args.config)
    if args.scale:
        study = study.at_scale(args.scale)
    study = study.with_seeds(args.seeds)
    folder = StudyDir(args.out, study.name)
    place = place_of(args, study, folder)
    if args.dry_run:
        print(planned(args, study, Finished(study, folder, place)))
        return 0
    check_roots(study, args.processed_root)
    if args.submit:
        jobs = submit(str(args.config), options_of_elements(args), elements(study))
        print(f"submitted jobs {', '.join(jobs)}: tuning runs, then final runs")
        return 0

    finished = Finished(study, folder, place)
    try:
        if args.purpose != "final":
            carry_out_all(share(tuning_runs(study), args.shard), finished, args.jobs)
        if args.purpose != "tuning":
            carry_out_all(share(final_runs(study, finished.chosen()), args.shard), finished, args.jobs)
    finally:
        finished.write()
        write_report(folder, latex=args.latex)
    if args.wandb != "disabled":
        show_tables(read_results(folder.results), place, args.wandb, args.wandb_group or study.name)
    print(f"{folder.report}")
    return 1 if finished.failures else 0


def place_of(args: argparse.Namespace, study: StudyConfig, folder: StudyDir) -> Place:
    return Place(
        runs_root=(args.runs_root / "studies" / study.name).resolve(),
        processed=tuple(path.resolve() for path in args.processed_root),
        data_root=args.data_root.resolve(),
        frames=folder.frames,
        device=args.device,
        threads=max(1, len(os.sched_getaffinity(0)) // args.jobs),
        wandb=("--wandb", args.wandb, "--wandb-group", args.wandb_group or study.name),
    )


def check_roots(study: StudyConfig, paths: list[Path]) -> None:
    """UserError unless the processed roots hold the data sets that the study is about."""
    found = names_of(paths)
    if found != study.data.roots:
        made = f"; made by: {' && '.join(study.data.make)}" if study.data.make else ""
        given = f"{', '.join(map(str, paths))} holds {', '.join(found) or 'none'}"
        raise UserError(f"--processed-root: {study.name} is about {', '.join(study.data.roots)}; {given}{made}")


def names_of(paths: list[Path]) -> list[str]:
    """Of the data sets in processed roots; none where one of them is no root."""
    try:
        return [ProcessedData(path).name for path in paths]
    except UserError:
        return []


def share(runs: list[Run], shard: tuple[int, int] | None) -> list[Run]:
    return runs if shard is None else runs[shard[0] - 1 :: shard[1]]


# ---- without running --------------------------------------------------------------------------------------------


def planned(args: argparse.Namespace, study: StudyConfig, finished: Finished) -> str:
    """The runs to come."""
    runs = all_runs(study, finished.chosen())
    missing = [run for run in runs if not finished.has(run)]
    here = names_of(args.processed_root) == study.data.roots
    place = finished.place if here else replace(finished.place, processed=())
    tflops = args.tflops or (study.tflops if args.device == "cpu" else None)
    how = f"at {tflops:g} TFLOP/s, assumed" if tflops else f"from steps measured on {args.device}, without loading"
    samples = "" if here else "\nThe data are not here: samples follow from the labels that the config states."
    return plan_table(plan(missing, study.data, place, tflops), len(runs) - len(missing), how) + samples


def elements(study: StudyConfig) -> dict[str, int]:
    """Purpose -> elements of its job array: one a run."""
    return {"tuning": len(tuning_runs(study)), "final": len(study.rows) * len(study.seeds)}


def options_of_elements(args: argparse.Namespace) -> list[str]:
    """What an element of the array is given of this script's own flags."""
    options = {"--out": args.out, "--runs-root": args.runs_root, "--data-root": args.data_root, "--wandb": args.wandb}
    options |= {"--scale": args.scale, "--seeds": args.seeds, "--wandb-group": args.wandb_group}
    given = [str(word) for flag, value in options.items() if value is not None for word in (flag, value)]
    return given + [str(word) for root in args.processed_root for word in ("--processed-root", root)]
