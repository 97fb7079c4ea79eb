"""Looks at the synthetic world: through the camera, distortion included, and along the lidars' rings.

Rays are written as slopes: the ray (1, left, up) of the camera's frame meets a surface at depth x, where its
*nearness* 1 / x (1/m) is what all tests here work with. The nearness of a plane is affine in the slopes, so a convex
part is cut out of a picture with a handful of multiplications per pixel; the largest nearness is what the camera sees.
The lidars look from the camera's own place: nothing that they hit is hidden from the camera.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.a2d2.geometry import Calibration
from datasets.synthetic.paint import FINISHES, texture_at
from datasets.synthetic.solids import BOTTOM, CAMERA_HEIGHT_M, LABEL, LABELS, Part, Placed, car
from datasets.synthetic.world import CentreLine, Light, World

CLIP_M = 0.3  # nothing nearer than this is seen
LIDAR_RANGE_M = 105.0
HAZE_M = 260.0  # distance at which haze has taken 63 % of a colour
SKYLINE_M = 600.0
NOISE = 3.0  # standard deviation of the sensor's noise, of 255

CUBE = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])

Slopes = np.ndarray  # float32, any shape
Window = tuple[slice, slice]  # rows, columns


class Camera:
    """The rays of a distorted image's pixels, made once per process."""

    def __init__(self, calibration: Calibration):
        self.calibration = calibration
        width, height = calibration.resolution
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 1, 2).astype(np.float64)
        steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-7)
        matrix, distortion = np.array(calibration.distorted), np.array(calibration.distortion)
        straight = cv2.undistortImagePoints(pixels, matrix, distortion, None, steps).reshape(height, width, 2)
        self.left = ((matrix[0, 2] - straight[..., 0]) / matrix[0, 0]).astype(np.float32)
        self.up = ((matrix[1, 2] - straight[..., 1]) / matrix[1, 1]).astype(np.float32)
        self._field = np.array([(slopes.min(), slopes.max()) for slopes in (self.left, self.up)])
        self.ground = np.flatnonzero(self.up < -CAMERA_HEIGHT_M / SKYLINE_M)  # pixels that look down at the ground
        slopes = self.left.ravel()[self.ground], self.up.ravel()[self.ground]
        self.ground_x = -CAMERA_HEIGHT_M / slopes[1]
        self.ground_y = self.ground_x * slopes[0]
        self.noise = np.random.default_rng(0).normal(0, NOISE, (height + 64, width + 64)).astype(np.float32)

    def window(self, extent: np.ndarray) -> Window | None:
        """Rows and columns that hold all rays of an extent (see PlacedPart); None if it lies outside the picture."""
        low, high = np.maximum(extent[:, 0], self._field[:, 0]), np.minimum(extent[:, 1], self._field[:, 1])
        if (low > high).any():
            return None
        # barrel distortion: a rectangle's extremes lie at its corners or where it crosses the axes
        xs, ys = np.stack([-low, -np.clip(0, low, high), -high], 1)
        col, row = self.distort(np.repeat(xs, 3), np.tile(ys, 3))
        height, width = self.left.shape
        top, bottom = max(int(row.min()), 0), min(int(row.max()) + 2, height)
        start, stop = max(int(col.min()), 0), min(int(col.max()) + 2, width)
        return (slice(top, bottom), slice(start, stop)) if top < bottom and start < stop else None

    def distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised positions -> pixels of the distorted image."""
        points = np.stack([x, y, np.ones(len(x))], -1)
        matrix, distortion = np.array(self.calibration.distorted), np.array(self.calibration.distortion)
        pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, distortion)
        return pixels[:, 0, 0], pixels[:, 0, 1]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (N x 3, camera's frame) -> column and row (float, N) of the UNDISTORTED image.

        Points behind the camera are taken at CLIP_M, so that what stands beside the camera reaches far outside.
        """
        (fx, _, cx), (_, fy, cy), _ = self.calibration.undistorted
        x = np.maximum(points[:, 0], CLIP_M)
        return cx - fx * points[:, 1] / x, cy - fy * points[:, 2] / x


# ---- rays and parts -----------------------------------------------------------------------------------------


class PlacedPart:
    """A part where it stands: everything that does not depend on the ray.

    `index` is its solid's in the moment; `extent` bounds the rays that can hit it: slopes (left, up) x (low, high).
    """

    def __init__(self, placed: Placed, part: Part, index: int):
        self.part, self.placed, self.index = part, placed, index
        self.cos, self.sin = np.cos(placed.heading), np.sin(placed.heading)
        self.camera = placed.camera_position()
        self.extent = _extent(placed.to_camera(_bounds(part)))
        if not part.rounded:
            normals, offsets = part.planes()
            margin = offsets - normals @ self.camera  # negative: the camera is on the outer side
            margin[np.abs(margin) < 1e-6] = 1e-6
            x, y, z = normals.T
            # nearness of each plane = (constant, per left slope, per up slope)
            self.planes = np.column_stack([x * self.cos - y * self.sin, x * self.sin + y * self.cos, z])
            self.planes = (self.planes / margin[:, None]).astype(np.float32)
            self.facing = np.flatnonzero(margin < 0)
            self.averted = np.flatnonzero(margin > 0)

    def nearness(self, left: Slopes, up: Slopes) -> np.ndarray:
        """1 / depth (1/m) where the rays enter the part, 0 where they miss it."""
        return self._ellipsoid(left, up) if self.part.rounded else self._block(left, up)

    def _block(self, left: Slopes, up: Slopes) -> np.ndarray:
        if not len(self.facing):
            return np.zeros_like(left)  # the camera is inside
        entry = _affine(self.planes[self.facing[0]], left, up)
        for plane in self.facing[1:]:
            np.minimum(entry, _affine(self.planes[plane], left, up), out=entry)
        leave = _affine(self.planes[self.averted[0]], left, up)
        for plane in self.averted[1:]:
            np.maximum(leave, _affine(self.planes[plane], left, up), out=leave)
        entry[(entry < leave) | (entry > 1 / CLIP_M)] = 0
        return np.maximum(entry, 0, out=entry)

    def _ellipsoid(self, left: Slopes, up: Slopes) -> np.ndarray:
        """Solves a w^2 + 2 b w + c = 0 for the nearness w, in coordinates where the ellipsoid is the unit sphere."""
        part = self.part
        radii = np.array([*part.half, part.height / 2])
        origin = (self.camera - (*part.centre, part.bottom + part.height / 2)) / radii
        a = np.float32(origin @ origin - 1)
        if a <= 0:
            return np.zeros_like(left)
        x = np.float32(self.cos / radii[0]) + np.float32(self.sin / radii[0]) * left
        y = np.float32(-self.sin / radii[1]) + np.float32(self.cos / radii[1]) * left
        z = up / np.float32(radii[2])
        b = np.float32(origin[0]) * x + np.float32(origin[1]) * y + np.float32(origin[2]) * z
        c = x * x + y * y + z * z
        inside = b * b - a * c
        if part.ragged:  # twigs only change what happens near the rim
            rim = np.abs(inside) < 0.5 * part.ragged * c
            inside[rim] += np.float32(part.ragged) * self._leaves(left[rim], up[rim]) * c[rim]
        return np.where((inside > 0) & (b < 0), (np.sqrt(np.maximum(inside, 0)) - b) / a, np.float32(0))

    def _leaves(self, left: Slopes, up: Slopes) -> np.ndarray:
        """Waves of about a metre and a third of a metre across the crown, -0.5 to 0.5."""
        distance = np.float32(np.hypot(self.placed.x, self.placed.y))
        phase = np.float32(7 * self.part.height)
        across, along = left * (5 * distance) + phase, up * (5 * distance)
        coarse = np.sin(across) * np.sin(along + np.sin(across))
        return np.float32(0.3) * coarse + np.float32(0.2) * np.sin(3.1 * across + along) * np.sin(2.7 * along)

    def local(self, left: Slopes, up: Slopes, depth: np.ndarray) -> np.ndarray:
        """Where the rays (N) are at `depth`, in the solid's frame: 3 x N."""
        x = self.cos + self.sin * left
        y = -self.sin + self.cos * left
        return self.camera[:, None].astype(np.float32) + np.stack([x, y, up]).astype(np.float32) * depth

    def faces(self, left: Slopes, up: Slopes) -> np.ndarray:
        """Which face of a block each ray (N) enters."""
        entries = np.stack([_affine(self.planes[plane], left, up) for plane in self.facing])
        return self.facing[np.argmin(entries, 0)]

    def normals(self, left: Slopes, up: Slopes, points: np.ndarray) -> np.ndarray:
        """Unit normals (3 x N, solid's frame) at the points (3 x N) where the rays enter."""
        part = self.part
        if part.rounded:
            centre = np.array([*part.centre, part.bottom + part.height / 2])
            radii = np.array([*part.half, part.height / 2])
            normals = (points - centre[:, None]) / (radii**2)[:, None]
            return normals / np.linalg.norm(normals, axis=0)
        planes, _ = part.planes()
        planes /= np.linalg.norm(planes, axis=1, keepdims=True)
        return planes[self.faces(left, up)].T


def _bounds(part: Part) -> np.ndarray:
    """Eight points around everything that the part can cover."""
    (x, y), (length, width) = part.centre, part.half
    spare = 1 + part.ragged
    grow = np.array([spare, spare + max(-part.lean[2], 0) * part.height / width, 1])
    half = np.array([length, width, part.height / 2 * spare]) * grow
    return CUBE * half + (x, y, part.bottom + part.height / 2)


def _extent(points: np.ndarray) -> np.ndarray:
    """Slopes to the left and up (2 x low, high) under which the space between the points (N x 3) is seen."""
    low, high = points.min(0), points.max(0)
    if high[0] <= CLIP_M:
        return np.array([(np.inf, -np.inf)] * 2)  # behind the camera
    near, far = max(low[0], CLIP_M), high[0]
    return np.column_stack([low[1:] / np.where(low[1:] > 0, far, near), high[1:] / np.where(high[1:] > 0, near, far)])


def _affine(plane: np.ndarray, left: Slopes, up: Slopes) -> np.ndarray:
    value = plane[1] * left
    value += plane[2] * up
    value += plane[0]
    return value


# ---- pictures ------------------------------------------------------------------------------------------------

# label -> RGB of the ground at full light, strength of its grain
GROUND = {
    "RD normal street": ((1.0, 1.0, 1.02), 0.05),  # times the scene's asphalt
    "Parking area": ((112, 108, 106), 0.06),
    "Solid line": ((232, 232, 226), 0.04),
    "Dashed line": ((232, 232, 226), 0.04),
    "Zebra crossing": ((226, 226, 220), 0.04),
    "Curbstone": ((186, 184, 178), 0.05),
    "Sidewalk": ((160, 150, 142), 0.07),
}


@dataclass
class View:
    """What the camera sees at one moment. Images are H x W in the distorted geometry of the camera's PNGs."""

    colour: np.ndarray  # uint8 H x W x 3 RGB
    label: np.ndarray  # uint8 H x W, indices into LABELS
    nearness: np.ndarray  # float32 H x W, 1/m, 0 = nothing within reach
    visible: np.ndarray  # pixels that show each of the moment's solids
    uncovered: np.ndarray  # pixels that each would cover if nothing stood before it; 0 for those without a box


class Moment:
    """The world at one time, in the camera's frame: what pictures and sweeps are taken of."""

    def __init__(self, world: World, seconds: float, traffic: bool = True, overtaken: bool = False):
        """Without `traffic` the road is empty; `overtaken` puts a car beside the camera, partly out of its sight."""
        self.world = world
        self.station = world.station(seconds)
        self.heading = float(world.road.heading(self.station))
        self.centre_line = CentreLine(world.road, self.station, world.lateral)
        self.solids = world.solids(seconds, self.centre_line, traffic)
        if overtaken:
            self.solids = [thing for thing in self.solids if not thing.solid.box_class or thing.x > 12]
            self.solids.insert(0, Placed(car(np.random.default_rng(world.seed)), 3.8, world.lane_width, 0.0))
        self.parts = [PlacedPart(at, part, index) for index, at in enumerate(self.solids) for part in at.solid.parts]

    def view(self, camera: Camera, noise_seed: int | list[int]) -> View:
        """Renders the moment; `noise_seed` chooses the sensor's noise."""
        shape = camera.left.shape
        picture = _Picture(camera, self.world.light, self.heading)
        self._draw_sky(picture)
        self._draw_ground(picture)
        uncovered = np.zeros(len(self.solids), np.int64)
        for part in self.parts:
            uncovered[part.index] += picture.draw(part)
        visible = np.bincount(picture.owner[picture.owner >= 0], minlength=len(self.solids))
        row, col = np.random.default_rng(noise_seed).integers(0, 64, 2)
        blurred = cv2.GaussianBlur(picture.colour, (3, 3), 0.5)  # the lens
        noisy = blurred + camera.noise[row : row + shape[0], col : col + shape[1], None]
        colour = np.clip(noisy, 0, 255).astype(np.uint8)
        return View(colour, picture.label, picture.nearness, visible, uncovered)

    def cast(self, left: Slopes, up: Slopes) -> tuple[np.ndarray, np.ndarray]:
        """Rays (N) -> nearness (float32 N, 0 = nothing) and label (uint8 N) of what they hit first."""
        nearness = np.maximum(-up / np.float32(CAMERA_HEIGHT_M), 0)
        label = np.full(left.shape, LABEL["Sky"], np.uint8)
        ground = np.flatnonzero(nearness > 1 / LIDAR_RANGE_M)
        x = 1 / nearness[ground]
        label[ground] = self.world.ground(*self.centre_line.locate(x, x * left[ground]))
        for stands in self.parts:
            (right, leftmost), (lowest, highest) = stands.extent
            rays = np.flatnonzero((left >= right) & (left <= leftmost) & (up >= lowest) & (up <= highest))
            hit = stands.nearness(left[rays], up[rays])
            nearer = hit > nearness[rays]
            nearness[rays[nearer]], label[rays[nearer]] = hit[nearer], stands.part.label
        return nearness, label

    def _draw_ground(self, picture: "_Picture") -> None:
        camera, world = picture.camera, self.world
        station, lateral = self.centre_line.locate(camera.ground_x, camera.ground_y)
        label = world.ground(station, lateral)
        nature = np.array(world.leaf, np.float32) * 0.75 + 28
        table, strength = np.tile(nature, (len(LABELS), 1)), np.full(len(LABELS), 0.12, np.float32)
        for name, (colour, grain) in GROUND.items():
            table[LABEL[name]] = np.array(colour) * (world.asphalt if name == "RD normal street" else 1)
            strength[LABEL[name]] = grain
        fade = 1 / (1 + camera.ground_x / 25)
        grain = texture_at(station, lateral, 30) * fade + 0.6 * texture_at(station, lateral, 2)
        light = self._sunlight(np.array([0, 0, 1.0])) * (1 + strength[label] * grain)
        light[picture.shadows(self.solids, world.light.sun, self.heading)] *= 0.55
        colours = np.take(table.astype(np.float32), label, 0)
        colours *= light[:, None]
        picture.put(camera.ground, 1 / camera.ground_x, label, colours)

    def _sunlight(self, normal: np.ndarray) -> float:
        light = self.world.light
        return light.ambient + light.sunshine * max(float(normal @ light.sun), 0)

    def _draw_sky(self, picture: "_Picture") -> None:
        """Clouds on a gradient, and far hills or roofs along the horizon."""
        camera, light = picture.camera, self.world.light
        height, width = camera.left.shape
        step = max(width // 160, 1)
        left, up = camera.left[::step, ::step], camera.up[::step, ::step]
        rise = np.clip(up / 0.42, 0, 1)[..., None] ** 0.7
        clouds = _clouds(left + self.heading, up)
        sky = (light.horizon * (1 - rise) + light.zenith * rise + 26 * clouds[..., None] * rise).astype(np.float32)
        picture.colour[:] = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
        picture.label[:] = LABEL["Sky"]
        rows = np.flatnonzero((camera.up < 0.09).any(1) & (camera.up > -0.01).any(1))
        band = slice(rows[0], rows[-1] + 1)
        skyline = self._skyline(camera.left[band] + self.heading)
        hills = (camera.up[band] < skyline) & (camera.up[band] >= -CAMERA_HEIGHT_M / SKYLINE_M)
        picture.label[band][hills] = LABEL["Nature object"]
        tone = 0.45 * np.array(self.world.leaf) + 0.55 * light.horizon
        picture.colour[band][hills] = tone * (0.82 + 2.2 * skyline[hills][:, None])

    def _skyline(self, azimuth: np.ndarray) -> np.ndarray:
        """Slope up to which the far hills reach."""
        phase = float(sum(self.world.seed)) + self.world.asphalt
        waves = 0.5 + 0.3 * np.sin(7 * azimuth + phase) + 0.2 * np.sin(19 * azimuth) + 0.06 * np.sin(140 * azimuth)
        return 0.008 + 0.035 * waves


def _clouds(azimuth: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Soft noise, about -1 to 1; flattened towards the horizon."""
    height = 1.6 / (up.clip(0) + 0.12)
    return 0.6 * np.sin(9 * azimuth + 1.7 * height) * np.sin(2.3 * height + 4 * azimuth) + 0.4 * np.sin(
        23 * azimuth + 3 * np.sin(2 * height)
    ) * np.sin(5.1 * height)


class _Picture:
    """The buffers of a picture under way."""

    def __init__(self, camera: Camera, light: Light, heading: float):
        shape = camera.left.shape
        self.camera, self.light, self.heading = camera, light, heading
        self.colour = np.empty((*shape, 3), np.float32)
        self.label = np.empty(shape, np.uint8)
        self.nearness = np.zeros(shape, np.float32)
        self.owner = np.full(shape, -1, np.int16)
        self._covered_by = np.full(shape, -1, np.int16)

    def put(self, pixels: np.ndarray, nearness: np.ndarray, label: np.ndarray | int, colours: np.ndarray) -> None:
        """Writes pixels (flat indices), their colours seen through the haze."""
        clear = np.exp(-1 / (HAZE_M * nearness))
        mist, picture = 1 - clear, self.colour.reshape(-1, 3)
        for channel, (tint, horizon) in enumerate(zip(self.light.tint, self.light.horizon, strict=True)):
            picture[pixels, channel] = colours[:, channel] * (clear * np.float32(tint)) + mist * np.float32(horizon)
        self.label.ravel()[pixels] = label
        self.nearness.ravel()[pixels] = nearness

    def shadows(self, solids: list[Placed], sun: np.ndarray, heading: float) -> np.ndarray:
        """Mask over the camera's ground pixels: where solids keep the sun, or at least the sky, off the ground."""
        mask = np.zeros(self.label.shape, np.uint8)
        cos, sin = np.cos(heading), np.sin(heading)
        drift = -np.array([cos * sun[0] + sin * sun[1], cos * sun[1] - sin * sun[0]]) / sun[2]
        for placed in solids:
            if placed.x > 90:
                continue
            for part in placed.solid.parts:
                corners = placed.to_camera(part.corners())
                reach = (corners[:, 2:] + CAMERA_HEIGHT_M) * drift * self.light.sunshine
                corners[:, :2] += reach
                if corners[:, 0].min() < 1.5:
                    continue
                col, row = self.camera.distort(-corners[:, 1] / corners[:, 0], CAMERA_HEIGHT_M / corners[:, 0])
                if np.abs(corners[:, 1] / corners[:, 0]).max() > 1:
                    continue  # beyond the model of the lens
                hull = cv2.convexHull(np.column_stack([col, row]).round().astype(np.int32))
                cv2.fillConvexPoly(mask, hull, 1)
        return mask.ravel()[self.camera.ground] > 0

    def draw(self, stands: PlacedPart) -> int:
        """Draws a part; returns how many pixels, hidden ones included, it adds to its solid, if that has a box."""
        window = self.camera.window(stands.extent)
        if window is None:
            return 0
        nearness = stands.nearness(self.camera.left[window], self.camera.up[window])
        rows, cols = np.nonzero(nearness > self.nearness[window])
        if len(rows):
            self._paint(stands, rows, cols, window, nearness[rows, cols])
        if not stands.placed.solid.box_class:
            return 0
        new = (nearness > 0) & (self._covered_by[window] != stands.index)
        self._covered_by[window][new] = stands.index
        return int(np.count_nonzero(new))

    def _paint(self, stands: PlacedPart, rows, cols, window: Window, nearness: np.ndarray) -> None:
        part = stands.part
        pixels = (rows + window[0].start) * self.label.shape[1] + cols + window[1].start
        left, up = self.camera.left.ravel()[pixels], self.camera.up.ravel()[pixels]
        points = stands.local(left, up, 1 / nearness)
        faces = np.full(len(left), BOTTOM) if part.rounded else stands.faces(left, up)
        colours = np.tile(np.array(part.colour, np.float32), (len(left), 1))
        FINISHES[part.finish](part, points, faces, colours)
        turn = self.heading + stands.placed.heading
        x, y, z = self.light.sun
        sun = np.array([np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x, z])
        normals = stands.normals(left, up, points)
        bright = self.light.ambient * (0.85 + 0.15 * normals[2]) + self.light.sunshine * np.maximum(sun @ normals, 0)
        colours *= bright.astype(np.float32)[:, None]
        self.put(pixels, nearness, part.label, colours)
        self.owner.ravel()[pixels] = stands.index
