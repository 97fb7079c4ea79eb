"""The synthetic A2D2: its four labels describe one world, it is reproducible, and it has the real data's quirks."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from datasets.a2d2.classes import BOX_CLASSES, COLOURS, IGNORE, SEMANTIC_CLASSES, class_of
from datasets.a2d2.geometry import FRONT_CENTER, Calibration, ImageMap
from datasets.a2d2.raw import RawData, parse_bus_frame_name, seconds_of
from datasets.files import read_json
from datasets.splits import split_by_time
from datasets.synthetic import __main__ as command
from datasets.synthetic import contents, planning
from datasets.synthetic import generate as synthetic
from datasets.synthetic.render import Camera, Moment, View
from datasets.synthetic.solids import LABELS, MASK_OF_BOX, VEHICLES, cyclist, pedestrian
from datasets.synthetic.world import CentreLine, World
from errors import UserError
from training.data_config import SplitConfig

ROOT = Path(__file__).parents[2]
SMALL = 128, 80
SCENES, FRAMES = 2, 6
SWEEP_TYPES = {
    "azimuth": np.float64,
    "row": np.float64,
    "lidar_id": np.float64,
    "depth": np.float64,
    "reflectance": np.int64,
    "col": np.float64,
    "points": np.float64,
    "timestamp": np.int64,
    "distance": np.float64,
}
BOX_KEYS = ["2d_bbox", "3d_points", "alpha", "axis", "center", "class"]
BOX_KEYS += ["id", "occlusion", "rot_angle", "size", "truncation"]


@dataclass
class Sample:
    """One moment at 640 x 402, seen by every sensor. Class maps are H x W, values as in SEMANTIC_CLASSES."""

    moment: Moment
    view: View
    sweep: dict[str, np.ndarray]
    boxes: list[dict]
    straight: np.ndarray  # class map, undistorted
    raw: np.ndarray  # class map as stored


def classes_in(label: np.ndarray) -> np.ndarray:
    """RGB label image -> class map, IGNORE where the colour is not listed."""
    packed = label.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    classes = np.full(packed.shape, IGNORE, np.uint8)
    for colour, name in COLOURS.items():
        classes[packed == int(colour[1:], 16)] = SEMANTIC_CLASSES.index(class_of(name))
    return classes


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(FRONT_CENTER.scaled(640, 402))


@pytest.fixture(scope="module")
def samples(camera) -> list[Sample]:
    image_map = ImageMap(camera.calibration, (640, 402))
    found = []
    for scene in range(5):
        world = World((11, scene))
        for seconds in (4.0, 19.0):
            moment = Moment(world, seconds)
            view = moment.view(camera, 0)
            label = synthetic.LABEL_RGB[view.label]
            points = contents.sweep(moment, camera.calibration, np.random.default_rng(scene), 0)
            boxes = contents.boxes(moment, camera, view)
            found.append(Sample(moment, view, points, boxes, classes_in(image_map.labels(label)), classes_in(label)))
    return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> RawData:
    return synthetic.write_dataset(tmp_path_factory.mktemp("a2d2"), SCENES, FRAMES, SMALL, seed=0)


@pytest.fixture(scope="module")
def plans() -> list[list[planning.FramePlan]]:
    return [planning.plan_scene(index, FRAMES, 0) for index in range(SCENES)]


def plans_with(plans, quirk: str) -> list[planning.FramePlan]:
    return [plan for scene in plans for plan in scene if quirk in plan.quirks]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- one world ----------------------------------------------------------------------------------------------


def lidar_classes(sample: Sample, class_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the sweep's points hit in the world, and what the class map shows at their pixels."""
    points = sample.sweep["points"]
    left, up = (points[:, 1:] / points[:, :1]).T.astype(np.float32)
    _, label = sample.moment.cast(left, up)
    hit = np.array([SEMANTIC_CLASSES.index(class_of(name)) for name in LABELS])[label]
    col, row = np.rint(sample.sweep["col"]).astype(int), np.rint(sample.sweep["row"]).astype(int)
    inside = (col >= 0) & (col < 640) & (row >= 0) & (row < 402)
    return hit[inside], class_map[row[inside], col[inside]]


def test_lidar_hits_what_the_undistorted_label_shows(samples):
    straight = [np.equal(*lidar_classes(sample, sample.straight)).mean() for sample in samples]
    distorted = [np.equal(*lidar_classes(sample, sample.raw)).mean() for sample in samples]
    assert min(straight) > 0.95
    assert np.mean(distorted) < np.mean(straight) - 0.03  # else this test would not see a missing undistortion


def test_lidar_points_inside_a_3d_box_lie_on_its_class(samples):
    hits = total = 0
    for sample in samples:
        points, row, col = (sample.sweep[key] for key in ("points", "row", "col"))
        for box in sample.boxes:
            offset = points - box["center"]
            cos, sin = np.cos(box["rot_angle"]), np.sin(box["rot_angle"])
            local = np.column_stack(
                [cos * offset[:, 0] - sin * offset[:, 1], sin * offset[:, 0] + cos * offset[:, 1], offset[:, 2]]
            )
            within = (np.abs(local) < np.array(box["size"]) / 2 - (0.0, 0.0, 0.05)).all(1)
            within &= (np.rint(row) < 402) & (np.rint(col) < 640) & (np.rint(row) >= 0) & (np.rint(col) >= 0)
            seen = sample.straight[np.rint(row[within]).astype(int), np.rint(col[within]).astype(int)]
            hits += (seen == SEMANTIC_CLASSES.index(MASK_OF_BOX[box["class"]])).sum()
            total += within.sum()
    assert total > 1000
    assert hits / total > 0.93  # the rest: pixels at an outline, and ground below a leaning body


def test_lidar_geometry_is_that_of_the_real_sweeps(samples, camera):
    (fx, _, cx), (_, fy, cy), _ = camera.calibration.undistorted
    for sample in samples:
        sweep, (x, y, z) = sample.sweep, sample.sweep["points"].T
        np.testing.assert_allclose(sweep["col"], cx - fx * y / x, atol=1e-6)
        np.testing.assert_allclose(sweep["row"], cy - fy * z / x, atol=1e-6)
        np.testing.assert_array_equal(sweep["depth"], x)
        np.testing.assert_allclose(sweep["distance"], np.linalg.norm(sweep["points"], axis=1))
        assert {key: value.dtype for key, value in sweep.items()} == SWEEP_TYPES
        assert 5000 < len(x) < 11000
        assert 3 < x.min() < 8
        assert 60 < x.max() <= 106


def test_depth_of_the_sweep_is_that_of_the_picture(samples, camera):
    """The raw geometry, reached from the points by the camera's own distortion."""
    matrix, distortion = np.array(camera.calibration.distorted), np.array(camera.calibration.distortion)
    for sample in samples:
        points = sample.sweep["points"]
        ahead = np.column_stack([-points[:, 1], -points[:, 2], points[:, 0]])
        pixels, _ = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), matrix, distortion)
        col, row = np.rint(pixels[:, 0]).astype(int).T
        inside = (col >= 0) & (col < 640) & (row >= 0) & (row < 402)
        depth = 1 / np.maximum(sample.view.nearness[row[inside], col[inside]], 1e-6)
        error = np.abs(depth - points[inside, 0]) / points[inside, 0]
        assert np.median(error) < 0.01
        assert (error < 0.1).mean() > 0.93


def test_boxes_fit_the_masks_of_their_solids(samples):
    checked = 0
    for sample in samples:
        for box in sample.boxes:
            others = [other for other in sample.boxes if other is not box]
            left, top, right, bottom = (round(edge) for edge in box["2d_bbox"])
            if box["occlusion"] > 0 or box["truncation"] > 0 or min(right - left, bottom - top) < 10:
                continue
            crop = slice(max(top - 5, 0), bottom + 6), slice(max(left - 5, 0), right + 6)
            if any(_overlap(box["2d_bbox"], other["2d_bbox"], 6) for other in others):
                continue
            rows, cols = np.nonzero(sample.straight[crop] == SEMANTIC_CLASSES.index(MASK_OF_BOX[box["class"]]))
            extents = cols.min() + crop[1].start, rows.min() + crop[0].start
            extents += cols.max() + crop[1].start, rows.max() + crop[0].start
            np.testing.assert_allclose(extents, box["2d_bbox"], atol=2.0, err_msg=box["class"])
            checked += 1
    assert checked >= 8


def _overlap(a: list[float], b: list[float], spare: float) -> bool:
    return a[0] < b[2] + spare and b[0] < a[2] + spare and a[1] < b[3] + spare and b[1] < a[3] + spare


def test_visible_boxes_show_their_class_and_know_how_much_is_hidden(samples):
    for sample in samples:
        for box in sample.boxes:
            left, top, right, bottom = np.clip(np.rint(box["2d_bbox"]), 0, (640, 402, 640, 402)).astype(int)
            crop = sample.straight[top : bottom + 1, left : right + 1]
            share = (crop == SEMANTIC_CLASSES.index(MASK_OF_BOX[box["class"]])).mean()
            assert share > 0.02
            assert 0 <= box["occlusion"] <= 0.9
            assert 0 <= box["truncation"] < 1
            if box["occlusion"] == 0 and box["class"] in ("Car", "VanSUV", "Truck", "Bus") and box["truncation"] == 0:
                assert share > 0.45
    hidden = [box["occlusion"] for sample in samples for box in sample.boxes]
    assert max(hidden) > 0.3


def test_masks_tell_box_classes_apart_where_the_list_has_names():
    """Two pairs share a name, the two that are stated; a class whose own name is listed is painted with it."""
    shared = {name for name, mask in MASK_OF_BOX.items() if list(MASK_OF_BOX.values()).count(mask) > 1}
    assert shared == {"Car", "VanSUV", "Bus", "UtilityVehicle"}
    assert MASK_OF_BOX["Car"] == MASK_OF_BOX["VanSUV"] != MASK_OF_BOX["Bus"] == MASK_OF_BOX["UtilityVehicle"]
    listed = {name.replace(" ", "").lower(): name for name in SEMANTIC_CLASSES}
    named = {name: listed[name.lower()] for name in MASK_OF_BOX if name.lower() in listed}
    assert named.keys() == {"Car", "Truck", "Pedestrian", "UtilityVehicle"}
    assert named.items() <= MASK_OF_BOX.items()


@pytest.mark.parametrize("make", [*dict.fromkeys(VEHICLES), cyclist, pedestrian])
def test_solids_are_painted_as_stated(make):
    for seed in range(8):
        solid = make(np.random.default_rng(seed))
        assert {class_of(LABELS[part.label]) for part in solid.parts} == {MASK_OF_BOX[solid.box_class]}


def test_no_solid_stands_inside_another_vehicle():
    for scene in range(6):
        moment = Moment(World((5, scene)), 10.0)
        cars = [thing for thing in moment.solids if thing.solid.box_class not in (None, "Pedestrian")]
        for number, one in enumerate(cars):
            for other in cars[number + 1 :]:
                assert np.hypot(one.x - other.x, one.y - other.y) > 1.2


def demo_settings() -> tuple[list[str], SplitConfig]:
    """The generator's arguments in the Makefile, and the split of all the demo's configs."""
    (arguments,) = re.findall(r"datasets\.synthetic --out \S+ (.+)", (ROOT / "Makefile").read_text())
    splits = [yaml.safe_load(path.read_text())["data"]["split"] for path in (ROOT / "configs/demo").glob("*.yaml")]
    by_time = [SplitConfig.model_validate(split) for split in splits if split["mode"] == "time"]
    assert len(by_time) >= 3
    assert all(split == by_time[0] for split in by_time)
    return arguments.split(), by_time[0]


def test_the_demos_validation_split_has_10_objects_of_every_class_and_most_scenes_have_it():
    """Seen at a quarter of the demo's size, where fewer things are large enough for a label; hidden by traffic only."""
    arguments, split = demo_settings()
    demo = command.parse_arguments(["--out", "x", *arguments])
    scenes_planned = [planning.plan_scene(i, demo.frames, demo.seed, demo.semantic) for i in range(demo.scenes)]
    plans = {plan.frame: plan for scene in scenes_planned for plan in scene}
    width, height = demo.image_size
    camera = Camera(FRONT_CENTER.scaled(width // 4, height // 4))
    counts, scenes = Counter(), defaultdict(set)
    for frame in split_by_time(
        plans, {frame: seconds_of(frame) for frame in plans}, split.fractions, split.gap_frames, split.gap_seconds
    ).val:
        if not plans[frame].has_boxes:
            continue
        moment = planning.moment_of(plans[frame])
        moment.parts = [part for part in moment.parts if part.placed.solid.box_class]
        for box in contents.boxes(moment, camera, moment.view(camera, 0)):
            counts[box["class"]] += 1
            scenes[box["class"]].add(frame.scene)
    assert counts.keys() == MASK_OF_BOX.keys()
    assert min(counts.values()) >= 10, counts
    assert min(map(len, scenes.values())) >= 6, scenes


# ---- steering -----------------------------------------------------------------------------------------------


def test_the_wheel_turns_to_where_the_road_goes():
    """Road pixels ahead lie to the left of those near the car where the angle is positive."""
    camera = Camera(FRONT_CENTER.scaled(160, 96))
    road = [LABELS.index(name) for name in ("RD normal street", "Solid line", "Dashed line", "Zebra crossing")]
    near_rows, far_rows = slice(90, 96), slice(68, 72)  # about 6 m and 12 m ahead
    angles, shifts = [], []
    for scene in range(3):
        world = World((2, scene))
        for seconds in np.arange(2.0, 34.0, 4.0):
            on_road = np.isin(Moment(world, seconds, traffic=False).view(camera, 0).label, road)
            near, far = (np.nonzero(on_road[rows])[1].mean() for rows in (near_rows, far_rows))
            angles.append(float(contents.steering_deg(world, np.array([seconds]))[0]))
            shifts.append(near - far)
        shifts[-8:] -= np.median(shifts[-8:])  # the car is not in the road's middle
    sharp = np.abs(angles) > 40
    assert sharp.sum() >= 6
    assert np.corrcoef(angles, shifts)[0, 1] > 0.75
    assert (np.sign(angles) == np.sign(shifts))[sharp].mean() > 0.9


def test_angles_vary_within_a_scene_and_stay_in_range():
    for scene in range(10):
        angles = contents.steering_deg(World((3, scene)), np.arange(0, 120, 0.5))
        assert np.abs(angles).max() < 200
        assert angles.max() > 40
        assert angles.min() < -40
        np.testing.assert_allclose(angles / 0.15, np.rint(angles / 0.15), atol=1e-6)


def test_bus_angle_and_sign_say_the_signed_angle(raw, plans):
    for scene in plans:
        entries = {entry["frame_name"]: entry for entry in read_json(raw.bus_path(scene[0].frame.scene))}
        for plan in scene:
            if plan.quirks & {"no steering", "sentinel"}:
                continue
            entry = entries[f"{plan.frame.scene.replace('_', '')}_camera_frontcenter_{plan.frame.id}.json"]
            size, sign = (entry["flexray"][f"steering_angle_calculated{end}"] for end in ("", "_sign"))
            assert size["unit"] == "Unit_DegreOfArc"
            assert len(size["values"]) == len(size["timestamps"]) == len(sign["values"]) == 21
            assert set(np.diff(size["timestamps"])) == {10_000}
            assert min(size["values"]) >= 0
            world = World((plan.seed, plan.scene_index))
            truth = contents.steering_deg(world, np.array([seconds_of(plan.frame)]))[0]
            assert size["values"][10] * (1 - 2 * sign["values"][10]) == pytest.approx(truth, abs=0.01)


def test_centre_line_inverts_itself():
    world = World((1, 1))
    line = CentreLine(world.road, world.station(7.0), world.lateral)
    stations, laterals = np.meshgrid(world.station(7.0) + np.arange(6, 90, 3.7), np.linspace(-9, 9, 13))
    places = [line.place(s, d) for s, d in zip(stations.ravel(), laterals.ravel(), strict=True)]
    x, y, _ = np.array(places, np.float32).T
    station, lateral = line.locate(x, y)
    np.testing.assert_allclose(lateral, laterals.ravel(), atol=0.03)
    np.testing.assert_allclose(station, stations.ravel(), atol=0.2)


# ---- files and quirks ---------------------------------------------------------------------------------------


def test_every_frame_has_every_file(raw, plans):
    frames = [plan.frame for scene in plans for plan in scene]
    for kind in ("camera", "lidar", "label", "label3D"):
        assert raw.frames(kind) == frames
    assert list(raw.bus_paths()) == raw.scenes()
    assert len(raw.scenes()) == SCENES
    for frame in frames:
        image = cv2.imread(str(raw.path("camera", frame)), cv2.IMREAD_UNCHANGED)
        assert image.shape == (SMALL[1], SMALL[0], 3)
        assert image.dtype == np.uint8
        assert read_json(raw.path("camera", frame).with_suffix(".json"))["cam_tstamp"] > 1.5e15


def test_files_beside_the_scenes(raw):
    assert list(read_json(raw.class_list_path).items()) == list(COLOURS.items())
    assert Calibration.read(raw.calibration_path).resolution == SMALL
    names = {path.name for path in raw.images_dir.iterdir()}
    assert names == {*raw.scenes(), "cams_lidars.json", "class_list.json", "synthetic.json"}


def test_labels_hold_listed_colours_only(raw):
    for frame in raw.frames("label"):
        label = cv2.imread(str(raw.path("label", frame)), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0]]
        assert (classes_in(label) != IGNORE).all()


def test_boxes_have_the_real_keys(raw):
    for frame in raw.frames("label3D"):
        content = read_json(raw.path("label3D", frame))
        assert list(content) == [f"box_{number}" for number in range(len(content))]
        for box in content.values():
            assert sorted(box) == BOX_KEYS
            assert box["class"] in BOX_CLASSES
            left, top, right, bottom = box["2d_bbox"]
            assert left < right
            assert top < bottom
            assert right > 0
            assert left < SMALL[0]


def test_every_quirk_falls_on_one_frame_of_each_scene(plans):
    for scene in plans:
        assert sorted(quirk for plan in scene for quirk in plan.quirks) == sorted(planning.QUIRKS)
    assert not any(plan.quirks for plan in planning.plan_scene(0, 5, 0))


def test_quirks_of_boxes(raw, plans):
    for plan in plans_with(plans, "no boxes"):
        assert read_json(raw.path("label3D", plan.frame)) == {}
    for plan in plans_with(plans, "beside"):
        boxes = read_json(raw.path("label3D", plan.frame)).values()
        assert "no boxes" in plan.quirks or min(box["2d_bbox"][0] for box in boxes) < -SMALL[0]
    repeated = 0
    for plan in plans_with(plans, "duplicates"):
        texts = [json.dumps(box) for box in read_json(raw.path("label3D", plan.frame)).values()]
        repeated += len(texts) - len(set(texts))
    assert repeated >= 3


def test_quirks_of_labels_and_sweeps(raw, plans):
    rgba = {plan.frame for plan in plans_with(plans, "rgba")}
    for frame in raw.frames("label"):
        label = cv2.imread(str(raw.path("label", frame)), cv2.IMREAD_UNCHANGED)
        assert label.shape[2] == (4 if frame in rgba else 3)
    for plan in (plan for scene in plans for plan in scene):
        with np.load(raw.path("lidar", plan.frame), allow_pickle=False) as sweep:
            if "empty sweep" in plan.quirks:
                assert ("points" in sweep) == (plan.scene_index % 2 == 0)
                assert all(len(sweep[key]) == 0 for key in sweep)
            elif "prefixed" in plan.quirks:
                attributes = {f"pcloud_attr.{key}" for key in SWEEP_TYPES if key != "points"}
                assert set(sweep) == {"pcloud_points", "pcloud_attr.valid"} | attributes
                assert sweep["pcloud_attr.valid"].dtype == bool
                assert 0 < (~sweep["pcloud_attr.valid"]).sum() < 0.1 * len(sweep["pcloud_attr.row"])
            else:
                assert {key: sweep[key].dtype for key in sweep} == SWEEP_TYPES


def test_quirks_of_the_bus(raw, plans):
    missing = []
    for scene in plans:
        entries = read_json(raw.bus_path(scene[0].frame.scene))
        frames = [parse_bus_frame_name(entry["frame_name"]) for entry in entries]
        assert frames.count(None) == 1
        assert [frame for frame in frames if frame] == [plan.frame for plan in scene]
        signals = {frame: entry["flexray"] for frame, entry in zip(frames, entries, strict=True) if frame}
        (gone,) = plans_with([scene], "no steering")
        missing.append("steering_angle_calculated" in signals[gone.frame])
        assert not signals[gone.frame].get("steering_angle_calculated", {}).get("values")
        (sentinel,) = plans_with([scene], "sentinel")
        values = signals[sentinel.frame].get("steering_angle_calculated", {}).get("values", [614.1, 614.25, 0])
        assert {614.1, 614.25} <= set(values)
        assert min(values) < 300
    assert missing == [False, True]


def test_gaps_between_frames_are_those_of_the_real_scenes():
    gaps = np.diff(planning.frame_numbers(5000, np.random.default_rng(0))) / 30
    assert np.median(gaps) == pytest.approx(2.9, abs=0.2)
    assert (gaps < 1).mean() == pytest.approx(0.23, abs=0.03)
    assert gaps.min() > 0


def test_pictures_and_scenes_differ(samples):
    looks = [sample.view.colour[::8, ::8].astype(float) for sample in samples]
    for number, look in enumerate(looks):
        assert all(np.abs(look - other).mean() > 5 for other in looks[number + 1 :])
    labels = np.stack([sample.straight for sample in samples])
    assert (labels != labels[0]).any(0).mean() > 0.3  # the class does not follow from the pixel's place


# ---- writing ------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_whatever_the_threads_and_scenes(raw, tmp_path):
    synthetic.write_dataset(tmp_path / "one", 1, FRAMES, SMALL, seed=0, threads=2)
    synthetic.write_dataset(tmp_path / "other", 1, 1, SMALL, seed=1)
    written = {name: digest for name, digest in digests(tmp_path / "one").items() if "synthetic.json" not in name}
    assert len(written) == 2 + 5 * FRAMES + 1
    assert written.items() <= digests(raw.root).items()
    assert not set(digests(tmp_path / "other")) & {name for name in written if name.endswith(".png")}


def test_a_rerun_goes_on_where_an_earlier_one_stopped(tmp_path):
    raw = synthetic.write_dataset(tmp_path, 1, 3, SMALL, seed=0)
    complete = digests(tmp_path)
    first, second, third = raw.frames("camera")
    untouched = raw.path("label", first).stat().st_mtime_ns
    for kind in ("camera", "lidar", "label", "label3D"):
        raw.path(kind, third).unlink()
    raw.path("camera", second).unlink()  # killed before the last file of this frame
    raw.bus_path(first.scene).unlink()
    synthetic.write_dataset(tmp_path, 1, 3, SMALL, seed=0)
    assert digests(tmp_path) == complete
    assert raw.path("label", first).stat().st_mtime_ns == untouched


def test_a_second_folder_of_frames_without_boxes(tmp_path):
    raw = synthetic.write_dataset(tmp_path / "two", 2, 6, SMALL, seed=0, semantic=12)
    assert len(raw.frames("label3D")) == 12
    assert raw.frames("label") == raw.frames("lidar") == raw.frames("camera")
    assert raw.frames("label") == sorted(plan.frame for i in range(2) for plan in planning.plan_scene(i, 18, 0))
    for kind in ("camera", "label", "lidar"):
        for frame in raw.frames("label3D"):
            first, second = raw.copies(kind, frame)
            assert first.read_bytes() == second.read_bytes()
        assert all(len(raw.copies(kind, frame)) == 1 for frame in set(raw.frames(kind)) - set(raw.frames("label3D")))
    further = sorted(set(raw.frames("label")) - set(raw.frames("label3D")))
    pictures = {raw.path("camera", frame).read_bytes() for frame in further}
    assert len(pictures) == len(further)  # each shows its own moment
    before = digests(raw.root)
    raw.path("camera", further[3]).unlink()
    synthetic.write_dataset(raw.root, 2, 6, SMALL, seed=0, semantic=12)
    assert digests(raw.root) == before


def test_refuses_to_mix_data_sets(raw, tmp_path):
    with pytest.raises(UserError, match="choose another --out"):
        synthetic.write_dataset(raw.root, SCENES, FRAMES, SMALL, seed=1)
    (tmp_path / "camera_lidar_semantic_bboxes").mkdir()
    with pytest.raises(UserError, match="already holds a data set"):
        synthetic.write_dataset(tmp_path, 1, 1, SMALL)


@pytest.mark.parametrize(
    "wrong",
    ["--scenes 0", "--frames 0", "--seed -1", "--threads 0", "--image-size 63 40", "--image-size 640", "--size 64"],
)
def test_impossible_values_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parse_arguments(["--out", "x", *wrong.split()])
    assert stopped.value.code == 2
    assert wrong.split()[0] in capsys.readouterr().err


def test_command_line_and_no_torch(tmp_path):
    code = "import sys; from datasets.synthetic.__main__ import main; main(); assert 'torch' not in sys.modules"
    arguments = ["--out", str(tmp_path), "--scenes", "1", "--frames", "1", "--image-size", "64", "40"]
    root = Path(synthetic.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"1 scenes of 1 frames, 64x40, are in {tmp_path}"
