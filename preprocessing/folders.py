"""Any data set in folders, without code: a recipe says which files there are and what they mean (docs/data.md).

python preprocessing/folders.py --recipe configs/recipes/nyuv2.yaml --data-root DIR --processed-root DIR --size 128 96

Images and labels of each kind that the recipe names, one kind after the other, all brought to one size: images by the
mean over each new pixel's area, masks and dense depth by nearest neighbour, sparse depth point by point; boxes stay in
pixels of the original image.

Writes PROCESSED_ROOT/KIND/SCENE/FRAME.* of each kind, settings.json and report.json beside the scenes, dataset.json
above them. With --check it writes nothing but a picture to look at, OUT/check/DATASET.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np

from datasets.conversion import add_conversion_arguments, convert
from datasets.folders.found import Found, Job, find
from datasets.folders.pictures import size_of
from datasets.folders.recipe import Recipe
from datasets.folders.splits import split_of, times_of
from datasets.folders.stages import FolderStage, KindSource, stages_of
from datasets.frames import Frame
from datasets.layout import check_picture
from errors import UserError, run_as_script
from progress import warn
from strict_yaml import read_yaml, validated

SAMPLED = 500  # images whose headers tell the commonest resolution
NAMED = 3  # frames that are named where something does not match
DRAWN = 4  # frames of --check's picture


@dataclass
class Plan:
    """A recipe and what it finds."""

    recipe: Recipe
    found: Found
    times: dict[Frame, float]
    split: dict[str, list[str]] | None

    def source(self, kind: str) -> KindSource:
        """What the stage of a kind reads."""
        jobs = self.found.jobs[kind]
        if kind != "camera":
            return KindSource(self.found.root, jobs)
        return KindSource(self.found.root, jobs, self.times, commonest_size(jobs))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe",
        type=Path,
        required=True,
        metavar="FILE.yaml",
        help="such as configs/recipes/nyuv2.yaml, must be given",
    )
    parser.add_argument("--check", action="store_true", help="look, tell what was found and draw a picture; no labels")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="of --check's picture, such as /tmp/look (default results)",
    )
    add_conversion_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    plan = look(args.recipe, args.data_root)
    if args.check:
        return check(plan, args)
    check_scenes(plan.found, args.scenes)
    return max(run_kind(stage, plan, args) for stage in stages_of(plan.recipe).values())


def look(path: Path, root: Path) -> Plan:
    """Read the recipe and find its files. UserError: whatever is wrong with them, before anything is written."""
    recipe, source = validated(Recipe, read_yaml(path), str(path)), str(path)
    if not root.is_dir():
        raise UserError(f"{root} is no folder (--data-root)")
    found = find(recipe, root, source)
    times = times_of(recipe, found, source)
    return Plan(recipe, found, times, split_of(recipe, found, times, source))


def check_scenes(found: Found, scenes: list[str] | None) -> None:
    there = sorted({frame.scene for frame in found.images})
    if missing := sorted(set(scenes or ()) - set(there)):
        raise UserError(f"--scenes: {', '.join(missing)} not found below {found.root}; there are {', '.join(there)}")


def run_kind(stage: FolderStage, plan: Plan, args: argparse.Namespace) -> int:
    """Write one kind; the exit code as of `convert`. A kind without a label in the scenes asked for is passed over."""
    kind, source = stage.kind, plan.source(stage.kind)
    for line in mismatches(plan.found, kind)[1:]:
        warn(line)
    scenes = args.scenes and sorted({job.scene for job in source.jobs} & set(args.scenes))
    if scenes == []:
        print(f"{kind}: no label in {', '.join(args.scenes)}")
        return 0
    args = argparse.Namespace(**{**vars(args), "scenes": scenes})
    settings = stage.settings(tuple(args.size), source)
    return convert(stage, source, settings, args, dataset=plan.recipe.name, split=plan.split)


def commonest_size(jobs: list[Job]) -> tuple[int, int]:
    """W, H of most of the images, by the headers of some, evenly from first to last. UserError: none can be read."""
    places = np.linspace(0, len(jobs) - 1, min(SAMPLED, len(jobs)), dtype=int)
    sizes: Counter[tuple[int, int]] = Counter()
    for place in places:
        try:
            sizes[size_of(jobs[place].path)] += 1
        except (ValueError, OSError):
            continue  # the stage names it when it comes to it
    if not sizes:
        raise UserError(f"{jobs[0].path} and the others that were tried can't be read as images")
    return max(sizes, key=lambda size: (sizes[size], size))


# ---- --check ------------------------------------------------------------------------------------------------------


def check(plan: Plan, args: argparse.Namespace) -> int:
    """Print what was found and what does not match, and draw a few frames. 1 where one of these can't be read."""
    found = plan.found
    print(f"{plan.recipe.name}: {len(found.images)} images in {len({f.scene for f in found.images})} scenes")
    for kind, jobs in found.jobs.items():
        print(f"{kind}: {len(jobs)} frames, such as {jobs[0].path.relative_to(found.root)}")
        for line in mismatches(found, kind) if kind != "camera" else ():
            print(f"  {line}")
    for part, frames in (plan.split or {}).items():
        print(f"split {part}: {len(frames)} frames{', such as ' + frames[0] if frames else ''}")
    if plan.times:
        print(f"times: {len(plan.times)} frames, {min(plan.times.values()):g} to {max(plan.times.values()):g} s")
    from visual.labels import draw_found  # these load torch, which nothing else here needs
    from visual.output import write_picture

    sources = {kind: plan.source(kind) for kind in found.jobs}
    picture, failures = draw_found(stages_of(plan.recipe), sources, tuple(args.size), DRAWN)
    write_picture(path := check_picture(args.out, plan.recipe.name), picture)
    print(path)
    return 1 if failures else 0


def mismatches(found: Found, kind: str) -> list[str]:
    """Lines on the images without a label of the kind and the labels without an image."""
    labelled = {job.frame for job in found.jobs[kind]}
    lines = []
    if unlabelled := [frame.in_dataset for frame in sorted(found.images) if frame not in labelled]:
        lines.append(f"{len(unlabelled)} images without a {kind} label, such as {', '.join(unlabelled[:NAMED])}")
    else:
        lines.append("every image has one")
    if strangers := found.without_image.get(kind):
        lines.append(f"{len(strangers)} {kind} labels without an image left out: {', '.join(strangers[:NAMED])}")
    return lines


if __name__ == "__main__":
    run_as_script(main)
