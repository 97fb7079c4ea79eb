"""Where every file lies, raw and processed. No other module builds a path below these roots.

Raw data (`RawData`) is only ever read. Labels made from it (`ProcessedData`) and runs (`RunDir`) are written by
`whole_file`, so that a reader sees a file whole or not at all.
"""

import argparse
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from errors import UserError

FRAMES_PER_SECOND = 30  # the cameras' rate: a frame's number / 30 is its time in its scene

SCENE_NAME = re.compile(r"\d{8}_\d{6}")
BUS_FRAME_NAME = re.compile(r"(\d{8})(\d{6})_camera_frontcenter_(\d{9})(?:\.json|\.png)?")
CAMERA_SUFFIXES = {"npy": ".npy", "jpeg": ".jpg"}

# raw folder below a scene -> (the word in the file's name, its ending)
RAW_KINDS = {
    "camera": ("camera", ".png"),
    "lidar": ("lidar", ".npz"),
    "label": ("label", ".png"),
    "label3D": ("label3D", ".json"),
}
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


class RawData:
    """The raw data set as `get_data.sh` arranges it below `root` (usually `Datasets/`). Never written to."""

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.images_dir = self.root / "camera_lidar_semantic_bboxes"
        self.gateway_dir = self.root / "gateway"
        self.calibration_path = self.images_dir / "cams_lidars.json"
        self.class_list_path = self.images_dir / "class_list.json"

    def path(self, kind: str, frame: Frame) -> Path:
        """The raw file of a frame; `kind` is a key of RAW_KINDS."""
        word, suffix = RAW_KINDS[kind]
        name = f"{frame.scene.replace('_', '')}_{word}_frontcenter_{frame.id}{suffix}"
        return self._folder(kind, frame.scene) / name

    def _folder(self, kind: str, scene: str) -> Path:
        return self.images_dir / scene / kind / "cam_front_center"

    def scenes(self) -> list[str]:
        """Scenes with images, sorted."""
        return _scene_names(self.images_dir)

    def frames(self, kind: str, scenes: Iterable[str] | None = None) -> list[Frame]:
        """Front-center frames whose raw file of this kind exists, sorted by scene and id."""
        word, suffix = RAW_KINDS[kind]
        frames = []
        for scene in self.scenes() if scenes is None else sorted(scenes):
            pattern = re.compile(rf"{scene.replace('_', '')}_{word}_frontcenter_(\d{{9}}){re.escape(suffix)}")
            matches = map(pattern.fullmatch, _sorted_names(self._folder(kind, scene)))
            frames += [Frame(scene, match[1]) for match in matches if match]
        return frames

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


def parse_bus_frame_name(name: str) -> Frame | None:
    """The frame that a bus file's `frame_name` means; None for another camera's frame."""
    match = BUS_FRAME_NAME.fullmatch(name)
    return Frame(f"{match[1]}_{match[2]}", match[3]) if match else None


class ProcessedData:
    """Labels as the preprocessing scripts write them: `root/KIND/SCENE/FRAME.{npy,jpg,json}`."""

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)

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

    def frames(self, kind: str, scenes: Iterable[str] | None = None) -> list[Frame]:
        """Frames with a file of this kind, sorted. Temporary files are not listed."""
        pattern = re.compile(rf"(\d{{9}})(?:{'|'.join(map(re.escape, PROCESSED_KINDS[kind]))})")
        frames = []
        for scene in _scene_names(self.root / kind) if scenes is None else sorted(scenes):
            matches = map(pattern.fullmatch, _sorted_names(self.root / kind / scene))
            frames += [Frame(scene, match[1]) for match in matches if match]
        return frames

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
        """Remove every file of a kind, its settings first: labels without settings are never taken for valid ones."""
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

    def remove_abandoned(self, kind: str) -> None:
        """Remove temporary files whose writer was killed: its process is gone (known only for this machine's own)."""
        folders = [self.root / kind, *(self.root / kind / scene for scene in _scene_names(self.root / kind))]
        for folder in folders:
            for name in _sorted_names(folder):
                if _is_abandoned(name):
                    (folder / name).unlink(missing_ok=True)


def add_root_arguments(parser: argparse.ArgumentParser) -> None:
    """--data-root and --processed-root; A2D2_DATA and A2D2_PROCESSED (scratch file systems) are their defaults."""
    _add_root(parser, "--data-root", "A2D2_DATA", "Datasets", "raw data")
    _add_root(parser, "--processed-root", "A2D2_PROCESSED", "Datasets/processed", "labels made from it")


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


# ---- files that appear whole or not at all ------------------------------------------------------------------

_TEMPORARY = re.compile(r"\..+\.tmp-(?P<host>[^/]+)-(?P<pid>\d+)-[0-9a-f]{8}")


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends well, else remove it.

    `durable` waits until the bytes are on the disk before the rename (checkpoints; too slow for 60,000 labels).
    """
    temporary = _temporary_path(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON by `whole_file`."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=indent) + "\n").encode())


def write_json_once(path: Path, content: Any) -> None:
    """Write JSON unless the file exists; of several processes that do so at once, exactly one succeeds."""
    temporary = _temporary_path(path)
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    try:
        os.link(temporary, path)  # unlike a rename, it fails where the file exists
    except FileExistsError:
        pass  # another process was first: the caller reads what stands there
    finally:
        temporary.unlink()


def read_json(path: Path) -> Any:
    """Read a JSON file that this project or the user wrote; a broken one is the user's to mend."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}") from None


def _temporary_path(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def _is_abandoned(name: str) -> bool:
    match = _TEMPORARY.fullmatch(name)
    return bool(match) and match["host"] == socket.gethostname() and not _is_running(int(match["pid"]))


def _is_running(pid: int) -> bool:
    """Whether a process of this machine lives; a zombie (dead, but nobody has asked for its exit status) does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it belongs to somebody else
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True  # not on Linux
