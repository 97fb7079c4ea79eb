"""From a study's YAML to its runs."""

from pathlib import Path

import pytest

from datasets.files import read_json
from errors import UserError
from studying.config import DataSets, load_study
from studying.estimate import StatedLabels, samples_of
from studying.full_scales import NOWHERE
from studying.grid import Run, all_runs, choices, final_runs, tuning_runs
from tests.conftest import ROOT
from tests.studying.made_up import STUDY, write_study

STUDIES = sorted((ROOT / "configs" / "study").glob("*.yaml"))
CLOSED = {"box_head"}  # what they compared is no longer in the code; results.json names the commit that has it


def finals(path: Path) -> list[Run]:
    study = load_study(path)
    return final_runs(study, {row: choices(study, row)[0] for row in study.rows})


def test_every_row_is_tuned_once_and_run_for_every_seed(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY.replace("rates: [0.004]", "rates: [0.004, 0.008]"))
    tuned = tuning_runs(load_study(path))
    rows = ["together", "segmentation alone", "depth alone"]
    assert [(run.row, run.seed, run.choice["learning_rate"]) for run in tuned] == [
        (row, 0, rate) for row in rows for rate in (0.004, 0.008)
    ]
    runs = finals(path)
    assert [(run.row, run.seed) for run in runs] == [(row, seed) for seed in (1, 2) for row in rows]
    assert len({run.key for run in [*tuned, *runs]}) == 12


def test_a_seed_decides_weights_order_and_kept_labels_and_finals_train_on_val(tmp_path: Path) -> None:
    for run in finals(write_study(tmp_path)):
        assert run.config.seed == run.config.data.labels.seed == run.seed
        assert run.config.data.split.train_on_val
    for run in tuning_runs(load_study(tmp_path / "tiny.yaml")):
        assert not run.config.data.split.train_on_val


def test_rates_reach_every_group(tmp_path: Path) -> None:
    together, alone, _ = tuning_runs(load_study(write_study(tmp_path, STUDY.replace("[0.004]", "[0.123]"))))
    assert {group.learning_rate for group in together.config.group_configs().values()} == {0.123}
    assert {group.learning_rate for group in alone.config.group_configs().values()} == {0.123}


def test_a_changed_config_makes_only_what_changed_anew(tmp_path: Path) -> None:
    before = {run.key: run.row for run in finals(write_study(tmp_path))}
    changed = STUDY.replace("training.similarity_every: 1}", "training.similarity_every: 2}")
    after = {run.key: run.row for run in finals(write_study(tmp_path, changed))}
    assert set(before) != set(after)
    assert {before[key] for key in set(before) - set(after)} == {"together"}
    words = {run.key for run in finals(write_study(tmp_path, STUDY.replace("Does it help?", "Well?")))}
    assert words == set(before)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds: [1, 2]", "seeds: [1, 1]", "twice"),
        ("seeds: [1, 2]", "seeds: [0, 1]", "tuning.seed"),
        ("seeds: [1, 2]", f"seeds: {list(range(1, 1002))}", "at most 1000 items"),
        ("primary: sharing", "primary: caring", "no comparison 'caring'"),
        ("row: together", "row: apart", "no row 'apart'"),
        ("script: asymmetric", "script: single_task", "no config for single_task"),
        ("labels: one,", "labels: one, colour: red,", "colour"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_study(write_study(tmp_path, STUDY.replace(old, new)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_are_valid_at_every_scale(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert len(study.seeds) >= 5 or "points, no claim" in study.notes
    assert study.scales or study.name == "nyuv2_pretrained"  # whose large edition is nyuv2_partial's
    for one in [study, *map(study.at_scale, study.scales)]:
        runs = all_runs(one, {})
        assert len({run.key for run in runs}) == len(runs)
        sizes = {run.config.data.image_size for run in runs}
        assert [f"{width} x {height} pixels" in one.data.about for width, height in sizes] == [True]
        # with the labels that the config states, no run is without samples
        assert all(samples_of(run.config, one.data, NOWHERE) for run in runs if run.seed == one.seeds[0])


def test_the_grid_of_a_row_of_its_own_kind_is_said_anew_at_another_scale(tmp_path: Path) -> None:
    own = STUDY.replace("script: asymmetric", "script: asymmetric, rates: [0.1]")
    scales = "scales: {full: {about: large, tflops: 1, rates: [0.5]%s}}\n"
    with pytest.raises(UserError, match=r"rows.together has a grid of its own; row_rates must say which"):
        load_study(write_study(tmp_path, own + scales % ""))
    study = load_study(write_study(tmp_path, own + scales % ", row_rates: {together: [0.7]}"))
    assert study.rates_of("together") == [0.1]
    assert study.at_scale("full").rates_of("together") == [0.7]
    assert study.at_scale("full").rates_of("depth alone") == [0.5]


def test_stated_frames_of_several_data_sets_are_none_of_the_same() -> None:
    labels = {"segmentation": 5, "steering": 3}
    counts = [
        len(StatedLabels(DataSets(roots=roots, about="", labels=labels)).split.train) for roots in (["a"], ["a", "b"])
    ]
    assert counts == [5, 8]


def test_comparisons_at_equal_labels_keep_the_same_labels() -> None:
    """The rows of nyuv2_partial's primary comparison differ in what trains, not in which labels are kept."""
    study = load_study(ROOT / "configs/study/nyuv2_partial.yaml")
    comparison = study.comparisons[study.primary]
    rows = {comparison.row, *comparison.against.values()}
    runs = [run for run in finals(ROOT / "configs/study/nyuv2_partial.yaml") if run.row in rows]
    for seed in study.seeds:
        kept = [run.config.data.labels for run in runs if run.seed == seed]
        assert len(kept) == 3
        assert all(labels == kept[0] for labels in kept)
        assert len({run.config.training.epochs for run in runs}) == 1


def test_what_is_committed_is_known() -> None:
    """A key of the config that comes new must not make the runs of committed studies anew."""
    committed = {path.parent.name: read_json(path) for path in (ROOT / "studies").glob("*/results.json")}
    for name in committed.keys() - CLOSED:
        results, study = committed[name], load_study(ROOT / "configs" / "study" / f"{name}.yaml")
        known = {run.key for run in [*tuning_runs(study), *final_runs(study, results["chosen"])]}
        assert {result["key"] for result in [*results["tuning"], *results["runs"]]} <= known
