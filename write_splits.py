"""Write the frames of train, validation and test, as the configs split them: A2D2 has no official split to cite.

python write_splits.py --data-root Datasets --out splits/a2d2

One JSON file a config, part -> 'SCENE/FRAME'. Frame lists may be shared; the frames themselves only unchanged.
"""

import argparse
from pathlib import Path

from datasets.a2d2.raw import RawData
from datasets.files import write_json
from datasets.frames import Frame
from datasets.layout import add_root_arguments
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from strict_yaml import read_yaml, validated
from training.config import SplitConfig
from training.session import make_split

SHIPPED = [Path("configs") / f"{name}_conf.yaml" for name in ("single_task", "symmetric", "asymmetric")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, default=SHIPPED, metavar="FILE", help="default: the shipped")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_root_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    frames = frames_of(RawData(args.data_root), ProcessedData(args.processed_root))
    names = [config.stem for config in args.configs]
    if len(set(names)) < len(names):
        raise UserError(f"--configs: two files have the same name among {', '.join(names)}; write them one by one")
    for path in args.configs:
        content = read_yaml(path).get("data", {}).get("split", {})
        split = make_split(validated(SplitConfig, content, str(path)), frames, args)
        target = args.out / f"{path.stem}.json"
        write_json(target, split.to_json(), indent=0)
        print(f"{target}: {split.summary()}")


def frames_of(raw: RawData, processed: ProcessedData) -> list[Frame]:
    """Frames that have an image, as the training scripts find them."""
    return sorted({*processed.frames("camera"), *raw.frames("camera")})


if __name__ == "__main__":
    run_as_script(main)
