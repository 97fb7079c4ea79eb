"""What stands and moves in the synthetic world: vehicles, people, trees, houses, made of convex parts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datasets.a2d2.classes import COLOURS, class_of

CAMERA_HEIGHT_M = 1.65  # above the road

LABELS = tuple(COLOURS.values())  # a label is an index into these names: 'Car 1', 'Car 2', ..., 'Rain dirt'
LABEL = {name: index for index, name in enumerate(LABELS)}
INSTANCES = Counter(map(class_of, LABELS))  # how many colours a class has

Colour = tuple[float, float, float]  # RGB, 0-255


# The class that the mask shows of a thing with a box, for each class of boxes in this world. class_list.json has names
# for six of the eight; so two pairs that the boxes tell apart look alike in the mask, and no choice of names helps:
# - VanSUV is Car: A2D2's own labels paint vans and SUVs so (a delivery van in 20180807_145028, frame 6882, an SUV in
#   20181108_091945, frame 22360).
# - Bus is Utility vehicle: a bus is a commercial vehicle and carries no goods as a truck does. None of the real labels
#   at hand shows one, so how A2D2 paints buses is not known here.
# Cyclist and MotorBiker, rider included, have the name of what they ride; the list calls motorcycles small vehicles.
MASK_OF_BOX = {
    "Car": "Car",
    "VanSUV": "Car",
    "Truck": "Truck",
    "Bus": "Utility vehicle",
    "Pedestrian": "Pedestrian",
    "Cyclist": "Bicycle",
    "MotorBiker": "Small vehicles",
    "UtilityVehicle": "Utility vehicle",
}

FRONT, REAR, LEFT, RIGHT, TOP, BOTTOM = range(6)


@dataclass(frozen=True)
class Part:
    """A convex piece of a solid, in the solid's frame: x forward, y left, z up from the ground.

    A block narrows with height: its front, rear and sides lean inwards by `lean` metres per metre. A rounded part is
    the ellipsoid inside the block, `ragged` (0-1) by its leaves.
    """

    label: int
    colour: Colour
    centre: tuple[float, float]  # x, y
    half: tuple[float, float]  # half length and half width at the bottom
    bottom: float
    height: float
    lean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # front, rear, sides
    rounded: bool = False
    ragged: float = 0.0
    finish: str = "plain"  # how it is painted: a key of synthetic_paint.FINISHES

    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Outward normals (6 x 3, not normalised) and offsets (6): inside is normal . p <= offset."""
        (x, y), (length, width), (front, rear, side) = self.centre, self.half, self.lean
        normals = np.array(
            [(1, 0, front), (-1, 0, rear), (0, 1, side), (0, -1, side), (0, 0, 1), (0, 0, -1)], dtype=float
        )
        bases = np.array([(x + length, y), (x - length, y), (x, y + width), (x, y - width), (x, y), (x, y)])
        heights = np.array([self.bottom] * 4 + [self.bottom + self.height, self.bottom])
        return normals, (normals * np.column_stack([bases, heights])).sum(1)

    def corners(self) -> np.ndarray:
        """Points (N x 3) whose hull is the part: 8 corners, or points on the ellipsoid."""
        (x, y), (length, width), (front, rear, side) = self.centre, self.half, self.lean
        if self.rounded:
            radii = np.array([length, width, self.height / 2])
            return SPHERE * radii + (x, y, self.bottom + self.height / 2)
        corners = []
        for rise in (0.0, self.height):
            for end in (length - front * rise, -length + rear * rise):
                corners += [(x + end, y + way * (width - side * rise), self.bottom + rise) for way in (-1, 1)]
        return np.array(corners)


def _sphere_points() -> np.ndarray:
    elevation, azimuth = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 13), np.linspace(0, 2 * np.pi, 24, False))
    ring = np.cos(elevation)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), np.sin(elevation)], -1).reshape(-1, 3)


SPHERE = _sphere_points()


@dataclass(frozen=True)
class Solid:
    """A thing made of parts. With a `box_class` it gets a 3-D box of `size` (length, width, height)."""

    parts: tuple[Part, ...]
    box_class: str | None = None
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Placed:
    """A solid in the camera's frame: x, y (m) of its centre on the ground, heading (rad, 0 = away from the camera)."""

    solid: Solid
    x: float
    y: float
    heading: float

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Points (N x 3) of the solid's frame in the camera's."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        x, y, z = points.T
        return np.column_stack([self.x + cos * x - sin * y, self.y + sin * x + cos * y, z - CAMERA_HEIGHT_M])

    def camera_position(self) -> np.ndarray:
        """The camera (3) in the solid's frame."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.array([-cos * self.x - sin * self.y, sin * self.x - cos * self.y, CAMERA_HEIGHT_M])


Maker = Callable[[np.random.Generator], Solid]

PAINTS: tuple[Colour, ...] = (
    *((196, 30, 28), (28, 62, 150), (235, 235, 232), (40, 40, 44), (150, 154, 160), (222, 180, 30), (30, 110, 60)),
    *((110, 28, 40), (70, 130, 190), (210, 100, 30), (90, 80, 70), (245, 245, 250)),
)


def pick(rng: np.random.Generator, options: tuple) -> Colour:
    return options[rng.integers(len(options))]


def _shade(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = np.clip(np.array(colour) * rng.uniform(1 - spread, 1 + spread), 0, 255).tolist()
    return red, green, blue


def _instance(rng: np.random.Generator, name: str) -> int:
    """One of the colours that tell instances of a class apart: 'Car 1' ... 'Car 4'."""
    return LABEL[f"{name} {rng.integers(INSTANCES[name]) + 1}"]


def _mask(rng: np.random.Generator, box_class: str) -> int:
    """The label of a thing with a box."""
    return _instance(rng, MASK_OF_BOX[box_class])


def _body(label: int, colour: Colour, length: float, width: float, height: float) -> Part:
    return Part(label, colour, (0, 0), (length / 2, width / 2), 0.0, height, (0.06, 0.04, 0.03), finish="bodywork")


def car(rng: np.random.Generator) -> Solid:
    length, width, height = rng.uniform(3.7, 4.7), rng.uniform(1.72, 1.9), rng.uniform(1.4, 1.55)
    label, paint, waist = _mask(rng, "Car"), pick(rng, PAINTS), 0.58 * height
    cabin = (rng.uniform(-0.13, -0.06) * length, 0.0), (0.29 * length, width / 2 - 0.06)
    parts = (
        _body(label, paint, length, width, waist),
        Part(label, paint, *cabin, waist, height - waist, (0.75, 0.45, 0.25), finish="cabin"),
    )
    return Solid(parts, "Car", (length, width, height))


def van(rng: np.random.Generator) -> Solid:
    length, width, height = rng.uniform(4.4, 5.2), rng.uniform(1.9, 2.05), rng.uniform(1.75, 2.2)
    label, paint, waist = _mask(rng, "VanSUV"), pick(rng, PAINTS), 0.5 * height
    cabin = (-0.09 * length, 0.0), (0.4 * length, width / 2 - 0.05)
    parts = (
        _body(label, paint, length, width, waist),
        Part(label, paint, *cabin, waist, height - waist, (0.6, 0.08, 0.1), finish="cabin"),
    )
    return Solid(parts, "VanSUV", (length, width, height))


def truck(rng: np.random.Generator) -> Solid:
    length, width, height = rng.uniform(7.0, 10.0), rng.uniform(2.3, 2.5), rng.uniform(3.0, 3.7)
    label, paint, cab = _mask(rng, "Truck"), pick(rng, PAINTS), 2.0
    cab_centre, cargo_length = (length / 2 - cab / 2, 0.0), length - cab - 0.15
    cargo_centre, lorry = (-length / 2 + cargo_length / 2, 0.0), _shade(rng, (205, 205, 200), 0.15)
    parts = (
        Part(label, (45, 45, 48), (0, 0), (length / 2, width / 2 - 0.1), 0, 0.95, finish="bodywork"),
        Part(
            label, paint, cab_centre, (cab / 2, width / 2 - 0.05), 0.5, 0.78 * height - 0.5, (0.1, 0, 0), finish="cabin"
        ),
        Part(label, lorry, cargo_centre, (cargo_length / 2, width / 2), 0.95, height - 0.95, finish="cargo"),
    )
    return Solid(parts, "Truck", (length, width, height))


def bus(rng: np.random.Generator) -> Solid:
    length, width, height = rng.uniform(9.0, 12.0), 2.5, rng.uniform(2.9, 3.2)
    label, paint = _mask(rng, "Bus"), pick(rng, PAINTS)
    parts = (
        _body(label, paint, length, width, 1.2),
        Part(
            label,
            paint,
            (0, 0),
            (length / 2 - 0.07, width / 2 - 0.04),
            1.2,
            height - 1.2,
            (0.05, 0.02, 0.02),
            finish="cabin",
        ),
    )
    return Solid(parts, "Bus", (length, width, height))


def _person(label: int, rng: np.random.Generator, height: float, bottom: float = 0.0) -> tuple[Part, ...]:
    """Legs, coat and head; `height` is the top of the head, `bottom` where the legs start."""
    hip, shoulder = bottom + 0.47 * (height - bottom), bottom + 0.86 * (height - bottom)
    coat, trousers = pick(rng, PAINTS), _shade(rng, (60, 62, 80), 0.5)
    return (
        Part(label, trousers, (0, 0), (0.14, 0.17), bottom, hip - bottom, (0, 0, -0.02)),
        Part(label, coat, (0, 0), (0.17, 0.27), hip, shoulder - hip, (0, 0, 0.12)),
        Part(label, (205, 160, 130), (0, 0), (0.12, 0.1), shoulder - 0.03, height - shoulder + 0.03, rounded=True),
    )


def pedestrian(rng: np.random.Generator) -> Solid:
    height = rng.uniform(1.5, 1.92)
    return Solid(_person(_mask(rng, "Pedestrian"), rng, height), "Pedestrian", (0.36, 0.56, height))


def _two_wheeler(rng: np.random.Generator, box_class: str, length: float, width: float) -> Solid:
    label, height, frame = _mask(rng, box_class), rng.uniform(1.65, 1.85), pick(rng, PAINTS)
    wheels = tuple(
        Part(label, (25, 25, 25), (way * (length / 2 - 0.33), 0), (0.33, width / 10), 0, 0.66, rounded=True)
        for way in (-1, 1)
    )
    beam = Part(label, frame, (0, 0), (length / 4, width / 8), 0.4, 0.5)
    return Solid((*wheels, beam, *_person(label, rng, height, 0.45)), box_class, (length, 0.56, height))


def cyclist(rng: np.random.Generator) -> Solid:
    return _two_wheeler(rng, "Cyclist", 1.75, 0.5)


def motor_biker(rng: np.random.Generator) -> Solid:
    return _two_wheeler(rng, "MotorBiker", 2.1, 1.4)


def utility_vehicle(rng: np.random.Generator) -> Solid:
    length, width, height, label = 5.5, 2.2, 2.7, _mask(rng, "UtilityVehicle")
    parts = (
        _body(label, (225, 130, 20), length, width, 1.3),
        Part(label, (225, 130, 20), (0.9, 0), (0.8, 0.9), 1.3, height - 1.3, (0.2, 0.1, 0.05), finish="cabin"),
    )
    return Solid(parts, "UtilityVehicle", (length, width, height))


# What drives on the road, dealt like cards: each class often enough for the demo's validation split to measure it.
# Motorcycles once more, since they vanish behind other things most easily.
VEHICLES: tuple[Maker, ...] = (*(car,) * 7, *(van, truck, bus, motor_biker, utility_vehicle) * 2, motor_biker)


def parked_car(rng: np.random.Generator) -> Solid:
    return (van if rng.random() < 0.15 else car)(rng)


def broadleaf(rng: np.random.Generator, leaf: Colour) -> Solid:
    label, height, radius = LABEL["Nature object"], rng.uniform(5.5, 11.0), rng.uniform(1.6, 2.8)
    leaf, stem = _shade(rng, leaf, 0.25), 0.3 * height
    crowns = [((0.0, 0.0), radius, stem, height - stem)]
    for turn in rng.uniform(0, 2 * np.pi, 2):
        centre = (0.55 * radius * np.cos(turn), 0.55 * radius * np.sin(turn))
        crowns.append((centre, 0.75 * radius, stem * rng.uniform(0.85, 1.3), 0.55 * height))
    trunk = Part(label, (74, 58, 44), (0, 0), (0.17, 0.17), 0, stem + 1, (0.02, 0.02, 0.02))
    return Solid((trunk, *(
        Part(label, leaf, centre, (r, r), bottom, tall, rounded=True, ragged=0.35, finish="foliage")
        for centre, r, bottom, tall in crowns
    )))  # fmt: skip


def conifer(rng: np.random.Generator, leaf: Colour) -> Solid:
    label, height, leaf = LABEL["Nature object"], rng.uniform(7, 13), _shade(rng, (38, 62, 40), 0.3)
    tiers = []
    for start, width in ((0.1, 0.2), (0.35, 0.15), (0.6, 0.1)):
        half, tall = width * height, height * (0.45 if start < 0.5 else 0.4)
        lean = (half - 0.05) / tall
        tiers.append(Part(label, leaf, (0, 0), (half, half), start * height, tall, (lean,) * 3, finish="foliage"))
    return Solid((Part(label, (70, 52, 40), (0, 0), (0.16, 0.16), 0, 0.12 * height), *tiers))


def bush(rng: np.random.Generator, leaf: Colour) -> Solid:
    radius, tall = rng.uniform(0.7, 1.6), rng.uniform(0.9, 2.0)
    leaf = _shade(rng, leaf, 0.3)
    part = Part(LABEL["Nature object"], leaf, (0, 0), (radius, radius), -0.25, tall, rounded=True, ragged=0.3)
    return Solid((replace(part, finish="foliage"),))


WALLS = ((190, 182, 168), (170, 120, 95), (205, 195, 150), (150, 152, 156), (222, 218, 210), (160, 90, 72))


def building(rng: np.random.Generator) -> Solid:
    label, wall = LABEL["Buildings"], _shade(rng, pick(rng, WALLS), 0.12)
    half, eaves = (rng.uniform(5, 9), rng.uniform(4, 6)), rng.uniform(5, 14)
    parts = [Part(label, wall, (0, 0), half, 0, eaves, finish="facade")]
    if rng.random() < 0.65:
        roof = half[0] + 0.3, half[1] + 0.4
        parts.append(Part(label, _shade(rng, (130, 62, 48), 0.3), (0, 0), roof, eaves, 0.7 * half[1], (0, 0, 1.4)))
    return Solid(tuple(parts), size=(2 * half[0], 2 * half[1], eaves))


def street_lamp(rng: np.random.Generator) -> Solid:
    pole, lamp, height = LABEL["Poles"], LABEL["Electronic traffic"], rng.uniform(6.5, 8)
    return Solid((
        Part(pole, (120, 124, 126), (0, 0), (0.08, 0.08), 0, height),
        Part(pole, (120, 124, 126), (0, 0.7), (0.05, 0.75), height - 0.1, 0.1),
        Part(lamp, (225, 225, 215), (0, 1.4), (0.12, 0.35), height - 0.2, 0.16),
    ))  # fmt: skip


def traffic_sign(rng: np.random.Generator) -> Solid:
    pole, sign, height = LABEL["Poles"], _instance(rng, "Traffic sign"), rng.uniform(2.4, 3)
    rim = pick(rng, ((200, 30, 30), (30, 70, 190), (240, 200, 30)))
    parts = (
        Part(pole, (135, 138, 140), (0, 0), (0.05, 0.05), 0, height),
        Part(sign, rim, (-0.1, 0), (0.03, 0.38), height - 0.75, 0.75, finish="sign"),
    )
    return Solid(parts)


def guard_rail(rng: np.random.Generator) -> Solid:
    label = LABEL["Sidebars"]
    rail = Part(label, (150, 154, 158), (0, 0), (2.05, 0.06), 0.42, 0.33)
    return Solid((rail, Part(label, (120, 122, 126), (0, 0), (0.07, 0.07), 0, 0.42)), size=(4.1, 0.14, 0.75))
