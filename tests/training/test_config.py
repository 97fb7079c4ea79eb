"""Configs: what is shipped is valid, and every mistake is one line that names the file and the key."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datasets.a2d2.spec import LABELS
from errors import UserError
from strict_yaml import validated
from tasks import TASKS
from tests.conftest import ROOT
from tests.training.conftest import CONFIG
from training.arguments import make_parser
from training.config import NetworkConfig, check_task_name, load_config, to_yaml
from training.runs import RUN_CONFIGS, AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun
from training.runs import kind_of as kind_of_content

ASYMMETRIC = ROOT / "configs/asymmetric_conf.yaml"
GPUS = sorted((ROOT / "configs" / "gpu").glob("*.yaml"))
RECIPES = (ROOT / "configs" / "recipes").glob("*.yaml")  # of data sets: tests/preprocessing/test_recipes.py
STUDIES = (ROOT / "configs" / "study").glob("*.yaml")  # tests/studying/test_grid.py
SWEEPS = (ROOT / "configs" / "sweeps").glob("*.yaml")  # tests/training/test_sweeps.py
SHIPPED = sorted(set((ROOT / "configs").rglob("*.yaml")) - {*GPUS, *RECIPES, *STUDIES, *SWEEPS})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(CONFIG)
    return path


def mistake(path: Path, *overrides: str) -> str:
    """The message about the file, which must be one line."""
    with pytest.raises(UserError) as error:
        load_config(SingleTaskRun, path, list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


def kind_of(path: Path) -> type[RunConfig]:
    """Which class a shipped file is for, by its name."""
    stem = path.stem.replace("overfit", "single_task")
    return next(kind for name, kind in RUN_CONFIGS.items() if stem.startswith(name))


def test_there_are_shipped_configs() -> None:
    assert ROOT / "configs/single_task_conf.yaml" in SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_configs_are_valid(path: Path) -> None:
    config = load_config(kind_of(path), path, [])
    assert config.modes()
    for mode in config.modes():
        bound = config.of_mode(mode)
        assert list(bound.make_tasks(LABELS)) == bound.task_names()


def test_the_main_config_has_every_task() -> None:
    config = load_config(SingleTaskRun, ROOT / "configs/single_task_conf.yaml", [])
    assert set(config.tasks) == {"segmentation", "steering", "box", "depth"}


@pytest.mark.parametrize(
    ("override", "key", "reason"),
    [
        ("training.epoch=3", "training.epoch", "there is no such key"),
        ("sed=3", "sed", "there is no such key"),
        ("training.epochs=many", "training.epochs", "integer"),
        ("training.epochs=1.5", "training.epochs", "integer"),
        ("training.epochs='3'", "training.epochs", "integer"),
        ("training.epochs=true", "training.epochs", "integer"),
        ("training.epochs=0", "training.epochs", "greater than 0"),
        (f"training.epochs={10**30}", "training.epochs", "less than or equal to 1000000"),
        ("data.workers=1025", "data.workers", "less than or equal to 1024"),
        ("tasks.box.batch_size=1000001", "tasks.box.batch_size", "less than or equal to 1000000"),
        ("tasks.box.micro_batch_size=1000001", "tasks.box.micro_batch_size", "less than or equal to 1000000"),
        ("tasks.box.settings.grid=257", "tasks.box.settings.grid", "less than or equal to 256"),
        ("tasks.box.settings.predictors=1001", "tasks.box.settings.predictors", "less than or equal to 1000"),
        ("tasks.box.network.base_channels=16385", "tasks.box.network.base_channels", "less than or equal to 16384"),
        ("tasks.box.network.pairs=[65]", "tasks.box.network.pairs.0", "less than or equal to 64"),
        ("training.warmup=1", "training.warmup", "less than 1"),
        ("training.warmup=.nan", "training.warmup", "finite number"),
        ("training.precision=fp8", "training.precision", "fp16"),
        ("augmentation.hflip=1.5", "augmentation.hflip", "less than or equal to 1"),
        ("data.size=[64]", "data.size", "2 items"),
        ("data.size=[64, -64]", "data.size.1", "greater than 0"),
        ("data.split.fractions=[0.8, 0.1, 0.2]", "data.split", "do not sum to 1"),
        ("data.split.train=[scene]", "data.split", "train needs mode: scenes"),
        (
            "data.split={mode: overfit, fractions: [0.5, 0.3, 0.2]}",
            "data.split",
            "fractions needs mode: time or official",
        ),
        ("data.split={mode: overfit, train_on_val: true}", "data.split", "needs another mode than overfit"),
        ("data.split={mode: scenes, gap_frames: 7}", "data.split", "gap_frames needs mode: time or official"),
        ("data.labels.seed=3", "data.labels", "seed needs another regime than every"),
        ("training={epochs: 1, images: 0, keep_images: 7}", "training", "keep_images needs images above 0"),
        ("training.similarity_every=2", "the file", "a single-task run has one"),
        ("data.split.mode=random", "data.split.mode", "overfit"),
        ("tasks.depth.micro_batch_size=3", "tasks.depth", "micro_batch_size 3 does not divide the block of 4"),
        ("tasks.depth.learning_rate=0", "tasks.depth.learning_rate", "greater than 0"),
        ("tasks.depth.settings.capp=9", "tasks.depth.settings.capp", "there is no such key"),
        ("tasks.depth.settings.cap=far", "tasks.depth.settings.cap", "number"),
        ("tasks.depth.network.pretrained=imagenet", "tasks.depth.network", "small has no ImageNet weights"),
        ("tasks.depth.network.norm=frozen", "tasks.depth.network", "random weights have none of"),
        ("tasks.depth.network.norm=batch", "tasks.depth.network.norm", "'frozen', 'group' or 'train'"),
        ("tasks.segmentation.network.norm=frozen", "tasks.segmentation.network.norm", "'group' or 'train'"),
        ("tasks.steering.network.norm=frozen", "tasks.steering.network.norm", "'group' or 'train'"),
        ("tasks.box.network.norm=frozen", "tasks.box.network.norm", "'group' or 'train'"),
        (
            "tasks.segmentation.settings.base_channels=4",
            "tasks.segmentation.settings.base_channels",
            "there is no such key",
        ),
        ("tasks.segmentation.network.cells=4", "tasks.segmentation.network.cells", "there is no such key"),
        ("tasks.segmentation.network=pilotnet", "tasks", "segmentation.network must name one of unet"),
        ("tasks.depth.network.name=nothing", "tasks", "depth.network must name one of densedepth"),
        ("tasks.depth.network=[unet]", "tasks", "depth.network must name one of densedepth"),
        ("tasks.depth.head=depth", "tasks.depth.head", "there is no such key"),
        ("tasks.lanes.batch_size=4", "tasks", "unknown kind of label lanes; there are segmentation"),
        ("tasks=3", "tasks", "one section a task"),
        ("training=3", "training", "dictionary"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(path: Path, override: str, key: str, reason: str) -> None:
    message = mistake(path, override)
    assert message.startswith(f"{path} with --set: {key}: ")
    assert reason in message


@pytest.mark.parametrize("override", ["network.layers=65", "network.channels=16385", "block_size=1000001"])
def test_a_size_that_would_never_begin_is_refused(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"{key}: Input should be less than or equal to \d+$"):
        load_config(AsymmetricRun, ASYMMETRIC, [override])


def test_a_mistake_in_the_file_itself(path: Path) -> None:
    path.write_text(CONFIG.replace("epochs: 1", "epochs: one").replace("log_every: 1", "log_every: 0"))
    message = mistake(path)
    assert message.startswith(f"{path}: training.")
    assert message.endswith("(and 1 more)")


def test_a_missing_key_is_named(path: Path) -> None:
    path.write_text(CONFIG.replace("training:\n  epochs: 1\n  log_every: 1\n  images: 1\n", ""))
    assert mistake(path) == f"{path}: training: Field required"


@pytest.mark.parametrize("override", ["training.epochs", "=3", "training.epochs.x=3", "training.epochs=["])
def test_a_bad_override_is_quoted(path: Path, override: str) -> None:
    assert f"--set {override}" in mistake(path, override)


@pytest.mark.parametrize("content", [b"a: [1\nb: {", b"- 1\n- 2\n", b"", b"\xff\xfe\x00\x81"])
def test_a_broken_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert mistake(path).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "no.yaml") in mistake(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E-3", 1e-3), ("+2e1", 20.0), ("1.e-3", 1e-3), ("5", 5)]
)
def test_numbers_with_an_exponent_are_numbers(path: Path, text: str, number: float) -> None:
    path.write_text(CONFIG.replace("learning_rate: 0.001", f"learning_rate: {text}"))
    assert load_config(SingleTaskRun, path, []).tasks["box"].learning_rate == number
    assert load_config(SingleTaskRun, path, [f"training.clip={text}"]).training.clip == number


def test_overrides_are_applied_in_order(path: Path) -> None:
    config = load_config(SingleTaskRun, path, ["training.epochs=3", "seed=7", "training.epochs=4"])
    assert (config.training.epochs, config.seed) == (4, 7)


@pytest.mark.parametrize("path_", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_kind_of_a_run_shows_in_its_keys(path_: Path) -> None:
    assert kind_of_content(yaml.safe_load(path_.read_text())) is kind_of(path_)


@pytest.mark.parametrize("name", ["backbone", "symmetric", "asymmetric", "train", "keys", "type", "_modules"])
@pytest.mark.parametrize("kind", RUN_CONFIGS)
def test_names_that_a_task_can_not_have(kind: str, name: str) -> None:
    path = ROOT / "configs" / f"{kind}_conf.yaml"
    with pytest.raises(UserError) as error:
        load_config(RUN_CONFIGS[kind], path, [f"tasks.{name}={{label: depth, batch_size: 16, learning_rate: 0.1}}"])
    assert str(error.value).startswith(f"{path} with --set: tasks: '{name}' can't be a task's name: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "../a", "-a", ".a", "a b", "a\n", "é" * 2 + "/"])
def test_a_name_of_a_task_is_one_word(name: str) -> None:
    with pytest.raises(ValueError, match="a name is one word of letters"):
        check_task_name(name)


@pytest.mark.parametrize("name", [*TASKS, "indoor", "depth_2", "far-depth+near", "2d", "_depth"])
def test_names_that_a_task_can_have(name: str) -> None:
    check_task_name(name)


# ---- a GPU's file laid over a config ------------------------------------------------------------------------------

GPU = """
workers: 3
precision: fp32
micro_batch_size:
  single_task: {segmentation: 2, steering: 1, box: 2, depth: 4}
"""


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    path = tmp_path / "gpu.yaml"
    path.write_text(GPU)
    return path


@pytest.mark.parametrize("gpu", GPUS, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", RUN_CONFIGS)
def test_a_gpu_changes_no_result(gpu: Path, kind: str) -> None:
    path = ROOT / "configs" / f"{kind}_conf.yaml"
    config, without = load_config(RUN_CONFIGS[kind], path, [], gpu), load_config(RUN_CONFIGS[kind], path, [])
    assert differences(config.model_dump(), without.model_dump()) <= {"workers", "precision", "micro_batch_size"}


def differences(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """Last parts of the keys whose values differ."""
    pairs = {key: (a.get(key), b.get(key)) for key in {*a, *b}}
    inner = [differences(*pair) for pair in pairs.values() if all(isinstance(value, dict) for value in pair)]
    own = {key for key, (x, y) in pairs.items() if x != y and not (isinstance(x, dict) and isinstance(y, dict))}
    return own.union(*inner)


def test_a_gpu_is_laid_over_the_config_and_under_the_overrides(path: Path, gpu: Path) -> None:
    config = load_config(SingleTaskRun, path, ["tasks.depth.micro_batch_size=1"], gpu)
    assert (config.data.workers, config.training.precision) == (3, "fp32")
    assert {name: task.micro_batch_size for name, task in config.tasks.items()} == {
        "segmentation": 2,
        "steering": 1,
        "box": 2,
        "depth": 1,
    }


def test_a_task_that_a_config_leaves_out_stays_out(path: Path, gpu: Path) -> None:
    content = yaml.safe_load(CONFIG)
    content["tasks"] = {"box": content["tasks"]["box"], "depth": None}
    path.write_text(yaml.safe_dump(content))
    assert list(load_config(SingleTaskRun, path, [], gpu).tasks) == ["box"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("workers: 3", "seed: 3", "GPU: seed: there is no such key; there are workers, "),
        ("segmentation: 2, ", "", "GPU: micro_batch_size: nothing for tasks.segmentation.micro_batch_size of single_t"),
        (
            "segmentation",
            "lanes",
            "GPU: micro_batch_size.single_task: unknown kind of label lanes; there are segmentation",
        ),
        ("single_task", "single", "GPU: micro_batch_size.single: there is no such key; there are single_task"),
        ("depth: 4", "depth: 3", "PATH with GPU: tasks.depth: micro_batch_size 3 does not divide the block of 4"),
    ],
)
def test_a_mistake_in_a_gpus_file(path: Path, gpu: Path, old: str, new: str, message: str) -> None:
    gpu.write_text(GPU.replace(old, new))
    with pytest.raises(UserError) as error:
        load_config(SingleTaskRun, path, [], gpu)
    assert str(error.value).startswith(message.replace("GPU", str(gpu)).replace("PATH", str(path)))
    assert "\n" not in str(error.value)


def test_a_gpu_must_say_something_of_the_run(gpu: Path) -> None:
    with pytest.raises(UserError, match="micro_batch_size: nothing for micro_batch_size of symmetric training"):
        load_config(SymmetricRun, ROOT / "configs/symmetric_conf.yaml", [], gpu)


# ---- norms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pretrained", "norm", "resolved"),
    [
        ("imagenet", None, "frozen"),
        ("weights.pt", None, "frozen"),
        ("none", None, "group"),
        ("imagenet", "train", "train"),
        ("weights.pt", "group", "group"),
        ("weights.pt", "train", "train"),
        ("none", "train", "train"),
    ],
)
@pytest.mark.parametrize("section", ["network", "tasks.depth.network"])
def test_the_norm_follows_from_the_initial_weights(
    path: Path, section: str, pretrained: str, norm: str | None, resolved: str
) -> None:
    """And what is resolved is what config.yaml and checkpoints hold."""
    kind, path = (AsymmetricRun, ASYMMETRIC) if section == "network" else (SingleTaskRun, path)
    encoder = "resnet18" if section == "network" else "densenet121"
    overrides = [f"{section}.encoder={encoder}", f"{section}.pretrained={pretrained}"]
    config = load_config(kind, path, overrides + ([f"{section}.norm={norm}"] if norm else []))
    for content in (yaml.safe_load(to_yaml(config)), config.model_dump(mode="json")):
        for key in section.split("."):
            content = content[key]
        assert content["norm"] == resolved


def test_every_single_network_says_its_norm_in_the_saved_config(path: Path) -> None:
    saved = yaml.safe_load(to_yaml(load_config(SingleTaskRun, path, [])))
    assert {name: task["network"]["norm"] for name, task in saved["tasks"].items()} == dict.fromkeys(TASKS, "group")


@pytest.mark.parametrize(
    ("pretrained", "norm", "reason"),
    [
        (
            "none",
            "frozen",
            "norm frozen keeps statistics, which random weights have none of; set norm to group or",
        ),
        ("imagenet", "group", "ImageNet's weights were made with batch norm, not norm group; set norm to frozen or tr"),
    ],
)
def test_a_norm_that_the_initial_weights_do_not_have_is_refused(pretrained: str, norm: str, reason: str) -> None:
    overrides = [f"network.pretrained={pretrained}", f"network.norm={norm}"]
    with pytest.raises(UserError) as error:
        load_config(AsymmetricRun, ASYMMETRIC, overrides)
    assert str(error.value).startswith(f"{ASYMMETRIC} with --set: network: {reason}")
    assert "\n" not in str(error.value)


def test_a_norm_is_chosen_for_the_default_network_too() -> None:
    assert NetworkConfig().norm == "frozen"


@pytest.mark.parametrize("path_", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_round_trip(path_: Path) -> None:
    config = load_config(kind_of(path_), path_, ["seed=3"])
    content: dict[str, Any] = yaml.safe_load(to_yaml(config))
    assert validated(kind_of(path_), content, "saved") == config
    dumped = config.model_dump(mode="json")  # what checkpoints hold
    assert validated(kind_of(path_), dumped, "checkpoint") == config


# ---- networks, heads, encoders ------------------------------------------------------------------------------------


def test_a_task_may_have_no_network_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS["box"], "default_network", None)
    assert mistake(path).endswith("box.network must name one of yolov1")
    assert load_config(AsymmetricRun, ASYMMETRIC, []).tasks["box"].head.name == "levels"
    assert load_config(SingleTaskRun, path, ["tasks.box.network.name=yolov1"]).tasks["box"].network.name == "yolov1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", "epochs: there is no such key (did you mean training.epochs?); there are seed, data, "),
        ("data.splt=1", "data.splt: there is no such key (did you mean split?)"),
        ("backbone.learning_rate=1e38", "backbone.learning_rate: Input should be less than or equal to 1"),
        ("seed=99999999999999999999", "seed: Input should be less than"),
        ("tasks.box.network={name: yolov1}", "tasks.box.network: there is no such key; there are"),
        ("tasks.box.settings.head=levels", "tasks.box.settings.head: there is no such key; there are"),
        ("tasks.depth.settings={encoder: small}", "tasks.depth.settings.encoder: there is no such key; there are"),
        ("tasks.box.head={name: levels, cells: 2}", "tasks.box.head.cells: there is no such key; there are"),
        ("tasks.box.head=dense", "tasks: box.head must name one of levels"),
        (
            "network.encoder=resnet19",
            "network.encoder: must be one of resnet18, resnet34, resnet50, resnet101, small, o",
        ),
        ("network.encoder=timm/nothing", "network.encoder: timm/nothing is no network"),
        ("network.encoder_rate=0", "network.encoder_rate: Input should be greater than 0"),
    ],
)
def test_what_the_multi_task_network_has_no_use_for_is_an_error(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(AsymmetricRun, ASYMMETRIC, [override])
    assert str(error.value).startswith(f"{ASYMMETRIC} with --set: {message}")
    assert "\n" not in str(error.value)


def test_trained_norms_of_an_encoder_that_has_none_are_refused() -> None:
    overrides = ["network={encoder: timm/convnext_atto, pretrained: none, norm: train}"]
    config = load_config(AsymmetricRun, ASYMMETRIC, overrides).of_mode("asymmetric")
    with (
        pytest.raises(UserError, match="convnext_atto has no batch norm"),
        torch.device("meta"),
    ):
        config.make_model({})


# ---- flags ----------------------------------------------------------------------------------------------------


def test_settings_may_follow_one_set_or_several() -> None:
    parser = make_parser("", "configs/symmetric_conf.yaml", "symmetric", "")
    assert parser.parse_args(["--set", "a=1", "b=2", "--set", "c=3"]).set == ["a=1", "b=2", "c=3"]


def test_the_default_config_lies_beside_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = make_parser("", "configs/symmetric_conf.yaml", "symmetric", "").parse_args([])
    assert args.config.resolve() == ROOT / "configs/symmetric_conf.yaml"
