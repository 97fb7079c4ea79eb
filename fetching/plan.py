"""What a bucket holds of A2D2, found by listing it, and which of its files belong where.

Nothing is known of the bucket's folders but what the set's own names tell: a folder of scenes (YYYYMMDD_HHMMSS) with
`label3D` holds the frames with boxes, one with `label` alone the frames with classes; `bus` files are taken for scenes
of either, and from folders that hold nothing else. Recordings without labels are left out.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.a2d2.raw import BESIDE_SCENES, FRONT_CENTER, RAW_KINDS, SCENE_NAME, RawData
from errors import UserError
from fetching.bucket import Bucket, Object

PARTS = ("bboxes", "semantic", "bus")
DEEPEST = 2  # levels of folders in which scenes are looked for
LISTINGS_AT_ONCE = 16


# ---- what there is --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneFolder:
    """A folder of the bucket that holds scenes."""

    prefix: str
    scenes: dict[str, frozenset[str]]  # scene -> its kinds: camera, lidar, label, label3D, bus, ...
    beside: tuple[Object, ...]  # files beside the scenes

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset().union(*self.scenes.values())

    @property
    def labels(self) -> str | None:
        """The part of the set whose frames it holds; None: no labels."""
        if "label3D" in self.kinds:
            return "bboxes"
        return "semantic" if "label" in self.kinds else None

    def scenes_of(self, part: str, labelled: frozenset[str]) -> dict[str, list[str]]:
        """Scene -> the folders of its files of a part; `labelled`: the scenes with labels of the whole bucket."""
        if part != "bus":
            kinds = {scene: sorted(found & RAW_KINDS.keys()) for scene, found in self.scenes.items()}
            return kinds if self.labels == part else {}
        taken = (scene for scene, found in self.scenes.items() if "bus" in found)
        return {scene: ["bus"] for scene in taken if scene in labelled or self.kinds == {"bus"}}


def discover(bucket: Bucket) -> tuple[list[SceneFolder], list[Object]]:
    """Folders that hold scenes, and the files at the bucket's root."""
    prefixes, root = bucket.level("")
    folders = []
    for _ in range(DEEPEST):
        deeper = []
        for prefix, (below, files) in zip(prefixes, _levels(bucket, prefixes), strict=True):
            if scenes := [folder for folder in below if SCENE_NAME.fullmatch(_name(folder))]:
                levels = zip(scenes, _levels(bucket, scenes), strict=True)
                kinds = {_name(scene): frozenset(map(_name, held)) for scene, (held, _) in levels}
                folders.append(SceneFolder(prefix, kinds, tuple(files)))
            else:
                deeper += below
        prefixes = deeper
    return folders, root


def _levels(bucket: Bucket, prefixes: Sequence[str]) -> list[tuple[list[str], list[Object]]]:
    with ThreadPoolExecutor(LISTINGS_AT_ONCE) as pool:
        return list(pool.map(bucket.level, prefixes))


def _name(key: str) -> str:
    return key.rpartition("/")[2]


# ---- what is fetched ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A file of the bucket and where it belongs."""

    object: Object
    path: Path


@dataclass(frozen=True)
class Source:
    """A folder of the bucket whose listing is taken, for one part of the set."""

    folder: SceneFolder
    prefix: str
    destination: Path

    @property
    def scene(self) -> str:
        return self.prefix.removeprefix(f"{self.folder.prefix}/").split("/")[0]

    def path_of(self, key: str, raw: RawData, all_cameras: bool) -> Path | None:
        """Where a key of this folder belongs; None: nothing that is taken."""
        return raw.member_path(self.destination, key.removeprefix(f"{self.folder.prefix}/"), all_cameras)


@dataclass
class Plan:
    """All that a run fetches: `files`, from `sources`."""

    raw: RawData
    all_cameras: bool
    folders: list[SceneFolder]
    sources: dict[str, Source]  # by prefix
    files: list[Wanted] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # keys of the sources that are none of the set's names

    def is_asked_for(self, key: str) -> bool:
        """Whether a key lies in a folder that is taken, and has one of the set's names."""
        source = next((self.sources[above] for above in _above(key) if above in self.sources), None)
        return source is not None and source.path_of(key, self.raw, self.all_cameras) is not None

    def found(self) -> list[str]:
        """A line for each folder of scenes: what it holds and what it is taken for."""
        lines = []
        for folder in self.folders:
            line = f"{folder.prefix}/: {len(folder.scenes)} scenes with {', '.join(sorted(folder.kinds))}"
            used = any(source.folder is folder for source in self.sources.values())
            lines.append(line if used else f"{line}; not taken")
        return lines

    def contents(self) -> list[str]:
        """A line for each folder of scenes that is taken: how many files and bytes, and where they go."""
        lines = []
        for folder in self.folders:
            of_it = [file for file in self.files if file.object.key.startswith(f"{folder.prefix}/")]
            if of_it:
                size = sum(file.object.size for file in of_it)
                lines.append(f"{folder.prefix}/: {len(of_it)} files, {size / 1e9:.2f} GB")
        return lines


def _above(key: str) -> Iterable[str]:
    parts = key.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def make_plan(
    bucket: Bucket, raw: RawData, parts: Sequence[str], scenes: Sequence[str] | None, all_cameras: bool
) -> Plan:
    """List what is asked for. UserError: the bucket does not hold it; UnavailableError: it does not answer."""
    folders, root = discover(bucket)
    labelled = frozenset(scene for folder in folders if folder.labels for scene in folder.scenes)
    sources: dict[str, Source] = {}
    for part in parts:
        of_part = _sources(folders, labelled, part, raw)
        if not of_part:
            there = ", ".join(f"{folder.prefix}/ ({', '.join(sorted(folder.kinds))})" for folder in folders)
            raise UserError(f"{bucket} holds nothing of {part}; its folders of scenes are {there or 'none'}")
        sources |= of_part
    sources = _of_cameras(bucket, _of_scenes(sources, scenes), raw, all_cameras)
    plan = Plan(raw, all_cameras, folders, sources)
    _add_beside(plan, root)
    with ThreadPoolExecutor(LISTINGS_AT_ONCE) as pool:
        for source, objects in zip(sources.values(), pool.map(bucket.objects, sources), strict=True):
            for listed in objects:
                if path := source.path_of(listed.key, raw, all_cameras):
                    plan.files.append(Wanted(listed, path))
                else:
                    plan.ignored.append(listed.key)
    return plan


def _sources(folders: Sequence[SceneFolder], labelled: frozenset[str], part: str, raw: RawData) -> dict[str, Source]:
    """The folders of one part, by prefix: SCENE/KIND."""
    destination = {"bboxes": raw.images_dir, "semantic": raw.semantic_dir, "bus": raw.gateway_dir}[part]
    prefixes = (
        (folder, f"{folder.prefix}/{scene}/{kind}")
        for folder in folders
        for scene, kinds in folder.scenes_of(part, labelled).items()
        for kind in kinds
    )
    return {prefix: Source(folder, prefix, destination) for folder, prefix in prefixes}


def _of_scenes(sources: dict[str, Source], scenes: Sequence[str] | None) -> dict[str, Source]:
    """Those of the scenes asked for."""
    if scenes is None:
        return sources
    scene_of = {prefix: source.scene for prefix, source in sources.items()}
    there = sorted(set(scene_of.values()))
    if missing := sorted(set(scenes) - set(there)):
        raise UserError(f"--scenes: {', '.join(missing)} not found; there are {', '.join(there)}")
    return {prefix: source for prefix, source in sources.items() if scene_of[prefix] in scenes}


def _of_cameras(bucket: Bucket, sources: dict[str, Source], raw: RawData, all_cameras: bool) -> dict[str, Source]:
    """The folders to list: of the cameras asked for below those of images (some scenes lack the front center one)."""
    images = [prefix for prefix, source in sources.items() if source.destination != raw.gateway_dir]
    chosen = {prefix: source for prefix, source in sources.items() if prefix not in images}
    for prefix, (cameras, _) in zip(images, _levels(bucket, images), strict=True):
        wanted = (camera for camera in cameras if all_cameras or _name(camera) == FRONT_CENTER)
        chosen |= {camera: replace(sources[prefix], prefix=camera) for camera in wanted}
    return chosen


def _add_beside(plan: Plan, root: Sequence[Object]) -> None:
    """Calibration, class list and licence for each folder of images: its own, else the root's, else another's."""
    others = [listed for folder in plan.folders for listed in folder.beside]
    of_images = {s.destination: s.folder for s in plan.sources.values() if s.destination != plan.raw.gateway_dir}
    for destination, folder in of_images.items():
        for name in BESIDE_SCENES:
            candidates = (listed for listed in (*folder.beside, *root, *others) if _name(listed.key) == name)
            if listed := next(candidates, None):
                plan.files.append(Wanted(listed, destination / name))
