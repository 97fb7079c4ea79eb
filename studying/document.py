"""What results say in plain words: RESULTS.md of a study, and docs/results.md of all. From results.json alone.

docs/results.md has published figures beside them (studying/published.py).

python -m studying.document      writes docs/results.md anew
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from studying.published import Published, load_published, published_section
from studying.statistics import LEAST_SEEDS, Compared, Results, comparisons_of
from studying.tables import comparisons_table, metrics_table, note, per_cent, with_interval

ROOT = Path(__file__).resolve().parents[1]
STUDIES, DOCUMENT = ROOT / "studies", ROOT / "docs" / "results.md"
PUBLISHED = STUDIES / "published.yaml"
HEAD = """\
# Results

Made by `python -m studying.document` from `studies/*/results.json` alone, and figures of others from
`studies/published.yaml`; a test holds them together. How the runs are made and judged: [protocol.md](protocol.md)."""


def document(studies: Iterable[Results], published: Published) -> str:
    """docs/results.md."""
    sections = []
    for results in studies:
        name = results["study"]
        sections.append(section(results, "##", f"../studies/{name}/"))
        if name in published.studies:
            sections.append(published_section(published.studies[name]))
    return "\n\n".join([HEAD, *(sections or ["No study has been run yet."])]) + "\n"


def report(results: Results) -> str:
    """RESULTS.md of one study."""
    return section(results, "#", "") + "\n"


def section(results: Results, heading: str, folder: str) -> str:
    """A study in words, tables and plots; folder: where its files are, seen from the document."""
    config, data = results["config"], results["config"]["data"]
    parts = [
        f"{heading} {results['study']}",
        config["question"],
        f"Data: {data['about']}.",
        data["limits"],
        config.get("notes", ""),
        progress_of(results),
        metrics_table(results),
        note(),
        *findings(results, heading),
        chosen_rates(results),
        made_with(results),
    ]
    links = [f"[{name}]({folder}{name}.png)" for name in plots_of(results)]
    if links:
        parts.append(f"Plots: {', '.join(links)}; PDF and CSV beside them.")
    return "\n\n".join(part for part in parts if part)


def plots_of(results: Results) -> list[str]:
    """The names that studying/plots.py draws for these results."""
    if not results["runs"]:
        return []
    with_share = any(row.get("share") for row in results["config"]["rows"].values())
    similar = any(run["similarity"] for run in results["runs"])
    found = {"metrics": True, "delta_m": bool(comparisons_of(results)), "shares": with_share, "curves": True}
    return [name for name, drawn in {**found, "similarity": similar}.items() if drawn]


def progress_of(results: Results) -> str:
    """How many runs there are of how many, and which failed."""
    planned = results["planned"]
    done = {"final": results["runs"], "tuning": results["tuning"]}
    counts = [f"{len(runs)} of {planned[kind]} {kind} runs" for kind, runs in done.items()]
    text = f"Finished: {' and '.join(counts)}, seeds {', '.join(map(str, results['config']['seeds']))}."
    return " ".join([text, *(f"Failed: {failure['reason']}." for failure in results["failed"])])


# ---- what is shown --------------------------------------------------------------------------------------------


def findings(results: Results, heading: str) -> list[str]:
    """The comparisons, the primary one first, then sorted into what is shown and what is not."""
    found = comparisons_of(results)
    if not found:
        return []
    config = results["config"]
    sides: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable from zero": [], "no claim": []}
    surprises = []
    for name, one in found.items():
        sides[one.delta_m.verdict].append(sentence(name, one))
        expected = config["comparisons"][name].get("expected")
        if expected and one.delta_m.verdict not in (expected, "no claim"):
            surprises.append(f"- {name}: {expected} was expected; it is {one.delta_m.verdict}.")
    shown, unclear = sides["better"] + sides["worse"], sides["not distinguishable from zero"]
    return [
        primary_sentence(results, found),
        comparisons_table(results),
        listed(f"{heading}# Shown", shown, "Nothing: no interval excludes zero." if not sides["no claim"] else ""),
        listed(f"{heading}# Not shown (the interval holds zero)", unclear),
        listed(f"{heading}# No claim (fewer than {LEAST_SEEDS} seeds)", sides["no claim"]),
        listed(f"{heading}# What surprised", surprises),
    ]


def primary_sentence(results: Results, found: dict[str, Compared]) -> str:
    primary = results["config"]["primary"]
    asks = results["config"]["comparisons"][primary]["asks"]
    if primary not in found:
        return f"The primary comparison, *{primary}* ({asks}), has no finished seed yet."
    estimate = found[primary].delta_m
    delta_m = with_interval(estimate, per_cent)
    return f"The primary comparison, *{primary}*. {asks} Delta-m: {delta_m} %: {estimate.verdict}."


def sentence(name: str, one: Compared) -> str:
    return f"- {name}: Delta-m {with_interval(one.delta_m, per_cent)} %, {len(one.seeds)} seeds, {one.delta_m.verdict}."


def listed(title: str, lines: Sequence[str], otherwise: str = "") -> str:
    body = "\n".join(lines) or otherwise
    return f"{title}\n\n{body}" if body else ""


# ---- how it was made ------------------------------------------------------------------------------------------


def chosen_rates(results: Results) -> str:
    """The chosen learning rates, and which lie at the edge of their grid."""
    grids: dict[str, set[float]] = {}
    for result in results["tuning"]:
        grids.setdefault(result["row"], set()).add(result["choice"]["learning_rate"])
    at_edge = [
        row
        for row, choice in results["chosen"].items()
        if len(grids.get(row, ())) > 1 and choice["learning_rate"] in (min(grids[row]), max(grids[row]))
    ]
    if not results["tuning"]:
        return ""
    tried = sorted({rate for grid in grids.values() for rate in grid})
    text = f"Learning rates were chosen on validation among {', '.join(f'{rate:g}' for rate in tried)}, one seed"
    return f"{text}; at the edge of the grid: {'; '.join(at_edge) or 'none'}."


def made_with(results: Results) -> str:
    """Machine, versions, time."""
    runs = [*results["tuning"], *results["runs"]]
    if not runs:
        return ""
    made = [run["made"] for run in runs]
    hours = sum(sum(run["seconds"].values()) for run in runs) / 3600
    # a + at the end says that files differed from the commit, the results' own among them
    commits = sorted({(one["commit"] or "unknown").rstrip("+")[:12] for one in made})
    devices = sorted({f"{one['device']} ({one['instructions']}), {one['threads']} thread(s) a run" for one in made})
    versions = sorted({f"torch {one['versions']['torch']}" for one in made})
    return (
        f"{len(runs)} runs, {hours:.1f} hours in all; {'; '.join(devices)}; {', '.join(versions)}; "
        f"commit {', '.join(commits)}."
    )


def read_all(folder: Path) -> list[Results]:
    """Of every study that has results, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))]


def main() -> None:
    DOCUMENT.write_text(document(read_all(STUDIES), load_published(PUBLISHED)))


if __name__ == "__main__":
    main()
