"""The small 3-D world of the synthetic A2D2: a winding road, what stands beside it and what moves on it.

Two coordinate systems, lengths in metres:

- the road's: station s along the centre line and lateral d, positive to the left;
- the camera's, as in the real lidar sweeps: x along the viewing direction, y left, z up, with the camera
  `CAMERA_HEIGHT_M` above the road. The car follows its lane, so the camera looks along the road's tangent.

Everything that stands or moves is made of convex parts (`Part`) and belongs to a `Row`: a conveyor belt along the road
whose slots are filled by a generator seeded with (scene, row, slot). So the world has no end and no memory: a moment
depends on the scene's seed and the time alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from datasets.synthetic.solids import (
    LABEL,
    VEHICLES,
    Colour,
    Maker,
    Placed,
    broadleaf,
    building,
    bush,
    conifer,
    cyclist,
    guard_rail,
    parked_car,
    pedestrian,
    pick,
    street_lamp,
    traffic_sign,
)

Real = TypeVar("Real", float, np.ndarray)

NODE_SPACING_M = 0.5  # between the points at which a centre line is tabulated
SIGHT_M = 180.0  # nothing stands beyond
TRAFFIC_SIGHT_M = 45.0  # as real labels do, boxes end where things are small
DASH_PERIOD_M, DASH_M = 9.0, 4.5
ZEBRA_PERIOD_M, ZEBRA_M = 170.0, 3.0
HALF_SECTION_M = 30.0  # how far the cross-section is tabulated on each side; grass beyond

# ---- the road -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Road:
    """A flat road whose heading is a sum of sines of the station.

    Since the heading stays within +-0.71 rad, the road never turns back on itself.
    """

    swing_rad: np.ndarray
    wave_number: np.ndarray  # 1/m
    phase_rad: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Road":
        wavelength_m = np.array([rng.uniform(150, 190), rng.uniform(90, 115), rng.uniform(58, 75)])
        swing = np.array([rng.uniform(0.18, 0.26), rng.uniform(0.17, 0.25), rng.uniform(0.12, 0.2)])
        return cls(swing, 2 * np.pi / wavelength_m, rng.uniform(0, 2 * np.pi, 3))

    def heading(self, station: Real) -> Real:
        """rad, positive to the left."""
        angles = np.multiply.outer(station, self.wave_number) + self.phase_rad
        return np.sin(angles) @ self.swing_rad

    def curvature(self, station: Real) -> Real:
        """1/m, positive to the left."""
        angles = np.multiply.outer(station, self.wave_number) + self.phase_rad
        return np.cos(angles) @ (self.swing_rad * self.wave_number)


class CentreLine:
    """The road's centre line as the camera sees it from `station`, `lateral` metres left of that line."""

    def __init__(self, road: Road, station: float, lateral: float):
        behind = int(20 / NODE_SPACING_M)
        nodes = np.arange(-behind, int((SIGHT_M + 40) / NODE_SPACING_M)) * NODE_SPACING_M
        heading = road.heading(station + nodes) - road.heading(station)
        middle = road.heading(station + nodes[:-1] + NODE_SPACING_M / 2) - road.heading(station)
        x = np.concatenate([[0], np.cumsum(np.cos(middle))]) * NODE_SPACING_M
        y = np.concatenate([[0], np.cumsum(np.sin(middle))]) * NODE_SPACING_M
        self.station = station + nodes
        self.x, self.y = x - x[behind], y - y[behind] - lateral
        self.heading = heading
        self._curvature = road.curvature(self.station)
        self._ahead = behind

    def place(self, station: float, lateral: float) -> tuple[float, float, float]:
        """Road coordinates -> x, y (m) and heading (rad) in the camera's frame."""
        x, y, heading = (np.interp(station, self.station, table) for table in (self.x, self.y, self.heading))
        return x - lateral * np.sin(heading), y + lateral * np.cos(heading), heading

    def locate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points on the ground -> station and lateral, float32 like x and y (N).

        Starts at the node that is as far from the camera as the point, then walks along the tangents.
        """
        nodes = self._nodes
        reach = np.hypot(self.x, self.y)[self._ahead :]
        nearest = np.searchsorted(reach, np.arange(0, reach[-1], NODE_SPACING_M)).astype(np.float32) + self._ahead
        steps = np.minimum(np.hypot(x, y) / NODE_SPACING_M, len(nearest) - 1).astype(np.int32)
        index = nearest[steps].astype(np.int32)
        for _ in range(2):
            along, lateral = self._offsets(nodes, index, x, y)
            index = np.clip(index + np.rint(along / NODE_SPACING_M).astype(np.int32), 0, len(self.x) - 1)
        along, lateral = self._offsets(nodes, index, x, y)
        lateral[np.abs(along) > 2] = HALF_SECTION_M  # a field beyond a bend's centre: no nearest point was found
        return nodes[5][index] + along, lateral

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, ...]:
        tables = self.x, self.y, np.cos(self.heading), np.sin(self.heading), self._curvature, self.station
        return tuple(table.astype(np.float32) for table in tables)

    @staticmethod
    def _offsets(nodes: tuple[np.ndarray, ...], index: np.ndarray, x: np.ndarray, y: np.ndarray):
        """From each point's node to the point: metres along the road and across it."""
        node_x, node_y, cos, sin, curvature, _ = nodes
        dx, dy = x - node_x[index], y - node_y[index]
        cos, sin = cos[index], sin[index]
        lateral = dy * cos - dx * sin
        stretch = np.maximum(1 - curvature[index] * lateral, 0.25)  # the inside of a bend is shorter
        return (dx * cos + dy * sin) / stretch, lateral


# ---- a scene ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A conveyor belt along the road: one slot every `spacing` m, filled with probability `chance`.

    `makers` are dealt to the slots like a deck of cards, shuffled anew each time: len(makers) slots in a row have each
    of them once, so that what is rare comes regularly, not by luck.
    """

    makers: tuple[Maker, ...]
    lateral: float
    spacing: float
    chance: float
    speed: float = 0.0  # m/s along the road; negative comes towards the camera
    turned: bool = False  # faces the other way
    scatter: float = 0.0  # m to both sides of `lateral`
    clearance: float = -15.0  # m ahead of the car within which there is nothing

    @property
    def is_traffic(self) -> bool:
        return self.makers[0] in TRAFFIC


TRAFFIC = (*VEHICLES, parked_car, pedestrian, cyclist)


@dataclass(frozen=True)
class Light:
    """Sun and air of a scene; colours are RGB 0-255."""

    sun: np.ndarray  # unit vector to the sun in the road's compass: x along heading 0
    ambient: float
    sunshine: float
    zenith: np.ndarray
    horizon: np.ndarray
    tint: np.ndarray  # the light's own colour, about 1

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Light":
        azimuth, elevation, clear = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.0), rng.uniform(0, 1)
        sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        grey, blue = np.array([168, 172, 180.0]), np.array([88, 138, 200.0])
        zenith = (1 - clear) * grey + clear * blue
        tint = np.array([1 + 0.06 * clear, 1.0, 1 - 0.06 * clear]) * rng.uniform(0.85, 1.1)
        return cls(sun, 0.86 - 0.28 * clear, 0.22 + 0.46 * clear, zenith, 0.35 * zenith + 0.65 * 225, tint)


class World:
    """A scene: its road, its cross-section, what lines it, its light, and the car's speed and lane."""

    def __init__(self, seed: tuple[int, ...]):
        """`seed`: integers, e.g. (seed, scene's index). Where the last is even the scene lies in a town."""
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.road = Road.random(rng)
        self.light = Light.random(rng)
        self.speed = rng.uniform(9.0, 13.0)  # m/s
        self.lane_width = rng.uniform(3.1, 3.7)
        self.lanes = int(rng.integers(1, 3))  # in each direction
        self.urban = seed[-1] % 2 == 0
        self.leaf: Colour = pick(rng, ((84, 112, 48), (66, 100, 44), (168, 112, 36), (110, 120, 50)))
        self.lateral = -(rng.integers(self.lanes) + 0.5) * self.lane_width  # of the car; right-hand traffic
        self.asphalt = rng.uniform(82, 125)
        self.sides = [self._side(rng) for _ in ("right", "left")]
        self.section = self._section(bool(rng.random() < 0.5))
        self.rows = list(self._rows(rng))

    def station(self, seconds: Real) -> Real:
        """Where the car is, metres along the road."""
        return 500.0 + self.speed * seconds

    def path_curvature(self, seconds: np.ndarray) -> np.ndarray:
        """Curvature (1/m, left positive) of the lane at the car."""
        curvature = self.road.curvature(self.station(seconds))
        return curvature / (1 - curvature * self.lateral)

    def _side(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """The strips of one side from the outer lane's edge outwards: label and width (m)."""
        strips = [("RD normal street", 0.3), ("Solid line", 0.18), ("RD normal street", rng.uniform(0.3, 0.8))]
        if self.urban and rng.random() < 0.6:
            strips.append(("Parking area", 2.3))
        if self.urban or rng.random() < 0.3:
            strips += [("Curbstone", 0.22), ("Nature object", rng.uniform(0.0, 1.5)), ("Sidewalk", rng.uniform(1.8, 3))]
        return strips

    def _section(self, divided: bool) -> np.ndarray:
        """Labels across the road (uint8), one per centimetre from -HALF_SECTION_M to +HALF_SECTION_M."""
        section = np.full(round(200 * HALF_SECTION_M) + 1, LABEL["Nature object"], np.uint8)

        def paint(start: float, width: float, name: str) -> None:
            section[round((start + HALF_SECTION_M) * 100) : round((start + width + HALF_SECTION_M) * 100)] = LABEL[name]

        edge = self.lanes * self.lane_width
        paint(-edge, 2 * edge, "RD normal street")
        for lane in range(1 - self.lanes, self.lanes):
            solid = lane == 0 and divided
            paint(lane * self.lane_width - 0.1, 0.2, "Solid line" if solid else "Dashed line")
        for way, strips in zip((-1, 1), self.sides, strict=True):
            start = edge
            for name, width in strips:
                paint(start if way > 0 else -start - width, width, name)
                start += width
        return section

    def ground(self, station: np.ndarray, lateral: np.ndarray) -> np.ndarray:
        """Labels (uint8) of points on the ground."""
        index = ((np.clip(lateral, -HALF_SECTION_M, HALF_SECTION_M) + HALF_SECTION_M) * 100).astype(np.int32)
        label = self.section[index]
        gap = (label == LABEL["Dashed line"]) & (station % DASH_PERIOD_M > DASH_M)
        label[gap] = LABEL["RD normal street"]
        zebra = (
            (station % ZEBRA_PERIOD_M < ZEBRA_M) & (np.abs(lateral) < self.lanes * self.lane_width)
            if self.urban
            else None
        )
        if zebra is not None:
            label[zebra] = LABEL["RD normal street"]
            label[zebra & (lateral % 1.0 < 0.5)] = LABEL["Zebra crossing"]
        return label

    def _rows(self, rng: np.random.Generator) -> Iterator[Row]:
        width = self.lane_width
        for lane in range(self.lanes):
            middle = (lane + 0.5) * width
            own = bool(np.isclose(-middle, self.lateral))
            pace = self.speed * (0.88 if own else rng.uniform(1.05, 1.25))
            yield Row(VEHICLES, -middle, 24, 0.6, pace, scatter=0.3, clearance=6 if own else -15)
            yield Row(VEHICLES, middle, 24, 0.5, -rng.uniform(8, 14), turned=True, scatter=0.3)
        for way, strips in zip((-1, 1), self.sides, strict=True):
            yield from self._roadside(rng, way, strips)

    def _roadside(self, rng: np.random.Generator, way: int, strips: list[tuple[str, float]]) -> Iterator[Row]:
        """Rows beside the road on one side (way: -1 right, 1 left); distances are from the centre line."""
        starts = self.lanes * self.lane_width + np.cumsum([0.0] + [strip_width for _, strip_width in strips])
        middle = {name: start + w / 2 for (name, w), start in zip(strips, starts[:-1], strict=True)}
        edge, turned = float(starts[-1]), way > 0
        if "Parking area" in middle:
            yield Row((parked_car,), way * middle["Parking area"], 6.4, 0.3, turned=turned)
        if "Sidewalk" in middle:
            yield Row((pedestrian,), way * middle["Sidewalk"], 13, 0.12, 1.3, scatter=0.6)
            yield Row((pedestrian,), way * middle["Sidewalk"], 17, 0.1, -1.2, turned=True, scatter=0.6)
        yield Row((cyclist,), way * (middle["Solid line"] + 0.1), 70, 0.36, -4.5 * way, turned=turned, clearance=4)
        furniture = street_lamp if self.urban else traffic_sign
        yield Row((furniture,), way * (edge + 0.4), 30, 0.9, turned=turned)
        yield Row((traffic_sign,), way * (edge + 0.6), 55, 0.6, turned=turned)
        if not self.urban and rng.random() < 0.5:
            yield Row((guard_rail,), way * (edge + 0.9), 4.0, 1.0)
        yield from self._backdrop(rng, way, edge)

    def _backdrop(self, rng: np.random.Generator, way: int, edge: float) -> Iterator[Row]:
        """Trees, bushes and, in town, buildings beyond the outermost strip."""
        trees = (lambda r: broadleaf(r, self.leaf)), (lambda r: conifer(r, self.leaf))
        bushes = lambda r: bush(r, self.leaf)  # noqa: E731
        if self.urban:
            yield Row((building,), way * (edge + rng.uniform(11, 14)), 19.5, rng.uniform(0.5, 0.95))
            yield Row((trees[0],), way * (edge + 3.2), 17, rng.uniform(0.2, 0.7), scatter=0.8)
            yield Row((bushes,), way * (edge + 2.2), 5, rng.uniform(0.1, 0.6), scatter=0.5)
            return
        main = trees[int(rng.random() < 0.4)]
        yield Row((main,), way * (edge + 5.0), 11, rng.uniform(0.3, 0.8), scatter=1.2)
        yield Row((trees[0],), way * (edge + 12.0), 10, rng.uniform(0.2, 0.8), scatter=3.0)
        yield Row((bushes,), way * (edge + 3.0), 6, rng.uniform(0.1, 0.5), scatter=1.0)

    def _maker(self, number: int, slot: int) -> Maker:
        """Which of a row's makers fills a slot."""
        makers = self.rows[number].makers
        deal, card = divmod(slot, len(makers))
        order = np.random.default_rng([*self.seed, number, deal + 1_000_000, 1]).permutation(len(makers))
        return makers[order[card]]

    def solids(self, seconds: float, centre_line: CentreLine, traffic: bool = True) -> list[Placed]:
        """What stands and moves near the camera at this moment, nearest first; without `traffic` nothing with a box."""
        placed = []
        for number, row in enumerate(self.rows):
            if row.is_traffic and not traffic:
                continue
            travelled, car_station = row.speed * seconds, self.station(seconds)
            sight = TRAFFIC_SIGHT_M if row.is_traffic else SIGHT_M
            first = int(np.floor((car_station - 15 - travelled) / row.spacing))
            last = int(np.ceil((car_station + sight - travelled) / row.spacing))
            for slot in range(first, last + 1):
                rng = np.random.default_rng([*self.seed, number, slot + 1_000_000])
                if rng.random() > row.chance:
                    continue
                solid, lateral = self._maker(number, slot)(rng), row.lateral + rng.uniform(-row.scatter, row.scatter)
                slack = max(row.spacing - solid.size[0] - 1, 0)  # so that neighbours never touch
                station = slot * row.spacing + travelled + rng.uniform(-0.5, 0.5) * slack
                ahead = station - solid.size[0] / 2 - car_station
                if not row.clearance < ahead < sight:
                    continue
                x, y, heading = centre_line.place(station, lateral)
                if abs(y) > 0.62 * x + 14:
                    continue  # beside the picture whatever its size
                placed.append(Placed(solid, float(x), float(y), float(heading + np.pi * row.turned)))
        return sorted(placed, key=lambda thing: np.hypot(thing.x, thing.y))
