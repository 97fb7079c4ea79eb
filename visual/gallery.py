"""Pictures for the documentation: python -m visual.gallery OUT NAME=PICTURE ... (`make gallery` calls it)."""

import argparse
from pathlib import Path

from PIL import Image

from datasets.files import whole_file
from errors import UserError, run_as_script

WIDTH = 1500  # px, at most
TOTAL_BYTES = 3_000_000  # a repository is cloned with its pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", nargs="+", metavar="NAME=PICTURE")
    args = parser.parse_args()
    for pair in args.pictures:
        name, _, source = pair.partition("=")
        with Image.open(source) as picture:
            small = picture.convert("RGB")
            small.thumbnail((WIDTH, small.height), Image.Resampling.LANCZOS)
        with whole_file(args.out / f"{name}.jpg") as file:
            small.save(file, format="JPEG", quality=85, subsampling=0, optimize=True)
    total = sum(path.stat().st_size for path in args.out.iterdir())
    if total > TOTAL_BYTES:
        raise UserError(
            f"{args.out} has {total / 1e6:.1f} MB, more than {TOTAL_BYTES / 1e6:.0f} MB; show fewer columns"
        )
    print(f"{args.out}: {len(args.pictures)} pictures, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    run_as_script(main)
