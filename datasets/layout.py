"""Where every file lies, raw and processed. No other module builds a path below these roots.

Raw data (`RawData`) is only ever read. Labels made from it (`ProcessedData`) and runs (`RunDir`) are written by
`whole_file`, so that a reader sees a file whole or not at all.
"""

import argparse
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files import is_abandoned, npy_array, read_json, read_whole
from datasets.packs import PACKED, Pack, Stamp
from errors import UserError

DATA_SET = "a2d2"  # its name in the keys of random draws and in the hash of a list of samples
FRAMES_PER_SECOND = 30  # the cameras' rate: a frame's number / 30 is its time in its scene

SCENE_NAME = re.compile(r"\d{8}_\d{6}")
BUS_FRAME_NAME = re.compile(r"(\d{8})(\d{6})_camera_frontcenter_(\d{9})(?:\.json|\.png)?")
CAMERA_SUFFIXES = {"npy": ".npy", "jpeg": ".jpg"}
FRONT_CENTER = "cam_front_center"  # folder of the one camera that this project reads
BESIDE_SCENES = ("cams_lidars.json", "class_list.json", "LICENSE")  # files taken along, beside the scenes

# raw folder below a scene -> (the word in the file's name, its ending)
RAW_KINDS = {
    "camera": ("camera", ".png"),
    "lidar": ("lidar", ".npz"),
    "label": ("label", ".png"),
    "label3D": ("label3D", ".json"),
}
_MEMBER = re.compile(
    r"(?P<scene>\d{8}_\d{6})/(?P<kind>camera|lidar|label|label3D)/(?P<folder>cam_(?P<camera>[a-z]+(?:_[a-z]+)*))/"
    r"(?P<flat>\d{14})_(?P<word>camera|lidar|label|label3D)_(?P<lens>[a-z]+)_\d{9}(?P<suffix>\.(?:png|npz|json))"
)
_BUS_MEMBER = re.compile(r"(?P<scene>\d{8}_\d{6})/bus/(?P<flat>\d{14})_bus_signals\.json")
# processed kind -> the endings that its files may have
PROCESSED_KINDS = {
    "camera": (".npy", ".jpg"),
    "segmentation": (".npy",),
    "depth": (".npy",),
    "box": (".json",),
    "steering": (".json",),
}


@dataclass(frozen=True, order=True, slots=True)
class Frame:
    """One front-center frame: the scene's name (`20180807_145028`) and the frame's 9-digit id (`000000091`)."""

    scene: str
    id: str

    @property
    def seconds(self) -> float:
        """Time within the scene, from the frame's number at 30 frames a second."""
        return int(self.id) / FRAMES_PER_SECOND

    @property
    def key(self) -> str:
        """What the frame is called in random draws and hashes: no other data set's frame has the same."""
        return f"{DATA_SET}/{self}"

    def __str__(self) -> str:
        return f"{self.scene}/{self.id}"

    @classmethod
    def parse(cls, name: str) -> "Frame | None":
        """From `20180807_145028/000000091`, or the name of a raw camera file; None: it is neither."""
        match = re.fullmatch(rf"({SCENE_NAME.pattern})[/_](\d{{9}})", name)
        return cls(match[1], match[2]) if match else parse_bus_frame_name(name)


def _sorted_names(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where the folder does not exist. One scandir, no stat per file."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _scene_names(folder: Path) -> list[str]:
    return [name for name in _sorted_names(folder) if SCENE_NAME.fullmatch(name)]


def _remove_abandoned(folder: Path) -> None:
    for name in _sorted_names(folder):
        if is_abandoned(name):
            (folder / name).unlink(missing_ok=True)


def _label_names(kind: str) -> re.Pattern[str]:
    """Matches the names of a kind's files; its group 1 is the frame's id."""
    return re.compile(rf"(\d{{9}})(?:{'|'.join(map(re.escape, PROCESSED_KINDS[kind]))})")


def _stamps(folder: Path, pattern: re.Pattern[str]) -> dict[str, Stamp]:
    """Name -> size and time of the files in a folder whose name matches, sorted; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: Stamp.of(entry.stat()) for entry in entries if pattern.fullmatch(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(sorted(found.items()))


def _frames_dir(folder: Path, kind: str, scene: str) -> Path:
    return folder / scene / kind / FRONT_CENTER


class RawData:
    """The raw data set as `get_data.sh` arranges it below `root` (usually `Datasets/`). Never written to.

    Frames lie in the folder of those with boxes, in that of those with classes, or (the same frame) in both.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.images_dir = self.root / "camera_lidar_semantic_bboxes"
        self.semantic_dir = self.root / "camera_lidar_semantic"
        self.gateway_dir = self.root / "gateway"
        self.images_dirs = (self.images_dir, self.semantic_dir)

    @property
    def calibration_path(self) -> Path:
        return self._beside_scenes("cams_lidars.json")

    @property
    def class_list_path(self) -> Path:
        return self._beside_scenes("class_list.json")

    def _beside_scenes(self, name: str) -> Path:
        """A file beside the scenes: of the first folder that has it."""
        paths = [folder / name for folder in self.images_dirs]
        return next((path for path in paths if path.is_file()), paths[0])

    def path(self, kind: str, frame: Frame) -> Path:
        """The raw file of a frame; `kind` is a key of RAW_KINDS. Of two copies the one beside the boxes."""
        return next(iter(self.copies(kind, frame)), self.path_in(self.images_dir, kind, frame))

    def copies(self, kind: str, frame: Frame) -> list[Path]:
        """The frame's raw files of a kind that exist: none, one, or one in either folder."""
        paths = (self.path_in(folder, kind, frame) for folder in self.images_dirs)
        return [path for path in paths if path.is_file()]

    def path_in(self, folder: Path, kind: str, frame: Frame) -> Path:
        """The raw file of a frame in one of `images_dirs` (for whoever writes raw data)."""
        word, suffix = RAW_KINDS[kind]
        name = f"{frame.scene.replace('_', '')}_{word}_frontcenter_{frame.id}{suffix}"
        return _frames_dir(folder, kind, frame.scene) / name

    def scenes(self) -> list[str]:
        """Scenes with images, sorted."""
        return sorted({scene for folder in self.images_dirs for scene in _scene_names(folder)})

    def frames(self, kind: str, scenes: Iterable[str] | None = None) -> list[Frame]:
        """Front-center frames with a raw file of this kind in either folder, each once, sorted by scene and id."""
        word, suffix = RAW_KINDS[kind]
        frames: set[Frame] = set()
        for scene in self.scenes() if scenes is None else scenes:
            pattern = re.compile(rf"{scene.replace('_', '')}_{word}_frontcenter_(\d{{9}}){re.escape(suffix)}")
            for folder in self.images_dirs:
                matches = map(pattern.fullmatch, _sorted_names(_frames_dir(folder, kind, scene)))
                frames |= {Frame(scene, match[1]) for match in matches if match}
        return sorted(frames)

    def bus_paths(self) -> dict[str, Path]:
        """Scene -> its file of bus signals, sorted. Scenes lie in gateway/ itself or in one wrapper folder below it."""
        folders = [self.gateway_dir]
        folders += [self.gateway_dir / name for name in _sorted_names(self.gateway_dir)]
        paths = {}
        for folder in folders:
            for scene in _scene_names(folder):
                path = folder / scene / "bus" / f"{scene.replace('_', '')}_bus_signals.json"
                if path.is_file():
                    paths.setdefault(scene, path)
        return dict(sorted(paths.items()))

    def bus_path(self, scene: str) -> Path:
        """Where a scene's bus signals belong (for whoever writes raw data)."""
        return self.gateway_dir / scene / "bus" / f"{scene.replace('_', '')}_bus_signals.json"

    def member_path(self, folder: Path, name: str, all_cameras: bool = False) -> Path | None:
        """Where a file that a copy of the set calls `name` (SCENE/KIND/cam_X/FILE, or a bus file) belongs.

        `folder`: `images_dir`, or the folder of another part of the set. None: no file that this project takes. A name
        is what a server says, so nothing but the set's own names becomes a path.
        """
        if (bus := _BUS_MEMBER.fullmatch(name)) and bus["scene"].replace("_", "") == bus["flat"]:
            return self.bus_path(bus["scene"])
        match = _MEMBER.fullmatch(name)
        if not match or (match["folder"] != FRONT_CENTER and not all_cameras):
            return None
        told = (match["flat"], match["word"], match["lens"])
        word, suffix = RAW_KINDS[match["kind"]]
        fits = told == (match["scene"].replace("_", ""), word, match["camera"].replace("_", ""))
        ends = match["suffix"] == suffix or (match["kind"], match["suffix"]) == ("camera", ".json")
        return folder / name if fits and ends else None


def parse_bus_frame_name(name: str) -> Frame | None:
    """The frame that a bus file's `frame_name` means; None for another camera's frame."""
    match = BUS_FRAME_NAME.fullmatch(name)
    return Frame(f"{match[1]}_{match[2]}", match[3]) if match else None


class ProcessedData:
    """Labels as the preprocessing scripts write them, `root/KIND/SCENE/FRAME.{npy,jpg,json}`, or a scene's in one pack.

    `preprocessing/pack.py` makes the packs, `root/packed/SCENE.tar`. A loose file wins over its copy in a pack.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.packed_dir = self.root / PACKED
        self.lock_path = self.root / ".lock"  # of pack.py, and of the processes that copy to here
        self.origin_path = self.root / "copied_from.json"  # in a copy: the root that it was made from
        self._packs: dict[str, Pack] = {}  # scene -> its pack, where one has been opened
        self._loose_folders: dict[tuple[str, str], bool] = {}  # (kind, scene of _packs) -> whether there is a folder

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Open files stay behind: the process that gets a copy opens its own."""
        return type(self), (self.root,)

    def kind_dir(self, kind: str) -> Path:
        return self.root / kind

    def path(self, kind: str, frame: Frame, suffix: str | None = None) -> Path:
        """A frame's file; `suffix` is needed only for kinds with several (camera: `.npy` or `.jpg`)."""
        return self.root / kind / frame.scene / (frame.id + (suffix or PROCESSED_KINDS[kind][0]))

    def settings_path(self, kind: str) -> Path:
        """What the files of this kind were made with."""
        return self.root / kind / "settings.json"

    def report_path(self, kind: str, shard: tuple[int, int] | None = None) -> Path:
        """The last run's report; one per shard of a job array."""
        name = "report.json" if shard is None else f"report-{shard[0]}-of-{shard[1]}.json"
        return self.root / kind / name

    def shard_reports(self, kind: str) -> dict[tuple[int, int], Path]:
        """(I, N) -> the report of shard I of N, sorted."""
        matches = (re.fullmatch(r"report-(\d+)-of-(\d+)\.json", name) for name in _sorted_names(self.root / kind))
        shards = sorted((int(match[1]), int(match[2])) for match in matches if match)
        return {shard: self.report_path(kind, shard) for shard in shards}

    def kinds(self) -> list[str]:
        """Kinds of label that have a folder here (packed ones keep theirs, with the settings)."""
        return [kind for kind in PROCESSED_KINDS if kind != "camera" and self.kind_dir(kind).is_dir()]

    def frames(self, kind: str, scenes: Iterable[str] | None = None) -> list[Frame]:
        """Frames with a file of this kind, loose or packed, sorted. Temporary files are not listed."""
        pattern = _label_names(kind)
        frames = set()
        for scene in {*_scene_names(self.root / kind), *self.packed_scenes()} if scenes is None else scenes:
            pack = self.pack(scene)
            names = {*_sorted_names(self.root / kind / scene), *(pack.names(kind) if pack else ())}
            frames |= {Frame(scene, match[1]) for match in map(pattern.fullmatch, names) if match}
        return sorted(frames)

    # ---- reading, loose or packed ---------------------------------------------------------------------------------

    def read(self, kind: str, frame: Frame, suffix: str | None = None) -> bytes | None:
        """The content of a frame's file; None where there is none."""
        content = self._content(kind, frame, suffix)
        return None if content is None else content.tobytes()

    def read_array(self, kind: str, frame: Frame) -> np.ndarray | None:
        """The array of a frame's .npy file; None where there is none. ValueError: not a whole one."""
        content = self._content(kind, frame, ".npy")
        try:
            return None if content is None else npy_array(content)
        except ValueError as error:
            raise ValueError(f"{self.source(kind, frame, '.npy')} is not a whole .npy file: {error}") from None

    def exists(self, kind: str, frame: Frame, suffix: str | None = None) -> bool:
        """Whether a frame has a file of this kind, loose or packed."""
        path = self.path(kind, frame, suffix)
        return path.exists() or self._pack_with(kind, frame.scene, path.name) is not None

    def source(self, kind: str, frame: Frame, suffix: str | None = None) -> str:
        """Where a frame's content comes from, for messages."""
        path = self.path(kind, frame, suffix)
        in_pack = not path.exists() and self._pack_with(kind, frame.scene, path.name)
        return f"{kind}/{frame}{path.suffix} in {in_pack.path}" if in_pack else str(path)

    def _content(self, kind: str, frame: Frame, suffix: str | None) -> np.ndarray | None:
        path = self.path(kind, frame, suffix)
        if self._may_be_loose(kind, frame.scene):
            try:
                return read_whole(path)
            except FileNotFoundError:
                pass
        pack = self._pack_with(kind, frame.scene, path.name)
        return None if pack is None else pack.read(kind, path.name)

    def _may_be_loose(self, kind: str, scene: str) -> bool:
        """False for a scene that lies in its pack alone: then no label costs the file system a look for a loose file.

        Remembered, so that a process goes on reading what it found first.
        """
        if scene not in self._packs:
            return True
        if (kind, scene) not in self._loose_folders:
            self._loose_folders[kind, scene] = (self.root / kind / scene).is_dir()
        return self._loose_folders[kind, scene]

    def _pack_with(self, kind: str, scene: str, name: str) -> Pack | None:
        """The scene's pack if it holds the file; looked for on disk only where the open one does not."""
        pack = self._packs.get(scene)
        if pack is None or pack.stamp(kind, name) is None:
            pack = self.pack(scene)
        return pack if pack and pack.stamp(kind, name) else None

    # ---- packs ----------------------------------------------------------------------------------------------------

    def pack_path(self, scene: str) -> Path:
        return self.packed_dir / f"{scene}.tar"

    def packed_scenes(self) -> list[str]:
        """Scenes that have a pack, sorted."""
        names = map(Path, _sorted_names(self.packed_dir))
        return [name.stem for name in names if name.suffix == ".tar" and SCENE_NAME.fullmatch(name.stem)]

    def pack(self, scene: str) -> Pack | None:
        """The scene's pack as it lies there now; None where there is none."""
        if scene not in self._packs or self._packs[scene].is_replaced():
            self._packs.pop(scene, None)
            try:
                self._packs[scene] = Pack(self.pack_path(scene))
            except FileNotFoundError:
                return None
        return self._packs[scene]

    def check_unpacked(self, kind: str) -> None:
        """UserError where packs hold files of this kind: they are never changed, so what replaces labels must stop."""
        if any(pack.names(kind) for pack in map(self.pack, self.packed_scenes()) if pack):
            raise UserError(
                f"{self.packed_dir} holds {kind} labels, which --overwrite does not change; unpack its tars by "
                f"'tar xf' in {self.root} unless the loose files are there, delete the tars, and run again"
            )

    def scenes(self) -> list[str]:
        """Scenes with a file of any kind, loose or packed, sorted."""
        loose = (_scene_names(self.root / kind) for kind in PROCESSED_KINDS)
        return sorted({*self.packed_scenes(), *(scene for scenes in loose for scene in scenes)})

    def loose(self, scene: str) -> dict[tuple[str, str], Stamp]:
        """The scene's loose files: (kind, name) -> size and time."""
        return {
            (kind, name): stamp
            for kind in PROCESSED_KINDS
            for name, stamp in _stamps(self.root / kind / scene, _label_names(kind)).items()
        }

    def unpacked(self, scene: str, loose: dict[tuple[str, str], Stamp]) -> dict[tuple[str, str], Stamp]:
        """Those of the scene's loose files that its pack does not hold as they are."""
        pack = self.pack(scene)
        return {key: stamp for key, stamp in loose.items() if pack is None or pack.stamp(*key) != stamp}

    def loose_path(self, kind: str, scene: str, name: str) -> Path:
        """A file of `loose`."""
        return self.root / kind / scene / name

    def stored(self) -> dict[Path, Stamp]:
        """Settings, packs and loose files: path below the root -> size and time."""
        return self._listed(self.loose)

    def needed(self) -> dict[Path, Stamp]:
        """The same without the loose files that packs hold as they are: all that a copy needs."""
        return self._listed(lambda scene: self.unpacked(scene, self.loose(scene)))

    def stored_path(self, relative: Path) -> Path:
        """A path of `stored` or `needed` below this root."""
        return self.root / relative

    def _listed(self, labels: Callable[[str], dict[tuple[str, str], Stamp]]) -> dict[Path, Stamp]:
        fixed = [*map(self.settings_path, PROCESSED_KINDS), *map(self.pack_path, self.packed_scenes())]
        stamps = {path: Stamp.of(path.stat()) for path in fixed if path.exists()}
        for scene in self.scenes():
            stamps |= {self.loose_path(kind, scene, name): stamp for (kind, name), stamp in labels(scene).items()}
        return {path.relative_to(self.root): stamp for path, stamp in stamps.items()}

    # ---- settings, removal ----------------------------------------------------------------------------------------

    def settings(self, kind: str) -> dict[str, Any] | None:
        """The settings that the files of this kind were made with; None where there are none."""
        path = self.settings_path(kind)
        if not path.is_file():
            return None
        settings = read_json(path)
        if not isinstance(settings, dict):
            raise UserError(f"{path} holds no settings; make the files again with --overwrite")
        return settings

    def remove(self, kind: str) -> None:
        """Remove every file of a kind, its settings first: labels without settings are never taken for valid ones.

        UserError where packs hold some of them.
        """
        self.check_unpacked(kind)
        self.settings_path(kind).unlink(missing_ok=True)
        self.remove_labels(kind)
        for name in _sorted_names(self.root / kind):
            if name.startswith("report") and name.endswith(".json"):
                (self.root / kind / name).unlink(missing_ok=True)

    def remove_labels(self, kind: str, scenes: Iterable[str] | None = None) -> None:
        """Remove the labels of a kind (of some scenes only); settings and reports stay."""
        for frame in self.frames(kind, scenes):
            for suffix in PROCESSED_KINDS[kind]:
                self.path(kind, frame, suffix).unlink(missing_ok=True)

    def remove_empty_folders(self, scene: str) -> None:
        """Remove the scene's folders that hold nothing."""
        for kind in PROCESSED_KINDS:
            with suppress(OSError):  # not there, or not empty
                (self.root / kind / scene).rmdir()

    def remove_abandoned(self, kind: str) -> None:
        """Remove temporary files whose writer was killed: its process is gone (known only for this machine's own)."""
        _remove_abandoned(self.root / kind)
        for scene in _scene_names(self.root / kind):
            _remove_abandoned(self.root / kind / scene)


def add_root_arguments(parser: argparse.ArgumentParser) -> None:
    """--data-root and --processed-root; A2D2_DATA and A2D2_PROCESSED (scratch file systems) are their defaults."""
    add_data_root_argument(parser)
    add_processed_root_argument(parser)


def add_processed_root_argument(parser: argparse.ArgumentParser) -> None:
    """--processed-root, by default A2D2_PROCESSED."""
    _add_root(parser, "--processed-root", "A2D2_PROCESSED", "Datasets/processed", "labels made from it")


def add_data_root_argument(parser: argparse.ArgumentParser) -> None:
    """--data-root, by default A2D2_DATA."""
    _add_root(parser, "--data-root", "A2D2_DATA", "Datasets", "raw data")


def add_runs_root_argument(parser: argparse.ArgumentParser) -> None:
    """--runs-root, by default A2D2_RUNS."""
    _add_root(parser, "--runs-root", "A2D2_RUNS", "runs", "folder of the training runs")


def _add_root(parser: argparse.ArgumentParser, flag: str, variable: str, default: str, what: str) -> None:
    path = Path(os.environ.get(variable) or default)
    parser.add_argument(
        flag, type=Path, default=path, metavar="DIR", help=f"{what} (default ${variable}, else {default})"
    )


class RunDir:
    """The files of one training run: `runs_root/NAME/...`."""

    def __init__(self, runs_root: str | os.PathLike, name: str):
        self.dir = Path(runs_root) / name
        self.config = self.dir / "config.yaml"
        self.split = self.dir / "split.json"
        self.best = self.dir / "best.pt"
        self.last = self.dir / "last.pt"
        self.metrics = self.dir / "metrics.jsonl"
        self.interrupted = self.dir / "INTERRUPTED"
        self.wandb = self.dir / "wandb"

    def image(self, epoch: int, task: str, frame: Frame) -> Path:
        """A validation frame as it was drawn after an epoch."""
        return self.dir / "images" / f"epoch-{epoch:03d}" / f"{task}-{frame.scene}-{frame.id}.jpg"

    def plot(self, task: str, name: str) -> Path:
        """A plot of the task's metric at the end of training."""
        return self.dir / "images" / f"{task}-{name}.png"

    def exists(self) -> bool:
        return bool(_sorted_names(self.dir))

    def remove_abandoned(self) -> None:
        """Remove temporary checkpoints, and what else lies beside them, whose writer was killed (on this machine)."""
        _remove_abandoned(self.dir)


class ResultsDir:
    """The pictures of one frame or one scene: `root/TASK/NAME/...`."""

    def __init__(self, root: str | os.PathLike, task: str, name: str):
        self.dir = Path(root) / task / name
        self.sheet = self.dir / "sheet.png"
        self.video = self.dir / "scene.mp4"
        self.gif = self.dir / "scene.gif"

    def picture(self, column: str) -> Path:
        """The picture of one column of the sheet: the camera, the truth or a network."""
        return self.dir / f"{column}.png"

    def plot(self, task: str) -> Path:
        """The plot over a scene's time."""
        return self.dir / f"{task}.png"


class OverviewDir:
    """Contact sheets of raw scenes, and statistics of the whole set: `root/overview/...`."""

    def __init__(self, root: str | os.PathLike):
        self.dir = Path(root) / "overview"
        self.statistics = self.dir / "statistics.png"

    def sheet(self, scene: str) -> Path:
        return self.dir / f"{scene}.png"
