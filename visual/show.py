"""What visualize.py draws of frames, scenes, pictures from elsewhere and networks."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from datasets.layout import ResultsDir
from datasets.processed import ProcessedData
from datasets.splits import Split
from errors import UserError
from tasks.base import Task
from training import distributed
from visual.output import write_frames
from visual.page import Page, plotting
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions
from visual.scene import write_scene
from visual.viewer import SPLIT_NAMES, Splits, Viewer

if TYPE_CHECKING:  # these take seconds to import: only where there are networks
    import torch
    from torchmetrics import Metric

    from training.restore import Restored

BATCH_SIZE = 4


def write_asked(args: argparse.Namespace, page: Page) -> list[Path]:
    """What the flags ask for, but --curves -> the files to look at."""
    raw, processed = RawData(args.data_root), [ProcessedData(path) for path in args.processed_root]
    device = distributed.start(args.device)
    networks = networks_of(args, raw, processed, device)
    width = max(page.column_width, page.width // (page.columns or 2))
    viewer = Viewer(raw, processed, networks, None if args.task == "all" else args.task, width)
    if args.split and not networks:
        viewer.splits = Splits(usual_split(viewer, args.data_root))
    if args.plots:
        return write_plots(viewer, args.split or "val", page, args.out, device)
    options = DrawOptions(args.threshold, args.errors, page.letters)
    if args.image:
        view = viewer.view_picture(args.image)
        return [write_frames([view], [args.image.stem], options, page, args.out, args.task)]
    if args.scene is not None:
        frames = only_of(viewer, args.split, viewer.scene(args.scene), f"--scene {args.scene}")
        check_errors(viewer, options, frames[:1])
        results = ResultsDir(args.out, args.task, folder_of(viewer.scene_of(frames[0])), page.format)
        return write_scene(frames, viewer, options, page, results, fps=args.fps, gif=args.gif)
    frames = list(dict.fromkeys(chosen(viewer, sample, args.split) for sample in args.sample))
    check_errors(viewer, options, frames)
    names = [folder_of(viewer.name_of(frame)) for frame in frames]
    return [write_frames([viewer.view(frame) for frame in frames], names, options, page, args.out, args.task)]


def folder_of(name: str) -> str:
    """What the folder of a frame's or a scene's pictures is called."""
    return name.replace("/", "_")


def networks_of(
    args: argparse.Namespace, raw: RawData, processed: Sequence[ProcessedData], device: "torch.device"
) -> "dict[str, Restored]":
    """Those of --checkpoint, by label."""
    if not args.checkpoint:
        return {}
    from visual.networks import load_networks

    return load_networks(args.checkpoint, raw, processed, device)


def usual_split(viewer: Viewer, data_root: Path) -> Split:
    """That of a run whose config says nothing of it."""
    from training.data_config import SplitConfig
    from training.splitting import make_split

    return make_split(SplitConfig(), viewer.roots, data_root)


def chosen(viewer: Viewer, sample: str, split: str | None) -> Frame:
    """What N or a name in `--sample` means.

    N counts a split of the networks' run; without networks all frames, or with --split one of the usual splits.
    """

    def numbered() -> Sequence[Frame]:
        if viewer.splits.split is None:
            return viewer.frames()
        return viewer.splits.split.of(split or "val")

    frame = viewer.choose(sample, numbered)
    return only_of(viewer, split, [frame], f"--sample {sample}")[0]


def only_of(viewer: Viewer, split: str | None, frames: list[Frame], asked: str) -> list[Frame]:
    """The frames of the split, if one was asked for. UserError: there is none."""
    if split is None:
        return frames
    found = [frame for frame in frames if frame in viewer.splits.frames[split]]
    if not found:
        single = f"it is a {viewer.splits.of(frames[0])}"
        told = single if len(frames) == 1 else f"none of the {len(frames)} frames is a {SPLIT_NAMES[split]} frame"
        raise UserError(f"{asked}: --split {split}, but {told}")
    return found


def check_errors(viewer: Viewer, options: DrawOptions, frames: Sequence[Frame]) -> None:
    """UserError: --errors, but none of the tasks has such a picture."""
    tasks = {name: task for frame in frames for name, task in viewer.tasks_of(frame.dataset).items()}
    if options.errors and not any(picture_of(task).errors for task in tasks.values()):
        raise UserError(f"--errors: there is no picture of the errors of {', '.join(tasks)}")


def write_plots(viewer: Viewer, split: str, page: Page, out: Path, device: "torch.device") -> list[Path]:
    """The plots of each network's metrics over a split of its run. UserError: its tasks have none."""
    from training.evaluation import Precision

    files: list[Path] = []

    def draw(label: str, task: Task, metric: "Metric") -> None:
        for name, figure in picture_of(task).plots(metric).items() if viewer.task in (None, task.name) else ():
            (axes, *_) = figure.axes
            axes.set_title(f"{axes.get_title()}\n{label}, {SPLIT_NAMES[split]} frames of its run")
            results = ResultsDir(out, task.name, f"{label}-{split}", page.format)
            files.append(page.save_figure(figure, results.plot(name)))

    with plotting():
        for label, network in viewer.networks.items():
            network.evaluate(split, Precision("auto", device), BATCH_SIZE, 0, partial(draw, label))
    if not files:
        tasks = {name for network in viewer.networks.values() for name in viewer.asked_of(network)}
        raise UserError(f"--plots: there is none of {', '.join(sorted(tasks))}")
    return files
