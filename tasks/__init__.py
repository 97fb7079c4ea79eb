"""The tasks by name. A new task is one file beside this one and two lines here: its import, and its name in TASKS."""

from tasks.base import Task
from tasks.box import BoxTask
from tasks.depth import DepthTask
from tasks.segmentation import SegmentationTask
from tasks.steering import SteeringTask

TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (
        SegmentationTask,
        SteeringTask,
        BoxTask,
        DepthTask,
    )
}
