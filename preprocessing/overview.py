"""The first look at a new download: contact sheets of raw frames with lidar, boxes and classes laid over them, and
statistics of the whole set. A wrong calibration is seen at once: lidar dots beside their objects.

python preprocessing/overview.py --scenes 20180807_145028 --frames 12

Writes OUT/overview/SCENE.png and OUT/overview/statistics.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

import numpy as np

from arguments import whole
from datasets.a2d2.raw import RawData
from datasets.files import whole_file
from datasets.frames import Frame
from datasets.layout import OverviewDir, add_data_root_argument
from errors import UserError, run_as_script
from signals import ending_at_once


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", "--scene", nargs="+", metavar="SCENE", help="for contact sheets (default: all)")
    parser.add_argument(
        "--frames", type=whole(1), default=6, metavar="N", help="of each contact sheet, such as 12 (default 6)"
    )
    parser.add_argument(
        "--every",
        type=whole(1),
        default=20,
        metavar="K",
        help="count the pixels of every k-th label, such as 1 for all (default 20)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="such as /tmp/look (default results)"
    )
    add_data_root_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from visual.output import write_picture
        from visual.overview import contact_sheet, count_boxes, count_pixels, statistics_figure

    raw, out = RawData(args.data_root), OverviewDir(args.out)
    for scene in chosen_scenes(raw, args.scenes):
        frames = spread(raw.frames("camera", [scene]), args.frames)
        write_picture(out.sheet(scene), contact_sheet(raw, frames))
        print(out.sheet(scene))
    figure = statistics_figure(raw, count_pixels(raw, args.every), count_boxes(raw), args.every)
    with whole_file(out.statistics) as file:
        figure.savefig(file, format="png", dpi=100)
    print(out.statistics)


def chosen_scenes(raw: RawData, asked: list[str] | None) -> list[str]:
    """UserError where there is no data, or none of a scene."""
    there = [scene for scene in raw.scenes() if raw.frames("camera", [scene])]
    if not there:
        raise UserError(f"no camera images below {raw.images_dir}; 'sh get_data.sh' fetches them (or --data-root)")
    if missing := sorted(set(asked or ()) - set(there)):
        raise UserError(
            f"--scenes: {', '.join(missing)} not found below {raw.images_dir}; there are {', '.join(there)}"
        )
    return asked or there


def spread(frames: list[Frame], count: int) -> list[Frame]:
    """So many of the frames, evenly from the first to the last."""
    places = np.linspace(0, len(frames) - 1, min(count, len(frames)), dtype=int)
    return [frames[place] for place in places]


if __name__ == "__main__":
    run_as_script(main)
