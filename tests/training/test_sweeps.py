"""Sweeps of wandb: what its agent makes of configs/sweeps/*.yaml is understood, and trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets.layout import RunDir
from tests.conftest import ROOT
from tests.training.conftest import Printed, Workplace, no_account
from tests.training.test_tracking import records
from tests.training.test_train_multitask import CONFIGS, MAINS, content_of, train
from training.arguments import TOP_KEYS, make_parser, parse
from training.config import GroupConfig
from training.reference import TOP
from training.runs import RUN_CONFIGS

pytest.importorskip("wandb")
Call = Callable[..., Printed]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def expanded(sweep: dict[str, Any]) -> list[str]:
    """The command of the sweep's first run, by the functions of wandb's agent."""
    from wandb.sdk.launch.sweeps import utils

    chosen = {
        name: {"value": spec.get("value", spec.get("min", (spec.get("values") or [None])[0]))}
        for name, spec in sweep["parameters"].items()
    }
    words = utils.create_sweep_command_args({"args": chosen})
    words |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    command = []
    for word in utils.create_sweep_command([*sweep["command"]]):
        command += words[word[2:-1]] if word.startswith("${") else [word]
    return command


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_command_of_a_sweep_trains(
    path: Path, workplace: Workplace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tests' small config and data in the place of its own."""
    sweep = yaml.safe_load(path.read_text())
    no_account(workplace.dir, monkeypatch)
    monkeypatch.setenv("WANDB_SWEEP_ID", "swp1")
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    assert sweep["metric"] == {"name": "val/best_score", "goal": "maximize"}
    env, python, program, *flags = expanded(sweep)
    assert (env, python) == ("/usr/bin/env", "python")
    assert (ROOT / flags[flags.index("--config") + 1]).is_file()

    script = program.removeprefix("train_").removesuffix(".py")
    config = workplace.dir / "small.yaml"
    config.write_text(yaml.safe_dump(CONFIGS[script]))
    here = ["--config", str(config), "--runs-root", str(workplace.runs), *workplace.roots()]
    printed = call(MAINS[script], *flags, *here, "--wandb", "offline", "--training.epochs=1", "--training.images=0")
    assert printed.code == 0, printed.err
    name = f"{script}-swp1-abcd1234"
    content = content_of(workplace, name)
    assert content["wandb_id"] == "abcd1234"
    for key, spec in sweep["parameters"].items():
        if "." in key and key != "training.epochs":
            saved: Any = content["config"]
            for part in key.split("."):
                saved = saved[part]
            assert saved == spec.get("min", (spec.get("values") or [None])[0])
    logged = {
        key
        for record in records(RunDir(workplace.runs, name))
        if record["type"] == "history"
        for key in record["history"]["item"]
    }
    assert "val/best_score" in logged


def test_a_name_may_be_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "swp1")
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    parser = make_parser("", "a.yaml", "symmetric", "")
    assert parse(parser, ["--seed=3"]).name == "symmetric-swp1-abcd1234"
    assert parse(parser, ["--name=third", "--seed=3"]).name == "third"


def test_what_is_no_key_is_no_flag(workplace: Workplace, call: Call) -> None:
    printed = train(call, workplace, "asymmetric", "--devise=cpu", "--training.epochs=3")
    assert printed.code == 2
    assert "unrecognized arguments: --devise=cpu" in printed.err
    misspelt = train(call, workplace, "asymmetric", "--training.epoch=3")
    assert "did you mean epochs" in misspelt.err
    assert misspelt.err.startswith("error: ")


def test_the_keys_at_the_top_of_the_configs_are_known() -> None:
    there = {key for kind in RUN_CONFIGS.values() for key in kind.model_fields} | set(GroupConfig.model_fields)
    assert set(TOP_KEYS) == there - set(TOP)
    args = parse(make_parser("", "a.yaml", "symmetric", ""), ["--set", "a=1", "--seed=2", "--data.size=[64, 64]"])
    assert args.set == ["a=1", "seed=2", "data.size=[64, 64]"]
