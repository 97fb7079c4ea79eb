"""What A2D2's labels say, for tests that make tasks by hand."""

from datasets.a2d2.spec import LABELS
from tasks.merged import MergedSegmentation
from tasks.segmentation import SegmentationTask

SEGMENTATION, BOX, DEPTH = (LABELS[kind] for kind in ("segmentation", "box", "depth"))


def merged() -> MergedSegmentation:
    return MergedSegmentation(SegmentationTask(spec=SEGMENTATION))
