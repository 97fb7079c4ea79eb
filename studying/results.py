"""studies/NAME/results.json: all that a study's runs gave, written whole after each of them."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from datasets.files import locked, read_json, write_json
from errors import UserError
from studying.config import StudyConfig
from studying.grid import Choice, Run, final_runs, tuning_runs
from studying.work import Place
from tasks import TASKS

FORMAT = 1
Result = dict[str, Any]


class StudyDir:
    """The files of one study: `studies/NAME/...`."""

    def __init__(self, root: Path, name: str):
        self.dir = root / name
        self.lock = self.dir / ".lock"
        self.results = self.dir / "results.json"
        self.report = self.dir / "RESULTS.md"
        self.latex = self.dir / "table.tex"
        self.frames = self.dir / "frames"

    def plot(self, name: str, suffix: str) -> Path:
        """A plot (png, pdf) or the numbers beside it (csv)."""
        return self.dir / f"{name}.{suffix}"


class Finished:
    """What is known of a study's runs, from results.json and from the runs' own files; safe among threads."""

    def __init__(self, study: StudyConfig, folder: StudyDir, place: Place):
        self.study, self.folder, self.place, self.lock = study, folder, place, Lock()
        self.results: dict[str, Result] = {}
        self.failures: dict[str, Result] = {}
        self.constant: dict[str, Any] = {}
        self.read()

    def read(self) -> None:
        """Take in what is there: of an earlier start, and of other machines that share the folders."""
        earlier = read_results(self.folder.results) if self.folder.results.exists() else {}
        self.results |= {result["key"]: result for result in [*earlier.get("tuning", ()), *earlier.get("runs", ())]}
        self.constant = (earlier.get("constant") or {}) | self.constant
        self.failures = {failure["key"]: failure for failure in earlier.get("failed", ())} | self.failures
        for path in self.place.runs_root.glob("*/result.json"):
            if path.parent.name.rpartition("-")[2] not in self.results:
                result = read_json(path)
                self.results[result["key"]] = result
        self.failures = {key: failure for key, failure in self.failures.items() if key not in self.results}

    def has(self, run: Run) -> bool:
        return run.key in self.results

    def add(self, run: Run, result: Result) -> None:
        with self.lock:
            self.results[run.key] = result
            self.write()

    def add_failure(self, run: Run, reason: str) -> None:
        with self.lock:
            failure = {"row": run.row, "seed": run.seed, "purpose": run.purpose, "choice": run.choice, "key": run.key}
            self.failures[run.key] = failure | {"reason": reason}
            self.write()

    def add_constant(self, evaluate: Callable[[], dict[str, Any]], tasks: Iterable[str]) -> None:
        """The constant baselines of these tasks, evaluated unless they are known."""
        with self.lock:
            if not set(tasks) <= set(self.constant):
                self.constant |= evaluate()

    def of(self, runs: Iterable[Run]) -> list[Result]:
        return [self.results[run.key] for run in runs if run.key in self.results]

    def chosen(self) -> dict[str, Choice]:
        """Row -> the choice with the best score on validation, of those that are finished; the first of equal ones."""
        best: dict[str, Result] = {}
        for result in self.of(tuning_runs(self.study)):
            before = best.get(result["row"])
            if math.isfinite(result["score"]) and (before is None or result["score"] > before["score"]):
                best[result["row"]] = result
        return {row: result["choice"] for row, result in best.items()}

    def write(self) -> None:
        """Those runs that the present config asks for, with what others have written meanwhile."""
        with locked(self.folder.lock):
            self.read()
            write_json(self.folder.results, self.content(), indent=1)

    def content(self) -> Result:
        """Of results.json."""
        chosen = self.chosen()
        tuning, final = tuning_runs(self.study), final_runs(self.study, chosen)
        wanted = {run.key for run in [*tuning, *final]}
        return {
            "format": FORMAT,
            "study": self.study.name,
            "config": self.study.model_dump(mode="json"),
            "config_hash": hash_of(self.study),
            "tasks": tasks_of(tuning),
            "chosen": chosen,
            "constant": self.constant,
            "planned": {"tuning": len(tuning), "final": len(self.study.rows) * len(self.study.seeds)},
            "failed": [failure for key, failure in self.failures.items() if key in wanted],
            "tuning": self.of(tuning),
            "runs": self.of(final),
        }


def hash_of(study: StudyConfig) -> str:
    return hash_of_text(json.dumps(study.model_dump(mode="json"), sort_keys=True))


def hash_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tasks_of(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Task -> its deciding metric, what people call it, and whether higher is better."""
    kinds = {task: run.config.kind_of(task) for run in runs for task in run.config.task_names()}
    return {
        task: {
            "kind": kind,
            "metric": TASKS[kind].best_metric,
            "title": TASKS[kind].deciding().title,
            "higher_is_better": TASKS[kind].deciding().higher_is_better,
        }
        for task, kind in kinds.items()
    }


def read_results(path: Path) -> dict[str, Any]:
    """UserError: another version wrote it, or it is no results.json."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a results.json of format {FORMAT}; move it away, and the study runs anew")
    return content
