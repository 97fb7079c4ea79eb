"""Look at labels and predictions: pictures of a frame, a video of a scene, or predictions on any picture.

python visualize.py --sample 7                                            the labels of a validation frame
python visualize.py --sample 7 --checkpoint ours=runs/asymmetric/best.pt  beside a network's predictions
python visualize.py --scene 20180807_145028 --task steering --gif         a scene as video
"""

from errors import run_as_script  # first: from here on a signal ends it with one line

# isort: split
import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from arguments import number
from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.layout import ResultsDir, add_data_root_argument, add_processed_roots_argument
from datasets.processed import ProcessedData
from datasets.spec import SPLITS
from training import distributed
from training.data_config import SplitConfig
from training.splitting import make_split
from visual.networks import load_networks
from visual.output import write_frame, write_scene
from visual.pictures.base import DrawOptions
from visual.viewer import Viewer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--task", default="all", help="a network's task, or without networks a kind of label (default all)"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sample", metavar="N|FRAME_NAME", help="place in the split, or 20180807_145028/000000091")
    what.add_argument("--scene", help="a whole scene as MP4")
    what.add_argument("--image", type=Path, metavar="FILE", help="any picture; needs a checkpoint")
    parser.add_argument("--split", choices=SPLITS, help="what N counts (default val; without checkpoints all frames)")
    parser.add_argument("--checkpoint", nargs="+", action="extend", default=[], metavar="LABEL=PATH")
    parser.add_argument("--threshold", type=number(0, 1), default=0.3, help="lowest score of a box (default 0.3)")
    parser.add_argument("--errors", action="store_true", help="segmentation: only the pixels that differ")
    parser.add_argument("--gif", action="store_true", help="the scene as GIF, too")
    parser.add_argument("--fps", type=number(0.01, 1000), default=4.0, help="frames of the video a second (default 4)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="default results")
    add_data_root_argument(parser)
    add_processed_roots_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.image and not args.checkpoint:
        parser.error("--image needs a --checkpoint LABEL=PATH: there are no labels to draw")
    return args


def main() -> None:
    args = parse_arguments()
    raw, processed = RawData(args.data_root), [ProcessedData(path) for path in args.processed_root]
    networks = load_networks(args.checkpoint, raw, processed, distributed.start(args.device))
    viewer = Viewer(raw, processed, networks, None if args.task == "all" else args.task)
    options = DrawOptions(args.threshold, args.errors)
    if args.scene:
        results = ResultsDir(args.out, args.task, args.scene)
        files = write_scene(viewer.scene(args.scene), viewer, options, results, fps=args.fps, gif=args.gif)
    elif args.image:
        view = viewer.view_picture(args.image)
        files = [write_frame(view, viewer, options, args.out, args.task, args.image.stem)]
    else:
        frame = viewer.choose(args.sample, lambda: numbered_frames(args, viewer))
        name = f"{frame.scene}_{frame.id}"
        files = [write_frame(viewer.view(frame), viewer, options, args.out, args.task, name)]
    print(*files, sep="\n")


def numbered_frames(args: argparse.Namespace, viewer: Viewer) -> Sequence[Frame]:
    """What N in `--sample N` counts: a part of the networks' split; without networks all frames, or the usual split."""
    for network in viewer.networks.values():
        return network.split.of(args.split or "val")
    return make_split(SplitConfig(), viewer.roots, args.data_root).of(args.split) if args.split else viewer.frames()


if __name__ == "__main__":
    run_as_script(main)
