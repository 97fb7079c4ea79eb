"""What A2D2's labels say, as its preprocessing scripts write it into their settings."""

from datasets.a2d2.classes import BOX_CLASSES, BOX_COLOURS, COLOURS, MERGED_CLASSES, SEMANTIC_CLASSES, class_of
from datasets.spec import ClassTable, LabelSpec

# a class of masks has several colours, one for each instance; in pictures it has that of its first
_FIRST = {class_of(name): colour for colour, name in reversed(COLOURS.items())}

SEMANTIC_TABLE = ClassTable(SEMANTIC_CLASSES, tuple(_FIRST[name] for name in SEMANTIC_CLASSES), MERGED_CLASSES)
LABELS = {
    "segmentation": LabelSpec(SEMANTIC_TABLE),
    "box": LabelSpec(ClassTable(BOX_CLASSES, BOX_COLOURS)),
    "depth": LabelSpec(range=(1.0, 80.0)),  # m: nothing outside the car is nearer; the lidar sees little beyond
    "steering": LabelSpec(),
}
