"""A study's tables on the wandb dashboard, beside its runs."""

import csv
import io

from datasets.layout import RunDir
from studying.results import hash_of_text
from studying.statistics import Results
from studying.tables import comparisons_csv, seeds_csv
from studying.work import Place
from training.tracking import Listing, Tracker, start_wandb


def show_tables(results: Results, place: Place, mode: str, group: str) -> None:
    """Log the seeds' numbers and the comparisons; mode: as --wandb of the training scripts."""
    run = RunDir(place.runs_root, "dashboard")
    run.dir.mkdir(parents=True, exist_ok=True)
    run_id = hash_of_text(f"study {results['study']}")
    listing = Listing(run_id, results["study"], group, "study", ("study",))
    tracker = Tracker(run, start_wandb(mode, run, listing, results["config"]))
    for name, text in (("seeds", seeds_csv(results)), ("comparisons", comparisons_csv(results))):
        columns, *rows = csv.reader(io.StringIO(text))
        tracker.show_table(name, columns, rows, len(results["runs"]))
    tracker.finish()
