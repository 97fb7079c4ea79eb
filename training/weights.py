"""List the ImageNet weights that the shipped configs name, for `sh get_data.sh --weights`: one 'URL PATH' a line."""

from pathlib import Path

from errors import run_as_script
from models.pretrained import imagenet_path
from training.config import load_config
from training.runs import AsymmetricRun, RunConfig, SingleTaskRun, SymmetricRun

CONFIGS = Path(__file__).parents[1] / "configs"
FILES: dict[str, type[RunConfig]] = {
    "single_task_conf.yaml": SingleTaskRun,
    "symmetric_conf.yaml": SymmetricRun,
    "asymmetric_conf.yaml": AsymmetricRun,
}


def main() -> None:
    configs = [load_config(kind, CONFIGS / name, []) for name, kind in FILES.items()]
    for weights in dict.fromkeys(entry for config in configs for entry in config.imagenet_weights()):
        print(weights.url, imagenet_path(weights))


if __name__ == "__main__":
    run_as_script(main)
