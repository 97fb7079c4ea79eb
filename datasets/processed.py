"""The processed root: labels and images as the preprocessing scripts write them, loose or in packs.

Every path below it is built here. Files are written by `whole_file`: a reader sees a file whole or not at all.
"""

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files import (
    folder_names,
    npy_array,
    read_bytes,
    read_json,
    read_whole,
    remove_abandoned_in,
    sorted_names,
    whole_file,
    write_json,
    write_json_once,
)
from datasets.frames import Frame
from datasets.packs import PACKED, Pack, Stamp
from datasets.settings import CAMERA, SETTINGS, Description, KindSettings
from datasets.spec import DatasetSpec, LabelSpec
from errors import UserError
from strict import checked

CAMERA_SUFFIXES = {"npy": ".npy", "jpeg": ".jpg"}
# kind -> endings, where they are not .npy alone
OTHER_SUFFIXES = {CAMERA: (".npy", ".jpg"), "box": (".json",), "steering": (".json",)}
TIMES_HEADER = ["frame", "seconds"]
DATASET_NAME = re.compile(r"\w[\w.+-]*")


def suffixes_of(kind: str) -> tuple[str, ...]:
    """The endings that the files of a kind may have."""
    return OTHER_SUFFIXES.get(kind, (".npy",))


def _label_names(kind: str) -> re.Pattern[str]:
    """Matches the names of a kind's files; its group 1 is the frame's id. Temporary files begin with a dot."""
    return re.compile(rf"([^.].*)(?:{'|'.join(map(re.escape, suffixes_of(kind)))})")


def _stamps(folder: Path, pattern: re.Pattern[str]) -> dict[str, Stamp]:
    """Name -> size and time of the files in a folder whose name matches, sorted; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: Stamp.of(entry.stat()) for entry in entries if pattern.fullmatch(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(sorted(found.items()))


class ProcessedData:
    """Labels as the preprocessing scripts write them, `root/KIND/SCENE/FRAME.{npy,jpg,json}`, or a scene's in one pack.

    `preprocessing/pack.py` makes the packs, `root/packed/SCENE.tar`. A loose file wins over its copy in a pack.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.packed_dir = self.root / PACKED
        self.locks_dir = self.root / ".locks"
        self.times_path = self.root / CAMERA / "times.csv"
        self.lock_path = self.root / ".lock"  # of the processes that copy to here
        self.dataset_path = self.root / "dataset.json"
        self.origin_path = self.root / "copied_from.json"  # in a copy: the root that it was made from
        self._packs: dict[str, Pack] = {}  # scene -> its pack, where one has been opened
        self._map_shapes: dict[str, tuple[int, int] | None] = {}
        self._loose_folders: dict[tuple[str, str], bool] = {}  # (kind, scene of _packs) -> whether there is a folder

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Open files stay behind: the process that gets a copy opens its own."""
        return type(self), (self.root,)

    @cached_property
    def name(self) -> str:
        """The data set's. UserError: the root does not say."""
        if not os.path.lexists(self.dataset_path):
            raise UserError(
                f"{self.root} does not say which data set it is (no dataset.json); run a preprocessing script "
                "again, which keeps the files that are there"
            )
        name = self._description().name
        if not DATASET_NAME.fullmatch(name):
            raise UserError(f"{self.dataset_path}: name is {name!r}, not letters, digits, '.', '_', '-' or '+'")
        return name

    def _description(self) -> Description:
        """What dataset.json holds."""
        try:
            return checked(Description, read_json(self.dataset_path))
        except ValueError as error:
            raise UserError(
                f"{self.dataset_path}: {error}; run a preprocessing script again without the file"
            ) from None

    def spec(self) -> DatasetSpec:
        """What the root says about itself."""
        labels = {kind: self.label_spec(kind) for kind in self.kinds() if self.settings(kind) is not None}
        return DatasetSpec(self.name, labels, self._split())

    def changed(self, kind: str) -> list[tuple[str, int]]:
        """When something last changed among the files of a kind: a rename into a folder changes the folder's time."""
        paths = [self.settings_path(kind), *(self.root / kind / scene for scene in folder_names(self.root / kind))]
        paths += map(self.pack_path, self.packed_scenes())
        return [(path.name, path.stat().st_mtime_ns) for path in paths if path.exists()]

    def label_spec(self, kind: str) -> LabelSpec:
        """What the labels of a kind say. UserError: their settings make no sense."""
        return LabelSpec.of(self.settings(kind) or {}, str(self.settings_path(kind)))

    def _split(self) -> dict[str, list[str]] | None:
        """The data set's own split, where dataset.json has one: part -> 'SCENE/ID'."""
        split = self._description().split
        return None if split is None else split.model_dump()

    def describe(self, name: str, split: Mapping[str, list[str]] | None = None, *, replace: bool = False) -> None:
        """Write which data set the root is, unless it says so already. UserError: it is another one.

        split: train, val and test -> its official frames, as `SCENE/ID`; replace: another split may stand there.
        """
        content = {"name": name} if split is None else {"name": name, "split": dict(split)}
        write_json_once(self.dataset_path, content)
        if self.name != name:
            raise UserError(f"{self.root} holds the data set {self.name}, not {name}; use another --processed-root")
        if read_json(self.dataset_path) == content:
            return
        if not replace:
            raise UserError(
                f"{self.dataset_path} has another split; use --overwrite (without --scenes or --shard) or another "
                "--processed-root"
            )
        write_json(self.dataset_path, content)

    def kind_dir(self, kind: str) -> Path:
        return self.root / kind

    def path(self, kind: str, frame: Frame, suffix: str | None = None) -> Path:
        """A frame's file; `suffix` is needed only for kinds with several (camera: `.npy` or `.jpg`)."""
        return self.root / kind / frame.scene / (frame.id + (suffix or suffixes_of(kind)[0]))

    def settings_path(self, kind: str) -> Path:
        """What the files of this kind were made with."""
        return self.root / kind / "settings.json"

    def report_path(self, kind: str, shard: tuple[int, int] | None = None) -> Path:
        """The last run's report; one per shard of a job array."""
        name = "report.json" if shard is None else f"report-{shard[0]}-of-{shard[1]}.json"
        return self.root / kind / name

    def shard_reports(self, kind: str) -> dict[tuple[int, int], Path]:
        """(I, N) -> the report of shard I of N, sorted."""
        matches = (re.fullmatch(r"report-(\d+)-of-(\d+)\.json", name) for name in sorted_names(self.root / kind))
        shards = sorted((int(match[1]), int(match[2])) for match in matches if match)
        return {shard: self.report_path(kind, shard) for shard in shards}

    def kind_lock_path(self, kind: str) -> Path:
        """Of the processes that write this kind."""
        return self.locks_dir / f"{kind}.lock"

    def kinds(self) -> list[str]:
        """Kinds of label that have a folder here (packed ones keep theirs, with the settings), sorted."""
        return [kind for kind in self.folders() if kind != CAMERA]

    def folders(self) -> list[str]:
        """The kinds that have a folder here, the camera among them, sorted."""
        return [kind for kind in folder_names(self.root) if kind != PACKED]

    def frames(self, kind: str, scenes: Iterable[str] | None = None) -> list[Frame]:
        """Frames with a file of this kind, loose or packed, sorted. Temporary files are not listed."""
        pattern = _label_names(kind)
        frames = set()
        for scene in {*folder_names(self.root / kind), *self.packed_scenes()} if scenes is None else scenes:
            pack = self.pack(scene)
            names = {*sorted_names(self.root / kind / scene), *(pack.names(kind) if pack else ())}
            frames |= {Frame(self.name, scene, match[1]) for match in map(pattern.fullmatch, names) if match}
        return sorted(frames)

    # ---- times ----------------------------------------------------------------------------------------------------

    def times(self) -> dict[Frame, float]:
        """Seconds of the frames whose time is known, from `camera/times.csv`; none where there is no such file."""
        try:
            rows = list(csv.reader(io.StringIO(read_bytes(self.times_path).decode(), newline="")))
            if rows[:1] != [TIMES_HEADER]:
                raise ValueError(f"its header is not {','.join(TIMES_HEADER)}")
            times = {Frame.parse(f"{self.name}/{frame}"): float(seconds) for frame, seconds in rows[1:]}
            if not all(map(math.isfinite, times.values())):
                raise ValueError("a time is not finite")
        except (ValueError, OSError, csv.Error) as error:
            if not os.path.lexists(self.times_path):
                return {}
            raise UserError(f"{self.times_path} can't be read: {error}; delete it and make it again") from None
        return times

    def write_times(self, times: Mapping[Frame, float]) -> None:
        """Write `camera/times.csv`, unless it says the same already."""
        rows = [f"{frame.in_dataset},{seconds!r}" for frame, seconds in sorted(times.items())]
        content = "\n".join([",".join(TIMES_HEADER), *rows, ""]).encode()
        if self.times_path.exists() and self.times_path.read_bytes() == content:
            return
        with whole_file(self.times_path) as file:
            file.write(content)

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
        return path.is_file() or self._pack_with(kind, frame.scene, path.name) is not None

    def source(self, kind: str, frame: Frame, suffix: str | None = None) -> str:
        """Where a frame's content comes from, for messages."""
        path = self.path(kind, frame, suffix)
        in_pack = not path.exists() and self._pack_with(kind, frame.scene, path.name)
        return f"{kind}/{frame.in_dataset}{path.suffix} in {in_pack.path}" if in_pack else str(path)

    def _content(self, kind: str, frame: Frame, suffix: str | None) -> np.ndarray | None:
        path = self.path(kind, frame, suffix)
        if self._may_be_loose(kind, frame.scene):
            try:
                return read_whole(path)
            except FileNotFoundError:
                if path.is_symlink():
                    raise  # what it leads to is gone, not the label
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
        names = map(Path, sorted_names(self.packed_dir))
        return [name.stem for name in names if name.suffix == ".tar" and not name.stem.startswith(".")]

    def pack(self, scene: str) -> Pack | None:
        """The scene's pack as it lies there now; None where there is none."""
        if scene not in self._packs or self._packs[scene].is_replaced():
            self._packs.pop(scene, None)
            try:
                self._packs[scene] = Pack(self.pack_path(scene), lambda: self.name, scene)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise UserError(f"{self.pack_path(scene)} can't be opened: {error.strerror}") from None
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
        loose = (folder_names(self.root / kind) for kind in self.folders())
        return sorted({*self.packed_scenes(), *(scene for scenes in loose for scene in scenes)})

    def loose(self, scene: str) -> dict[tuple[str, str], Stamp]:
        """The scene's loose files: (kind, name) -> size and time."""
        return {
            (kind, name): stamp
            for kind in self.folders()
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
        """Settings, times, packs and loose files: path below the root -> size and time."""
        return self._listed(self.loose)

    def needed(self) -> dict[Path, Stamp]:
        """The same without the loose files that packs hold as they are: all that a copy needs."""
        return self._listed(lambda scene: self.unpacked(scene, self.loose(scene)))

    def stored_path(self, relative: Path) -> Path:
        """A path of `stored` or `needed` below this root."""
        return self.root / relative

    def _listed(self, labels: Callable[[str], dict[tuple[str, str], Stamp]]) -> dict[Path, Stamp]:
        fixed = [
            self.dataset_path,
            self.times_path,
            *map(self.settings_path, self.folders()),
            *map(self.pack_path, self.packed_scenes()),
        ]
        stamps = {path: Stamp.of(path.stat()) for path in fixed if path.exists()}
        for scene in self.scenes():
            stamps |= {self.loose_path(kind, scene, name): stamp for (kind, name), stamp in labels(scene).items()}
        return {path.relative_to(self.root): stamp for path, stamp in stamps.items()}

    # ---- settings, removal ----------------------------------------------------------------------------------------

    def settings(self, kind: str) -> dict[str, Any] | None:
        """The settings that the files of this kind were made with; None where there are none. UserError: no such."""
        path = self.settings_path(kind)
        if not os.path.lexists(path):
            return None
        settings = read_json(path)
        try:
            checked(SETTINGS.get(kind, KindSettings), settings)
        except ValueError as error:
            raise UserError(f"{path}: {error}; make the files again with --overwrite") from None
        return settings

    def map_shape(self, kind: str) -> tuple[int, int] | None:
        """H, W of a kind's maps as its settings say; None where they don't. Remembered."""
        if kind not in self._map_shapes:
            size = (self.settings(kind) or {}).get("size")
            self._map_shapes[kind] = size and (size[1], size[0])
        return self._map_shapes[kind]

    def remove(self, kind: str) -> None:
        """Remove every file of a kind, its settings first: labels without settings are never taken for valid ones.

        UserError where packs hold some of them.
        """
        self.check_unpacked(kind)
        self.settings_path(kind).unlink(missing_ok=True)
        self.remove_labels(kind)
        if kind == CAMERA:
            self.times_path.unlink(missing_ok=True)
        for name in sorted_names(self.root / kind):
            if name.startswith("report") and name.endswith(".json"):
                (self.root / kind / name).unlink(missing_ok=True)

    def remove_labels(self, kind: str, scenes: Iterable[str] | None = None) -> None:
        """Remove the labels of a kind (of some scenes only); settings and reports stay."""
        for frame in self.frames(kind, scenes):
            for suffix in suffixes_of(kind):
                self.path(kind, frame, suffix).unlink(missing_ok=True)

    def remove_empty_folders(self, scene: str) -> None:
        """Remove the scene's folders that hold nothing."""
        for kind in self.folders():
            with suppress(OSError):  # not there, or not empty
                (self.root / kind / scene).rmdir()

    def remove_abandoned(self, kind: str) -> None:
        """Remove temporary files whose writer was killed: its process is gone (known only for this machine's own)."""
        remove_abandoned_in(self.root / kind)
        for scene in folder_names(self.root / kind):
            remove_abandoned_in(self.root / kind / scene)
