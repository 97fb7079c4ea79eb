"""The classes of A2D2: 55 label colours that mean 38 semantic classes, and the 14 classes of the boxes."""

import re

import numpy as np

IGNORE = 255  # no class: a colour that is not in the list, or a pixel without a source in the raw image

# class_list.json of the data set, in its order
COLOURS = {
    "#ff0000": "Car 1",
    "#c80000": "Car 2",
    "#960000": "Car 3",
    "#800000": "Car 4",
    "#b65906": "Bicycle 1",
    "#963204": "Bicycle 2",
    "#5a1e01": "Bicycle 3",
    "#5a1e1e": "Bicycle 4",
    "#cc99ff": "Pedestrian 1",
    "#bd499b": "Pedestrian 2",
    "#ef59bf": "Pedestrian 3",
    "#ff8000": "Truck 1",
    "#c88000": "Truck 2",
    "#968000": "Truck 3",
    "#00ff00": "Small vehicles 1",
    "#00c800": "Small vehicles 2",
    "#009600": "Small vehicles 3",
    "#0080ff": "Traffic signal 1",
    "#1e1c9e": "Traffic signal 2",
    "#3c1c64": "Traffic signal 3",
    "#00ffff": "Traffic sign 1",
    "#1edcdc": "Traffic sign 2",
    "#3c9dc7": "Traffic sign 3",
    "#ffff00": "Utility vehicle 1",
    "#ffffc8": "Utility vehicle 2",
    "#e96400": "Sidebars",
    "#6e6e00": "Speed bumper",
    "#808000": "Curbstone",
    "#ffc125": "Solid line",
    "#400040": "Irrelevant signs",
    "#b97a57": "Road blocks",
    "#000064": "Tractor",
    "#8b636c": "Non-drivable street",
    "#d23273": "Zebra crossing",
    "#ff0080": "Obstacles / trash",
    "#fff68f": "Poles",
    "#960096": "RD restricted area",
    "#ccff99": "Animals",
    "#eea2ad": "Grid structure",
    "#212cb1": "Signal corpus",
    "#b432b4": "Drivable cobblestone",
    "#ff46b9": "Electronic traffic",
    "#eee9bf": "Slow drive area",
    "#93fdc2": "Nature object",
    "#9696c8": "Parking area",
    "#b496c8": "Sidewalk",
    "#48d1cc": "Ego car",
    "#c87dd2": "Painted driv. instr.",
    "#9f79ee": "Traffic guide obj.",
    "#8000ff": "Dashed line",
    "#ff00ff": "RD normal street",
    "#87ceff": "Sky",
    "#f1e6ff": "Buildings",
    "#60458f": "Blurred area",
    "#352e52": "Rain dirt",
}


def class_of(name: str) -> str:
    """The class that a listed name belongs to: 'Car 3' -> 'Car'. Instances are told apart by colour, not by class."""
    return re.sub(r" \d+$", "", name)


def rgb_of(colour: str) -> tuple[int, int, int]:
    """'#ff8000' -> (255, 128, 0)."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


# 38 names in order of first appearance; a class's index is its place here
SEMANTIC_CLASSES = tuple(dict.fromkeys(class_of(name) for name in COLOURS.values()))

# The set's paper (arXiv:2004.06320) evaluates 18 merged classes and a background. It does not list what is merged; the
# names are those of mmsegmentation's pull request 305, the assignment is ours.
MERGED_CLASSES = {
    "Road": (
        "RD normal street",
        "RD restricted area",
        "Drivable cobblestone",
        "Slow drive area",
        "Speed bumper",
        "Non-drivable street",
    ),
    "Sky": ("Sky",),
    "Nature": ("Nature object",),
    "Poles": ("Poles",),
    "Cars": ("Car",),
    "Lane lines": ("Solid line", "Dashed line", "Zebra crossing", "Painted driv. instr."),
    "Buildings": ("Buildings",),
    "Irrelevant": ("Irrelevant signs",),
    "Traffic info": (
        "Traffic signal",
        "Traffic sign",
        "Signal corpus",
        "Electronic traffic",
        "Traffic guide obj.",
    ),
    "Curbstones": ("Curbstone",),
    "Sidewalk": ("Sidewalk",),
    "Trucks": ("Truck", "Utility vehicle", "Tractor"),
    "Grid structure": ("Grid structure", "Sidebars"),
    "Obstacles": ("Obstacles / trash", "Road blocks", "Animals"),
    "Pedestrians": ("Pedestrian",),
    "Ego car": ("Ego car",),
    "Small traffic participants": ("Bicycle", "Small vehicles"),
    "Parking area": ("Parking area",),
    "Background": ("Blurred area", "Rain dirt"),
}

BOX_CLASSES = (
    "Car",
    "Pedestrian",
    "Truck",
    "VanSUV",
    "Cyclist",
    "Bus",
    "MotorBiker",
    "Bicycle",
    "UtilityVehicle",
    "Motorcycle",
    "CaravanTransporter",
    "Animal",
    "Trailer",
    "EmergencyVehicle",
)


# a colour for each class of boxes in pictures, in the order above
BOX_COLOURS = (
    "#1f77b4",
    "#d62728",
    "#ff7f0e",
    "#17becf",
    "#e377c2",
    "#bcbd22",
    "#9467bd",
    "#f7b6d2",
    "#8c564b",
    "#c5b0d5",
    "#98df8a",
    "#2ca02c",
    "#ffbb78",
    "#c7c7c7",
)

# processed kind -> the classes that its labels refer to by index or by name
CLASSES_OF_KIND = {"segmentation": SEMANTIC_CLASSES, "box": BOX_CLASSES}


def merged_of_class() -> np.ndarray:
    """uint8 256: the merged class of each semantic class, by their places in the lists; IGNORE stays."""
    table = np.full(256, IGNORE, np.uint8)
    for index, members in enumerate(MERGED_CLASSES.values()):
        table[[SEMANTIC_CLASSES.index(name) for name in members]] = index
    return table


def palette() -> np.ndarray:
    """uint8 256 x 3: the colour of each class, that of its first instance in A2D2's list; black where no class is."""
    colours = np.zeros((256, 3), np.uint8)
    for colour, name in reversed(COLOURS.items()):
        colours[SEMANTIC_CLASSES.index(class_of(name))] = rgb_of(colour)
    return colours


def class_colours() -> list[str]:
    """The colour of each class, '#ff0000', that of its first instance in A2D2's list."""
    first = {class_of(name): colour for colour, name in reversed(COLOURS.items())}
    return [first[name] for name in SEMANTIC_CLASSES]


def colour_table() -> np.ndarray:
    """uint8 table of 2^24 entries: class of the colour R | G << 8 | B << 16, IGNORE for every unlisted colour."""
    table = np.full(1 << 24, IGNORE, np.uint8)
    for colour, name in COLOURS.items():
        red, green, blue = rgb_of(colour)
        table[red | green << 8 | blue << 16] = SEMANTIC_CLASSES.index(class_of(name))
    return table
