"""Which frames train, validate and test a run."""

from collections.abc import Sequence
from pathlib import Path

from datasets.frames import Frame
from datasets.roots import Root, Roots
from datasets.splits import Split, joined, official_split, overfit, split_by_scenes, split_by_time
from errors import UserError
from training import distributed
from training.data_config import SplitConfig
from training.start import Start


def open_split(start: Start, config: SplitConfig, roots: Roots) -> Split:
    """The split of the checkpoint that the run goes on from, else a new one; the first process makes it for all."""
    if start.checkpoint is not None:
        return Split.from_json(start.checkpoint["split"])
    return distributed.from_main(lambda: make_split(config, roots, start.args.data_root))


def make_split(config: SplitConfig, roots: Roots, data_root: Path) -> Split:
    """Split the frames that have an image, as the config says. UserError: there are none."""
    split = _split(config, roots, data_root)
    return split.with_val_in_train() if config.train_on_val else split


def no_images(roots: Roots, data_root: Path) -> str:
    """Where there are none, and what to do."""
    processed = [str(root.processed.root) for root in roots.values()]
    if any(root.raw for root in roots.values()):  # A2D2, or nothing yet
        return f"no camera images below {', '.join([str(data_root), *processed])}; 'sh get_data.sh' fetches A2D2's"
    return (
        f"no camera images below {', '.join(processed)}; run preprocessing/folders.py with the data set's recipe again"
    )


def _split(config: SplitConfig, roots: Roots, data_root: Path) -> Split:
    by_root = {root: root.frames() for root in roots.values()}  # each root is listed once
    frames = sorted(frame for found in by_root.values() for frame in found)
    if not frames:
        raise UserError(no_images(roots, data_root))
    if config.mode == "scenes":
        return joined([split_by_scenes(frames, {"train": config.train, "val": config.val, "test": config.test})])
    if config.mode == "overfit":
        return joined([overfit(frames)])
    return joined([_split_root(config, root, found) for root, found in by_root.items()])


def _split_root(config: SplitConfig, root: Root, frames: Sequence[Frame]) -> Split:
    spec = root.processed.spec() if config.mode == "official" else None
    if spec and spec.split:
        return official_split(frames, spec)
    seconds = root.seconds(frames)
    if frames and not seconds:
        print(f"{root.name} says nothing of times: its frames are split in the order of their names")
    return split_by_time(frames, seconds, config.fractions, config.gap_frames, config.gap_seconds)
