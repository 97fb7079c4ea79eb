"""Pack the labels of each scene into one uncompressed tar, processed/packed/SCENE.tar, for all kinds together.

File systems such as Lustre are slow with many small files; training reads the packs as it reads loose files, which win
where both are there. A rerun packs again the scenes whose loose files are new or changed, and keeps what else their
packs hold. 'tar xf' in the processed root gives the loose files back. --verify reads every pack and compares each file
with the checksum that it was packed with.

python preprocessing/pack.py --remove

Writes PROCESSED_ROOT/packed/SCENE.tar.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections.abc import Iterator
from functools import partial

import numpy as np

from datasets.files import check_free_disk, read_whole, whole_file
from datasets.layout import add_processed_root_argument
from datasets.locks import Lock
from datasets.packs import PACKED, Source, Stamp, write_pack
from datasets.processed import ProcessedData
from errors import UserError, run_as_script
from progress import progress, warn


def pack(processed: ProcessedData, remove: bool) -> str:
    """Bring every scene's pack up to date; then, if asked, remove the loose files. Returns a summary."""
    for kind in (PACKED, *processed.folders()):
        processed.remove_abandoned(kind)
    loose = {scene: processed.loose(scene) for scene in processed.scenes()}
    changed = {
        scene: sources_of(processed, scene, stamps)
        for scene, stamps in loose.items()
        if processed.unpacked(scene, stamps)
    }
    check_disk(processed, changed, remove)
    removable = [scene for scene, stamps in loose.items() if stamps and remove]

    def work() -> Iterator[object]:
        for scene in loose:
            if scene in changed:
                yield from write_scene(processed, scene, changed[scene])
            if scene in removable:
                yield from remove_loose(processed, scene)

    removed = sum(len(loose[scene]) for scene in removable)
    total = sum(map(len, changed.values())) + removed
    for _ in progress(work(), total, "files packed and removed" if remove else "files packed"):
        pass
    kept = len(processed.packed_scenes()) - len(changed)
    return f"{len(changed)} scenes packed, {kept} as they were, {removed} loose files removed; {processed.packed_dir}"


def sources_of(processed: ProcessedData, scene: str, loose: dict[tuple[str, str], Stamp]) -> list[Source]:
    """What the scene's new pack will hold: its loose files, and of the old pack whatever is not there loose."""
    sources = [
        Source(kind, name, stamp, partial(read_whole, processed.loose_path(kind, scene, name)))
        for (kind, name), stamp in loose.items()
    ]
    if old := processed.pack(scene):
        only_packed = set(old.files()) - set(loose)
        sources += [
            Source(kind, name, stamp, partial(old.read_checked, kind, name))
            for kind, name in only_packed
            if (stamp := old.stamp(kind, name)) is not None
        ]
    return sorted(sources, key=lambda source: (source.kind, source.name))


def check_disk(processed: ProcessedData, changed: dict[str, list[Source]], remove: bool) -> None:
    """UserError where the packs do not fit; with `remove`, one scene after the other leaves its place to the next."""
    sizes = [sum(source.stamp.size for source in sources) for sources in changed.values()]
    check_free_disk(processed.root, (max if remove else sum)([0, *sizes]))


def write_scene(processed: ProcessedData, scene: str, sources: list[Source]) -> Iterator[Source]:
    with whole_file(processed.pack_path(scene), durable=True) as file:
        yield from write_pack(file, processed.name, scene, sources)


def remove_loose(processed: ProcessedData, scene: str) -> Iterator[Path]:
    """Remove the scene's loose files, each after a look whether the pack on the disk gives the same bytes."""
    on_disk = processed.pack(scene)
    for kind, name in processed.loose(scene):
        path = processed.loose_path(kind, scene, name)
        content = on_disk.read(kind, name) if on_disk else None
        if content is None or not np.array_equal(content, read_whole(path)):
            raise UserError(f"{path} is not the same as in {processed.pack_path(scene)}, so it stays; run again")
        path.unlink()
        yield path
    processed.remove_empty_folders(scene)


def verify(processed: ProcessedData) -> int:
    """Read every pack and name what is damaged -> exit code."""
    scenes, broken = processed.packed_scenes(), 0
    for scene in progress(scenes, len(scenes), "packs verified"):
        found = list(damage(processed, scene))
        broken += bool(found)
        for line in found:
            warn(f"error: {line}")
    print(f"{len(scenes) - broken} of {len(scenes)} packs are whole; {processed.packed_dir}")
    return 1 if broken else 0


def damage(processed: ProcessedData, scene: str) -> Iterator[str]:
    """What is wrong with a scene's pack."""
    try:
        pack = processed.pack(scene)
    except UserError as error:
        yield str(error)
        return
    if pack is not None:
        for name in pack.damaged():
            yield f"{name} in {pack.path} is damaged; {pack.advice}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_processed_root_argument(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", action="store_true", help="remove the loose files, each compared with its copy")
    what.add_argument("--verify", action="store_true", help="change nothing: compare packed files with their checksums")
    args = parser.parse_args()
    processed = ProcessedData(args.processed_root)
    if not processed.packed_scenes() and not any(map(processed.loose, processed.scenes())):
        raise UserError(f"no labels below {processed.root}; run the preprocessing scripts first (or --processed-root)")
    if args.verify:
        return verify(processed)
    try:
        with Lock(processed.kind_lock_path(PACKED), f"{processed.packed_dir}"):
            print(pack(processed, args.remove))
    except OSError as error:
        raise UserError(f"can't pack: {error}; a rerun goes on from here") from None
    return 0


if __name__ == "__main__":
    run_as_script(main)
