"""docs/results.md holds no number that is not from a results.json."""

import json
import re
from pathlib import Path

from studying.document import DOCUMENT, PUBLISHED, STUDIES, document, read_all, report
from studying.plots import draw_all
from studying.published import Published, load_published
from studying.results import StudyDir
from studying.tables import comparisons_csv, latex_table, seeds_csv
from tests.studying.made_up import made_up_results

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")


def test_the_document_is_what_the_results_give() -> None:
    found = document(read_all(STUDIES), load_published(PUBLISHED))
    assert DOCUMENT.read_text() == found, "python -m studying.document writes it anew"


def test_published_figures_stand_beside_their_study_alone() -> None:
    """Each says what differs; a study of another name has none."""
    results = made_up_results(seeds=5, gain=0.03, spread=0.05)
    figure = {"work": "Somebody, 2020", "network": "a", "labels": "b", "figures": {"mIoU": "12.34 %"},
              "differs": "other classes", "source": "their table 1"}  # fmt: skip
    beside = Published.model_validate({"studies": {results["study"]: [figure]}})
    assert "| Somebody, 2020 | a | b | mIoU 12.34 % | other classes | their table 1 |" in document([results], beside)
    elsewhere = Published.model_validate({"studies": {"other": [figure]}})
    assert "12.34" not in document([results], elsewhere)


def test_published_figures_are_for_studies_that_exist() -> None:
    published = load_published(PUBLISHED).studies
    assert published
    assert all((PUBLISHED.parents[1] / "configs" / "study" / f"{name}.yaml").is_file() for name in published)


def test_no_number_of_a_measurement_is_in_the_code() -> None:
    """With other results every measured number of a report changes, but for what both share."""
    one, other = (numbers_of(report(made_up_results(seeds=5, gain=gain, spread=spread)))
                  for gain, spread in ((0.0123, 0.17), (0.0345, 0.29)))  # fmt: skip
    assert len(one - other) > 5
    fixed = numbers_of(
        "95 % 5 seeds, 2 torch 2.14.1 1 2 3 4 5 15 of 15 0 of 3 0.004 10.0 0.900 240 123 0.1 hours 0123456789ab"
    )
    assert one & other <= fixed | {"+0.0"}


def numbers_of(text: str) -> set[str]:
    return set(NUMBER.findall(text))


def test_a_report_says_what_is_shown() -> None:
    text = report(made_up_results(seeds=5, gain=0.03, spread=0.05))
    assert "15 of 15 final runs" in text
    assert "**sharing** (primary)" in text
    assert text.index("## Shown") < text.index("- sharing: Delta-m +")
    assert "They are made up." in text
    assert "## What surprised" not in text


def test_what_is_not_distinguishable_is_marked_and_a_surprise() -> None:
    results = made_up_results(seeds=5, gain=0.0, spread=0.1)
    for run in results["runs"]:
        if run["row"] == "together":
            run["test"]["segmentation"]["miou"] += 0.02 * (-1) ** run["seed"]
    text = report(results)
    assert "○" in text.partition("| comparison |")[2]
    assert "Nothing: no interval excludes zero." in text
    assert "better was expected; it is not distinguishable from zero" in text


def test_fewer_seeds_are_points_without_a_claim() -> None:
    text = report(made_up_results(seeds=4, gain=0.03, spread=0.05))
    assert "no claim" in text
    assert "points: +3.00, +3.00, +3.00, +3.00 | points: +0.0300, +0.0300, +0.0300, +0.0300" in text
    assert "[" not in text.partition("| comparison |")[2].partition("\n\n")[0]


def test_failed_runs_are_named() -> None:
    results = made_up_results(seeds=5, gain=0.03, spread=0.05)
    results["failed"] = [{"row": "together", "reason": "the final run of 'together' failed: out of memory"}]
    assert "Failed: the final run of 'together' failed: out of memory." in report(results)


def test_plots_and_numbers_beside_them(tmp_path: Path) -> None:
    results = made_up_results(seeds=5, gain=0.03, spread=0.05)
    folder = StudyDir(tmp_path, "tiny")
    drawn = draw_all(results, folder)
    assert drawn == ["metrics", "delta_m", "shares", "curves", "similarity"]
    assert {path.name for path in folder.dir.iterdir()} == {
        f"{name}.{suffix}" for name in drawn for suffix in ("png", "pdf", "csv")
    }
    assert folder.plot("metrics", "csv").read_text() == seeds_csv(results)
    assert len(seeds_csv(results).splitlines()) == 16
    assert "sharing,delta_m,5," in comparisons_csv(results)
    assert r"$\pm$" in latex_table(results)


def test_committed_reports_are_what_their_results_give() -> None:
    for path in STUDIES.glob("*/results.json"):
        assert (path.parent / "RESULTS.md").read_text() == report(json.loads(path.read_text())), path
