"""The tasks by name. A new task is one file beside this one and one line here."""

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
