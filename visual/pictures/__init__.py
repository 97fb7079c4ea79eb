"""How each kind of label is shown. A new picture is one file beside this one and two lines here."""

from tasks.base import Task
from visual.pictures.base import DefaultPicture, Picture
from visual.pictures.box import BoxPicture
from visual.pictures.depth import DepthPicture
from visual.pictures.segmentation import SegmentationPicture
from visual.pictures.steering import SteeringPicture

# by kind of label; any other has the default picture
PICTURES: dict[str, type[Picture]] = {
    "segmentation": SegmentationPicture,
    "steering": SteeringPicture,
    "box": BoxPicture,
    "depth": DepthPicture,
}


def picture_of(task: Task) -> Picture:
    return PICTURES.get(task.kind, DefaultPicture)(task)
