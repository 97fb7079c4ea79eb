"""Look at labels and predictions: pictures of frames, a video of a scene, predictions on any picture, plots of runs.

python visualize.py --sample 7                                           the labels of a frame
python visualize.py --sample 7 9 --checkpoint ours=runs/ours/best.pt     two frames beside a network's results
python visualize.py --scene 20180807_145028 --task steering --gif        a scene as video
python visualize.py --image photo.jpg --checkpoint ours=runs/ours/best.pt
python visualize.py --plots --checkpoint ours=runs/ours/best.pt          confusion matrix, precision and recall
python visualize.py --curves runs/symmetric runs/asymmetric              losses and metrics over the training
"""

from errors import run_as_script  # first: from here on a signal ends it with one line

# isort: split
import argparse
import os
from pathlib import Path

from arguments import add_device_argument, number, whole
from datasets.layout import add_data_root_argument, add_processed_roots_argument
from datasets.spec import SPLITS
from signals import ending_at_once

WRITES = """\
Writes below --out, and prints the names of: TASK/FRAME/sheet.png with all pictures of --sample or --image side by side
(TASK: of --task) and each of them in a file of its own, TASK/FRAME/camera.png, truth.png, LABEL.png; of --scene
TASK/SCENE/scene.mp4 (scene.gif) and plots over time; of --plots TASK/LABEL-SPLIT/*.png; of --curves curves/RUNS.png.
FRAME and SCENE begin with the data set's name where there are several --processed-root. .pdf or .svg in the place of
.png with --format. The sheet, the video and the plots say whether the frames were for training, validation or test in
the checkpoints' run."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=WRITES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--sample",
        nargs="+",
        metavar="N|FRAME_NAME",
        help="frames of one sheet: places in --split, or names such as 20180807_145028/000000091, where several data "
        "sets have it DATASET/SCENE/ID (no default)",
    )
    what.add_argument(
        "--scene",
        help="all frames of a scene as MP4, such as 20180807_145028, where several data sets have it DATASET/SCENE "
        "(no default)",
    )
    what.add_argument("--image", type=Path, metavar="FILE", help="any picture, such as photo.jpg (no default)")
    what.add_argument(
        "--plots", action="store_true", help="what the checkpoints' metrics hold beyond numbers, over a --split"
    )
    what.add_argument(
        "--curves",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folders of runs, also running ones, such as runs/asymmetric (no default)",
    )
    parser.add_argument(
        "--task",
        default="all",
        help="a network's task, or without networks a kind of label, such as depth (default all)",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="only these frames of the checkpoints' split, or of the usual one (default: for N of --sample and for "
        "--plots val, without checkpoints all; for --scene all)",
    )
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        default=[],
        metavar="LABEL=PATH",
        help="networks, such as ours=runs/asymmetric/best.pt (default: none, the labels alone)",
    )
    parser.add_argument(
        "--threshold", type=number(0, 1), default=0.3, help="lowest score of a box, such as 0.5 (default 0.3)"
    )
    parser.add_argument(
        "--errors",
        action="store_true",
        help="in the place of predictions: of classes the pixels that are wrong, of depth the relative error",
    )
    parser.add_argument("--gif", action="store_true", help="the scene as GIF, too")
    parser.add_argument(
        "--fps", type=number(0.01, 1000), default=4.0, help="frames of the video a second, such as 10 (default 4)"
    )
    parser.add_argument(
        "--format", choices=("png", "pdf", "svg"), default="png", help="of pictures and plots (default png)"
    )
    parser.add_argument(
        "--columns",
        type=whole(1, 20),
        metavar="N",
        help="pictures side by side, such as 3 (default: those of one task)",
    )
    parser.add_argument(
        "--width",
        type=number(4, 100),
        default=17.4,
        metavar="CM",
        help="of a sheet or plot in print, such as 8.1 for one column of two (default 17.4); letters have 6.5 points, "
        "tags of boxes and full legends 5",
    )
    parser.add_argument(
        "--dpi",
        type=whole(50, 1200),
        default=300,
        help="dots an inch, such as 600 (default 300); half of it in a video",
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="such as figures (default results)")
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    add_device_argument(parser)
    args = parser.parse_args()
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Flags that what is asked for would ignore are mistakes."""
    needs = {"--image": args.image, "--plots": args.plots, "--errors": args.errors}
    if flag := next((flag for flag, given in needs.items() if given and not args.checkpoint), None):
        parser.error(f"{flag} needs a --checkpoint LABEL=PATH: labels alone have nothing to draw there")
    what = next(
        name for name in ("sample", "scene", "image", "plots", "curves") if getattr(args, name) not in (None, False)
    )
    for flag, of in {
        "--gif": ["scene"],
        "--fps": ["scene"],
        "--columns": ["sample", "scene", "image"],
        "--width": ["sample", "scene", "image", "curves"],
        "--threshold": ["sample", "scene", "image"],
        "--errors": ["sample", "scene"],
        "--split": ["sample", "scene", "plots"],
        "--task": ["sample", "scene", "image", "plots"],
        "--checkpoint": ["sample", "scene", "image", "plots"],
    }.items():
        name = flag.removeprefix("--")
        if what not in of and getattr(args, name) != parser.get_default(name):
            parser.error(f"{flag} says nothing of --{what}; it is for {', '.join(f'--{one}' for one in of)}")


def main() -> None:
    args = parse_arguments()
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from visual.page import Page

        if args.curves:
            from visual.curves import write_curves as write
        else:
            from visual.show import write_asked as write
    print(*write(args, Page(args.format, args.dpi, args.width, args.columns)), sep="\n")


if __name__ == "__main__":
    # read as torch is loaded: threads that spin while they wait cost seconds a frame where a training shares the cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_as_script(main)
