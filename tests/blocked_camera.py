"""preprocessing/camera.py, except that a frame with a file NAME.blocked beside it is not read before that is gone."""

import time
from pathlib import Path

from datasets.a2d2.stage import run_stage
from datasets.conversion import Label
from errors import run_as_script
from preprocessing.camera import Camera


class BlockedCamera(Camera):
    def convert(self, path: Path) -> Label:
        while path.with_suffix(".blocked").exists():
            time.sleep(0.01)
        return super().convert(path)


if __name__ == "__main__":
    run_as_script(lambda: run_stage(BlockedCamera()))
