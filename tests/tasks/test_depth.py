import math
from statistics import median
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from datasets.frames import Frame
from datasets.processed import ProcessedData
from errors import UserError
from models.densedepth import ENCODERS, DenseDepthSettings
from tasks.depth import DepthTask
from tasks.depth_metric import DepthMetric
from tests.a2d2 import DEPTH
from tests.parts import network_of

FRAME = Frame("a2d2", "20180807_145028", "000000091")
SMALL = {"encoder": "small", "pretrained": "none"}


def random_labels(number: int, height: int = 6, width: int = 9, seed: int = 0) -> list[np.ndarray]:
    """Labels of 0.3-200 m, about a third of the pixels without a measurement."""
    rng = np.random.default_rng(seed)
    labels = (256 * np.exp(rng.uniform(np.log(0.3), np.log(200), (number, height, width)))).astype(np.uint16)
    labels[rng.random(labels.shape) < 0.3] = 0
    return list(labels)


def random_output(batch: int, height: int = 6, width: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.exp(4 * torch.rand(batch, 1, height, width, generator=generator)).requires_grad_()


def target_of(*metres: float) -> dict[str, torch.Tensor]:
    """One image of one row; 0 = no measurement."""
    return DepthTask(spec=DEPTH).collate([(256 * np.array([metres])).astype(np.uint16)])


def output_of(*metres: float) -> torch.Tensor:
    return torch.tensor(metres).reshape(1, 1, 1, -1).requires_grad_()


# ---- files --------------------------------------------------------------------------------------------------


def write(processed: ProcessedData, array: np.ndarray) -> None:
    path = processed.path("depth", FRAME)
    path.parent.mkdir(parents=True)
    np.save(path, array)


def test_read_gives_the_label_as_it_lies(processed):
    label = np.array([[0, 256, 65535]], np.uint16)
    write(processed, label)
    read = DepthTask(spec=DEPTH).read(processed, FRAME)
    assert read.dtype == np.uint16
    assert np.array_equal(read, label)


def test_a_missing_file_is_no_label(processed):
    assert DepthTask(spec=DEPTH).read(processed, FRAME) is None


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), np.float32), r"is float32 with shape \(2, 2\); expected uint16"),
        (np.zeros((2, 2, 1), np.uint16), r"shape \(2, 2, 1\)"),
        (np.array([[{}]], object), "Object arrays"),
    ],
)
def test_read_names_what_is_wrong(processed, array, reason):
    write(processed, array)
    with pytest.raises(ValueError, match=reason):
        DepthTask(spec=DEPTH).read(processed, FRAME)


# ---- targets ------------------------------------------------------------------------------------------------


def test_collate_marks_the_sample_without_label():
    labels = random_labels(2)
    depth = DepthTask(spec=DEPTH).collate([labels[0], None, labels[1]])["depth"]
    assert depth.dtype == torch.uint16
    assert np.array_equal(depth[0], labels[0])
    assert not depth[1].numpy().any()
    assert np.array_equal(depth[2], labels[1])


def test_hflip_mirrors_the_samples_asked_for():
    task, labels, flip = DepthTask(spec=DEPTH), random_labels(3), torch.tensor([True, False, True])
    labels[0][0, 0] = 65535  # beyond what a signed 16-bit number holds
    target = task.collate(labels)
    flipped = task.hflip(target, flip)
    assert flipped["depth"].dtype == torch.uint16
    for i, label in enumerate(labels):
        assert np.array_equal(flipped["depth"][i], np.fliplr(label) if flip[i] else label)
    assert np.array_equal(task.hflip(flipped, flip)["depth"], target["depth"])


# ---- loss ---------------------------------------------------------------------------------------------------


def test_loss_by_hand():
    # d = ln 2 and -ln 2 over two measured pixels: the mean is 0, the mean square (ln 2)^2
    losses, valid = DepthTask(spec=DEPTH).loss(output_of(20.0, 5.0, 3.0), target_of(10.0, 10.0, 0.0))
    assert losses.tolist() == pytest.approx([math.sqrt(math.log(2) ** 2 + 1e-6)])
    assert valid.tolist() == [True]


def test_loss_forgives_most_of_a_wrong_scale():
    # d = ln 2 everywhere: 0.15 (ln 2)^2 is left
    losses, _ = DepthTask(spec=DEPTH).loss(output_of(20.0, 8.0), target_of(10.0, 4.0))
    assert losses.tolist() == pytest.approx([math.sqrt(0.15 * math.log(2) ** 2 + 1e-6)], rel=1e-5)


def test_loss_against_a_loop_over_pixels():
    task, labels, output = DepthTask(spec=DEPTH), random_labels(3), random_output(3)
    losses, valid = task.loss(output, task.collate(labels))
    assert losses.dtype == torch.float32
    assert valid.all()
    for i, label in enumerate(labels):
        d = []
        for row, column in np.argwhere(label > 0):
            d.append(math.log(output[i, 0, row, column].item()) - math.log(label[row, column] / 256))
        expected = math.sqrt(sum(x * x for x in d) / len(d) - 0.85 * (sum(d) / len(d)) ** 2 + 1e-6)
        assert losses[i].item() == pytest.approx(expected, rel=1e-5)


def test_a_missing_label_adds_nothing():
    task, labels, output = DepthTask(spec=DEPTH), random_labels(2), random_output(3)
    losses, valid = task.loss(output, task.collate([labels[0], None, labels[1]]))
    assert valid.tolist() == [True, False, True]
    assert losses[1] == 0
    losses.sum().backward()
    assert (output.grad[1] == 0).all()

    alone = random_output(3)
    task.loss(alone[[0, 2]], task.collate(labels))[0].sum().backward()
    torch.testing.assert_close(output.grad, alone.grad)
    unmeasured = torch.from_numpy(labels[0] == 0)
    assert (output.grad[0, 0][unmeasured] == 0).all()
    assert (output.grad[0, 0][~unmeasured] != 0).all()


@pytest.mark.parametrize("truth", [(10.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("prediction", [(10.0, 10.0), (12.0, 0.0), (12.0, math.nan)])
def test_gradients_stay_finite(truth, prediction):
    # one measured pixel or none, an exact prediction, and any nonsense where nothing is measured
    output = output_of(*prediction)
    with torch.autograd.set_detect_anomaly(True):  # raises for NaN on the way, too
        DepthTask(spec=DEPTH).loss(output, target_of(*truth))[0].sum().backward()
    assert torch.isfinite(output.grad).all()
    assert output.grad.flatten()[1] == 0


def test_loss_of_half_precision_is_computed_in_float32():
    task, labels, output = DepthTask(spec=DEPTH), random_labels(1), random_output(1).detach().bfloat16()
    losses, _ = task.loss(output, task.collate(labels))
    assert losses.dtype == torch.float32
    assert torch.equal(losses, task.loss(output.float(), task.collate(labels))[0])


# ---- metric -------------------------------------------------------------------------------------------------


def slow_metric(predictions: np.ndarray, labels: list[np.ndarray], cap: float) -> dict[str, float]:
    """The errors of Eigen et al. 2014, pixel by pixel."""
    pairs = []
    for prediction, label in zip(predictions, labels, strict=True):
        for p, t in zip(prediction.ravel().tolist(), (label.ravel() / 256).tolist(), strict=True):
            if 1 <= t <= cap:
                pairs.append((min(max(p, 1.0), cap), t))
    n = len(pairs)
    return {
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        "sq_rel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "rmse_log": math.sqrt(sum((math.log(p) - math.log(t)) ** 2 for p, t in pairs) / n),
        "mae": sum(abs(p - t) for p, t in pairs) / n,
        **{f"delta{k}": sum(max(p / t, t / p) < 1.25**k for p, t in pairs) / n for k in (1, 2, 3)},
    }


def test_metric_by_hand():
    # 10 m seen as 12, 20 m seen as 10; the others are not measured, too near and too far
    metric = DepthMetric(nearest=1.0, cap=80.0)
    metric.update(torch.tensor([[[12.0, 10.0, 5.0, 5.0, 5.0]]]), target_of(10.0, 20.0, 0.0, 0.5, 90.0))
    assert metric.compute() == pytest.approx(
        {
            "abs_rel": (0.2 + 0.5) / 2,
            "sq_rel": (0.4 + 5) / 2,
            "rmse": math.sqrt((4 + 100) / 2),
            "rmse_log": math.sqrt((math.log(1.2) ** 2 + math.log(2) ** 2) / 2),
            "mae": 6,
            "delta1": 0.5,
            "delta2": 0.5,
            "delta3": 0.5,
        }
    )


def test_metric_clamps_predictions_to_the_range():
    metric = DepthMetric(nearest=1.0, cap=80.0)
    metric.update(torch.tensor([[[0.1, 300.0]]]), target_of(2.0, 77.0))  # seen as 1 and 80
    assert metric.compute()["mae"] == (1 + 3) / 2


def test_metric_includes_both_ends_of_the_range():
    metric = DepthMetric(nearest=1.0, cap=80.0)
    metric.update(torch.tensor([[[2.0, 77.0]]]), target_of(1.0, 80.0))
    assert metric.compute()["mae"] == (1 + 3) / 2


def test_a_prediction_that_is_not_a_number_shows():
    metric = DepthMetric(nearest=1.0, cap=80.0)
    metric.update(torch.tensor([[[math.nan, 4.0]]]), target_of(5.0, 4.0))
    assert math.isnan(metric.compute()["abs_rel"])


@pytest.mark.parametrize("cap", [30.0, 80.0])
def test_metric_against_a_loop_over_pixels(cap):
    task = DepthTask(DepthTask.Settings(cap=cap), spec=DEPTH)
    labels, predictions = random_labels(3), task.decode(random_output(3).detach())
    metric = task.metric()
    metric.update(predictions, task.collate(labels))
    assert metric.compute() == pytest.approx(slow_metric(predictions.numpy(), labels, cap))


def test_metric_merges_over_batches_and_processes():
    task, labels = DepthTask(spec=DEPTH), random_labels(4)
    predictions = task.decode(random_output(4).detach())
    whole, first, second = task.metric(), task.metric(), task.metric()
    whole.update(predictions, task.collate(labels))
    first.update(predictions[:1], task.collate(labels[:1]))
    first.update(predictions[1:2], task.collate(labels[1:2]))
    second.update(predictions[2:], task.collate(labels[2:]))
    first.merge_state(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_a_missing_label_adds_nothing_to_the_metric():
    task, labels = DepthTask(spec=DEPTH), random_labels(1)
    predictions = task.decode(random_output(2).detach())
    with_missing, without = task.metric(), task.metric()
    with_missing.update(predictions, task.collate([labels[0], None]))
    without.update(predictions[:1], task.collate(labels))
    assert with_missing.compute() == without.compute()


def test_a_split_without_measurements_has_no_score():
    metric = DepthMetric(nearest=1.0, cap=80.0)
    metric.update(torch.tensor([[[3.0]]]), target_of(0.0))
    assert all(math.isnan(score) for score in metric.compute().values())


# ---- median depth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "expected"), [([3.0, 1.0, 0.0, 200.0], 3.0), ([3.0, 1.0, 4.0, 200.0], 3.5)])
def test_fit_finds_the_median_of_all_measurements(values, expected):
    task = DepthTask(spec=DEPTH)
    task.fit(target_of(value)["depth"][0].numpy() for value in values)
    assert task.median_depth == expected


def test_fit_against_numpy():
    task, labels = DepthTask(spec=DEPTH), random_labels(5)
    task.fit(iter(labels))
    measurements = np.concatenate([label[label > 0] for label in labels])
    assert task.median_depth == np.median(measurements) / 256


def test_state_restores_the_median_depth():
    fitted, restored = DepthTask(spec=DEPTH), DepthTask(spec=DEPTH)
    fitted.fit(iter(random_labels(2)))
    restored.load_state(fitted.state())
    assert restored.median_depth == fitted.median_depth


def test_a_new_network_says_the_median_depth_everywhere():
    task = DepthTask(spec=DEPTH)
    task.fit(iter([np.full((2, 2), 20 * 256, np.uint16)]))
    network = network_of(task, **SMALL)
    depth = task.decode(network(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)))
    assert depth.shape == (1, 64, 96)
    assert depth.median().item() == pytest.approx(20, rel=0.05)


def test_what_needs_labels_says_so():
    task = DepthTask(spec=DEPTH)
    with pytest.raises(RuntimeError, match="fit"):
        task.outputs()
    nothing = np.zeros((2, 2), np.uint16)
    for labels in ([], [nothing]):
        with pytest.raises(ValueError, match="no training label"):
            task.constant(iter(labels))


def test_without_measurements_the_network_starts_at_a_typical_depth():
    task = DepthTask(spec=DEPTH)
    task.fit(iter([np.zeros((2, 2), np.uint16)]))
    depth = network_of(task, **SMALL).eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert 5 < depth.median() < 50


# ---- predictions --------------------------------------------------------------------------------------------


def test_decode_gives_metres():
    output = random_output(2).detach()
    decoded = DepthTask(spec=DEPTH).decode(output.bfloat16())
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, output[:, 0].bfloat16().float())


def test_constant_takes_each_pixels_median():
    labels = random_labels(8)
    for label in labels:
        label[2, 3:5] = 0
        label[4] = 0
    prediction = DepthTask(spec=DEPTH).constant(iter(labels))
    assert prediction.dtype == torch.float32
    assert prediction.shape == (1, 6, 9)
    stack = np.stack(labels) / 256
    per_pixel = {}
    for row in range(6):
        for column in range(9):
            measured = [d for d in stack[:, row, column].tolist() if d > 0]
            if measured:
                per_pixel[row, column] = median(measured)
    assert len(per_pixel) == 54 - 2 - 9
    of_row_2 = median(d for (row, _), d in per_pixel.items() if row == 2)
    overall = median(per_pixel.values())
    for row in range(6):
        for column in range(9):
            expected = per_pixel.get((row, column), of_row_2 if row == 2 else overall)
            assert prediction[0, row, column].item() == pytest.approx(expected)


# ---- settings -----------------------------------------------------------------------------------------------


def test_settings_know_every_encoder():
    assert set(get_args(DenseDepthSettings.model_fields["encoder"].annotation)) == set(ENCODERS)


def test_settings_refuse_what_can_not_be():
    with pytest.raises(ValidationError, match="no ImageNet weights"):
        DenseDepthSettings(name="densedepth", encoder="small")
    for cap in (0.0, math.inf, math.nan):
        with pytest.raises(ValidationError, match="cap"):
            DepthTask.Settings(cap=cap)
    with pytest.raises(UserError, match=r"tasks.depth.settings.cap: 1.0 m is not beyond the nearest, 1.0 m"):
        DepthTask(DepthTask.Settings(cap=1.0), spec=DEPTH)
