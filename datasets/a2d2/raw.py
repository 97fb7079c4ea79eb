"""A2D2 as its publishers arrange it and `get_data.sh` fetches it: every path below the raw root. Only ever read."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from datasets.files import sorted_names
from datasets.frames import Frame

NAME = "a2d2"  # the data set's, in the keys of random draws and in the hash of a list of samples
FRAMES_PER_SECOND = 30  # the cameras' rate: a frame's number / 30 is its time in its scene

SCENE_NAME = re.compile(r"\d{8}_\d{6}")
BUS_FRAME_NAME = re.compile(r"(\d{8})(\d{6})_camera_frontcenter_(\d{9})(?:\.json|\.png)?")
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


def seconds_of(frame: Frame) -> float:
    """Time within the scene, from the frame's number at 30 frames a second."""
    return int(frame.id) / FRAMES_PER_SECOND


def _scene_names(folder: Path) -> list[str]:
    return [name for name in sorted_names(folder) if SCENE_NAME.fullmatch(name)]


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
        """A file beside the scenes: of the first folder that has it, whatever it is."""
        paths = [folder / name for folder in self.images_dirs]
        return next((path for path in paths if os.path.lexists(path)), paths[0])

    def path(self, kind: str, frame: Frame) -> Path:
        """The raw file of a frame; `kind` is a key of RAW_KINDS. Of two copies the one beside the boxes."""
        return next(iter(self.copies(kind, frame)), self.path_in(self.images_dir, kind, frame))

    def copies(self, kind: str, frame: Frame) -> list[Path]:
        """The frame's raw files of a kind that exist, whatever they are: none, one, or one in either folder."""
        paths = (self.path_in(folder, kind, frame) for folder in self.images_dirs)
        return [path for path in paths if os.path.lexists(path)]

    def path_in(self, folder: Path, kind: str, frame: Frame) -> Path:
        """The raw file of a frame in one of `images_dirs` (for whoever writes raw data)."""
        word, suffix = RAW_KINDS[kind]
        name = f"{frame.scene.replace('_', '')}_{word}_frontcenter_{frame.id}{suffix}"
        return folder / frame.scene / kind / FRONT_CENTER / name

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
                matches = map(pattern.fullmatch, sorted_names(folder / scene / kind / FRONT_CENTER))
                frames |= {Frame(NAME, scene, match[1]) for match in matches if match}
        return sorted(frames)

    def bus_paths(self) -> dict[str, Path]:
        """Scene -> its file of bus signals, sorted. Scenes lie in gateway/ itself or in one wrapper folder below it."""
        folders = [self.gateway_dir]
        folders += [self.gateway_dir / name for name in sorted_names(self.gateway_dir)]
        paths: dict[str, Path] = {}
        for folder in folders:
            for scene in _scene_names(folder):
                path = folder / scene / "bus" / f"{scene.replace('_', '')}_bus_signals.json"
                if os.path.lexists(path):  # whatever it is: its stage says what is wrong with it
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
    return Frame(NAME, f"{match[1]}_{match[2]}", match[3]) if match else None
