"""Write the frames of train, validation and test, as the configs split them: A2D2 has no official split to cite.

python write_splits.py --data-root Datasets --out splits/a2d2

Writes OUT/CONFIG.json, one a config: part -> 'SCENE/FRAME'. Frame lists may be shared; the frames themselves only
unchanged.
"""

import argparse
from pathlib import Path

from datasets.a2d2.raw import RawData
from datasets.files import write_json
from datasets.layout import add_data_root_argument, add_processed_roots_argument
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from signals import ending_at_once
from strict_yaml import read_yaml, validated

SHIPPED = [Path("configs") / f"{name}_conf.yaml" for name in ("single_task", "symmetric", "asymmetric")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--configs",
        nargs="+",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="such as configs/symmetric_conf.yaml (default: the three shipped ones)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="such as splits/a2d2; must be given")
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    names = [config.stem for config in args.configs]
    if len(set(names)) < len(names):
        raise UserError(f"--configs: two files have the same name among {', '.join(names)}; write them one by one")
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from datasets.roots import Roots
        from training.data_config import DataConfig
        from training.splitting import make_split

    for path in args.configs:
        data = validated(DataConfig, read_yaml(path).get("data") or {}, str(path))
        processed = [ProcessedData(root) for root in args.processed_root]
        roots = Roots.open(processed, RawData(args.data_root), data.image_size)
        split = make_split(data.split, roots, args.data_root)
        target = args.out / f"{path.stem}.json"
        write_json(target, split.to_json(), indent=0)
        print(f"{target}: {split.summary()}")


if __name__ == "__main__":
    run_as_script(main)
