"""python -m datasets.synthetic"""

import argparse
from pathlib import Path

from arguments import whole
from datasets.synthetic.generate import write_dataset
from errors import run_as_script

SMALLEST_SIZE = 64, 40  # W, H in px


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.synthetic",
        description="Write a synthetic A2D2 into OUT: raw files of all kinds, as A2D2 has them.\n\n"
        "python -m datasets.synthetic --out Datasets --scenes 8 --frames 20 --semantic 40 --image-size 640 402",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="such as Datasets; must be given")
    parser.add_argument("--scenes", type=whole(1), default=3, metavar="N", help="such as 8 (default 3)")
    parser.add_argument(
        "--frames", type=whole(1), default=40, metavar="N", help="of each scene, such as 20 (default 40)"
    )
    parser.add_argument(
        "--image-size",
        type=whole(1),
        nargs=2,
        metavar=("W", "H"),
        default=(1920, 1208),
        help="in pixels, such as 640 402 (default 1920 1208, as A2D2 has it)",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the world, such as 1 (default 0)")
    parser.add_argument(
        "--semantic", type=whole(0), default=0, metavar="N", help="further frames a scene, without boxes (default 0)"
    )
    parser.add_argument(
        "--threads",
        type=whole(1),
        default=1,
        metavar="N",
        help="processes, such as 4 (default 1); the files do not depend on it",
    )
    options = parser.parse_args(arguments)
    if options.image_size[0] < SMALLEST_SIZE[0] or options.image_size[1] < SMALLEST_SIZE[1]:
        parser.error(f"--image-size must be at least {SMALLEST_SIZE[0]} {SMALLEST_SIZE[1]}")
    return options


def main() -> None:
    options = parse_arguments()
    width, height = options.image_size
    raw = write_dataset(
        options.out, options.scenes, options.frames, (width, height), options.seed, options.threads, options.semantic
    )
    print(f"{options.scenes} scenes of {options.frames} frames, {width}x{height}, are in {raw.root}")


if __name__ == "__main__":
    run_as_script(main)
