"""Carry out a study's runs, several at a time, and keep its results, tables and plots up to date."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from datasets.files import locked, whole_file
from studying.document import report
from studying.grid import Run
from studying.plots import draw_all
from studying.results import Finished, StudyDir, read_results
from studying.tables import latex_table
from studying.work import Children, RunFailed, carry_out, constant_results


def carry_out_all(runs: Sequence[Run], finished: Finished, jobs: int) -> None:
    """What is missing of the runs, `jobs` at a time; a failed one is named, and the others go on.

    Ctrl-C and SIGTERM: the trainings that are at work save and end.
    """
    missing = [run for run in runs if not finished.has(run)]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished", flush=True)
    torch.set_num_threads(finished.place.threads)
    children = Children()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for outcome in [pool.submit(one, run, finished, children) for run in missing]:
                outcome.result()
        except BaseException:
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise


def one(run: Run, finished: Finished, children: Children) -> None:
    """Carry out a run and write down what came of it."""
    if children.stopping:
        return
    try:
        result = carry_out(run, finished.place, children)
    except RunFailed as failure:
        finished.add_failure(run, str(failure))
        print(f"failed: {failure}", flush=True)
        return
    if run.purpose == "final":
        finished.add_constant(lambda: constant_results(run, finished.place), list(result["test"]))
    finished.add(run, result)
    print(f"done: the {run.title}", flush=True)


def write_report(folder: StudyDir, *, latex: bool) -> None:
    """RESULTS.md and plots, made from results.json."""
    with locked(folder.lock):
        results = read_results(folder.results)
        texts = {folder.report: report(results)} | ({folder.latex: latex_table(results)} if latex else {})
        for path, text in texts.items():
            with whole_file(path) as file:
                file.write(text.encode())
        draw_all(results, folder)
