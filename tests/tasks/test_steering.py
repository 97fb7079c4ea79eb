import json
import math

import numpy as np
import pytest
import torch

from datasets.frames import Frame
from datasets.processed import ProcessedData
from tasks.steering import SteeringTask
from tasks.steering_metric import SteeringMetric
from tests.parts import network_of

FRAME = Frame("a2d2", "20180807_145028", "000000091")


def random_labels(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    """Labels of so many angles each: half of the frames straight ahead, half in a turn."""
    rng = np.random.default_rng(seed)
    scales = rng.permuted(np.resize([5.0, 200.0], len(lengths)))
    return [rng.normal(0, scale, n).astype(np.float32) for scale, n in zip(scales, lengths, strict=True)]


def random_output(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 10, generator=torch.Generator().manual_seed(seed), requires_grad=True)


# ---- files --------------------------------------------------------------------------------------------------


def write(processed: ProcessedData, content: str) -> None:
    path = processed.path("steering", FRAME)
    path.parent.mkdir(parents=True)
    path.write_text(content)


def label_file(angles: list, unit: str = "deg") -> str:
    timestamps = list(range(len(angles)))
    return json.dumps({"signal": "steering_angle_calculated", "unit": unit, "angles": angles, "timestamps": timestamps})


def test_read_takes_the_last_ten_angles(processed):
    write(processed, label_file([float(angle) for angle in range(-8, 13)]))
    angles = SteeringTask().read(processed, FRAME)
    assert angles.dtype == np.float32
    assert angles.tolist() == list(range(3, 13))


def test_read_takes_fewer_angles_as_they_are(processed):
    write(processed, label_file([-1.5, 0]))
    assert SteeringTask().read(processed, FRAME).tolist() == [-1.5, 0.0]


def test_a_missing_file_is_no_label(processed):
    assert SteeringTask().read(processed, FRAME) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ('{"angles": [1', "is not a steering label"),
        ("[1.0, 2.0]", "valid dictionary"),
        ('{"unit": "deg", "angles": 3.0}', "angles: .* valid list"),
        (label_file([1.0], unit="rad"), "unit: Input should be 'deg'"),
        (label_file([]), "at least 1 item"),
        (label_file([1.0, "2.0"]), "angles.1: .* valid number"),
        (label_file([1.0, None]), "angles.1: .* valid number"),
        (label_file([1.0, math.nan]), "angles.1: .* finite number"),
    ],
)
def test_read_names_what_is_wrong(processed, content, reason):
    write(processed, content)
    with pytest.raises(ValueError, match=reason) as error:
        SteeringTask().read(processed, FRAME)
    assert str(processed.path("steering", FRAME)) in str(error.value)


# ---- targets ------------------------------------------------------------------------------------------------


def test_collate_puts_the_newest_angle_last():
    target = SteeringTask().collate([np.array([1, 2], np.float32), None, np.arange(10, dtype=np.float32)])
    assert target["angles"].dtype == torch.float32
    assert target["valid"].tolist() == [[False] * 8 + [True] * 2, [False] * 10, [True] * 10]
    assert target["angles"][0, 8:].tolist() == [1, 2]
    assert target["angles"][2].tolist() == list(range(10))


def test_hflip_turns_left_into_right():
    task, flip = SteeringTask(), torch.tensor([True, False, True])
    target = task.collate(random_labels(10, 10, 4))
    flipped = task.hflip(target, flip)
    for i, angles in enumerate(target["angles"].numpy()):
        assert np.array_equal(flipped["angles"][i], -angles if flip[i] else angles)
    assert torch.equal(flipped["valid"], target["valid"])
    assert torch.equal(task.hflip(flipped, flip)["angles"], target["angles"])


# ---- loss ---------------------------------------------------------------------------------------------------


def test_loss_by_hand():
    # errors of 0.5 and -3 units (50 and 300 degrees): 0.5^2 / 2 and 3 - 1/2
    target = SteeringTask().collate([np.array([100, 100], np.float32)])
    output = torch.full((1, 10), 7.0)
    output[0, 8:] = torch.tensor([1.5, -2.0])
    losses, valid = SteeringTask().loss(output, target)
    assert losses.tolist() == pytest.approx([(0.125 + 2.5) / 2])
    assert valid.tolist() == [True]


def test_loss_against_a_loop_over_angles():
    task, labels, output = SteeringTask(), random_labels(10, 3, 1, 10), random_output(4)
    losses, valid = task.loss(output, task.collate(labels))
    assert losses.dtype == torch.float32
    assert valid.all()
    for i, label in enumerate(labels):
        terms = []
        for back in range(1, len(label) + 1):
            error = abs(output[i, -back].item() - float(label[-back]) / 100)
            terms.append(error**2 / 2 if error < 1 else error - 0.5)
        assert losses[i].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_missing_label_adds_nothing():
    task, labels, output = SteeringTask(), random_labels(10, 4), random_output(3)
    losses, valid = task.loss(output, task.collate([labels[0], None, labels[1]]))
    assert valid.tolist() == [True, False, True]
    assert losses[1] == 0
    losses.sum().backward()
    assert (output.grad[1] == 0).all()
    assert (output.grad[2, :6] == 0).all()

    alone = random_output(3)
    task.loss(alone[[0, 2]], task.collate(labels))[0].sum().backward()
    torch.testing.assert_close(output.grad, alone.grad)
    assert (output.grad[2, 6:] != 0).all()


def test_loss_of_half_precision_is_computed_in_float32():
    task, labels, output = SteeringTask(), random_labels(10), random_output(1).detach().bfloat16()
    losses, _ = task.loss(output, task.collate(labels))
    assert losses.dtype == torch.float32
    assert torch.equal(losses, task.loss(output.float(), task.collate(labels))[0])


# ---- metric -------------------------------------------------------------------------------------------------


def slow_metric(predictions: np.ndarray, labels: list[np.ndarray]) -> dict[str, float]:
    errors = {"": [], "_straight": [], "_turn": []}
    for prediction, label in zip(predictions.tolist(), labels, strict=True):
        for p, t in zip(prediction[-len(label) :], label.tolist(), strict=True):
            for part in ("", "_turn" if abs(t) >= 10 else "_straight"):
                errors[part].append(p - t)
    scores = {}
    for part, values in errors.items():
        scores[f"mae{part}"] = sum(map(abs, values)) / len(values)
        scores[f"rmse{part}"] = math.sqrt(sum(e * e for e in values) / len(values))
    return scores


def test_metric_by_hand():
    # 9.9 degrees is straight, 10 and -20 are turns; the truth decides, not the prediction
    target = SteeringTask().collate([np.array([9.9, 10, -20], np.float32)])
    prediction = torch.full((1, 10), 500.0)
    prediction[0, 7:] = torch.tensor([12.9, 9.0, -25.0])
    metric = SteeringMetric()
    metric.update(prediction, target)
    assert metric.compute() == pytest.approx(
        {
            "mae": (3 + 1 + 5) / 3,
            "rmse": math.sqrt((9 + 1 + 25) / 3),
            "mae_straight": 3,
            "rmse_straight": 3,
            "mae_turn": 3,
            "rmse_turn": math.sqrt((1 + 25) / 2),
        }
    )


def test_metric_against_a_loop_over_angles():
    task, labels = SteeringTask(), random_labels(10, 3, 1, 10, 7, 10)
    predictions = task.decode(random_output(6).detach())
    metric = task.metric()
    metric.update(predictions, task.collate(labels))
    assert metric.compute() == pytest.approx(slow_metric(predictions.numpy(), labels))


@pytest.mark.parametrize(("angle", "absent"), [(3.0, "turn"), (-30.0, "straight")])
def test_metric_leaves_out_the_part_that_has_no_angles(angle, absent):
    metric = SteeringMetric()
    metric.update(torch.zeros(1, 10), SteeringTask().collate([np.array([angle], np.float32)]))
    present = {"turn": "straight", "straight": "turn"}[absent]
    assert set(metric.compute()) == {"mae", "rmse", f"mae_{present}", f"rmse_{present}"}


def test_metric_merges_over_batches_and_processes():
    task, labels = SteeringTask(), random_labels(10, 3, 10, 10)
    predictions = task.decode(random_output(4).detach())
    whole, first, second = task.metric(), task.metric(), task.metric()
    whole.update(predictions, task.collate(labels))
    first.update(predictions[:1], task.collate(labels[:1]))
    first.update(predictions[1:2], task.collate(labels[1:2]))
    second.update(predictions[2:], task.collate(labels[2:]))
    first.merge_state(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_a_missing_label_adds_nothing_to_the_metric():
    task, labels = SteeringTask(), random_labels(10)
    predictions = task.decode(random_output(2).detach())
    with_missing, without = task.metric(), task.metric()
    with_missing.update(predictions, task.collate([labels[0], None]))
    without.update(predictions[:1], task.collate(labels))
    assert with_missing.compute() == without.compute()


def test_a_split_without_labels_has_no_score():
    metric = SteeringMetric()
    metric.update(torch.zeros(1, 10), {"angles": torch.zeros(1, 10), "valid": torch.zeros(1, 10, dtype=torch.bool)})
    scores = metric.compute()
    assert set(scores) == {"mae", "rmse"}
    assert math.isnan(scores["mae"])


# ---- predictions --------------------------------------------------------------------------------------------


def test_decode_gives_degrees():
    decoded = SteeringTask().decode(torch.full((2, 10), -1.5, dtype=torch.bfloat16))
    assert decoded.dtype == torch.float32
    assert decoded.tolist() == [[-150.0] * 10] * 2


def test_constant_predicts_the_mean_of_all_angles():
    labels = random_labels(10, 3, 10, 1)
    prediction = SteeringTask().constant(iter(labels))
    angles = [angle for label in labels for angle in label.tolist()]
    assert prediction.dtype == torch.float32
    assert prediction[0].tolist() == pytest.approx([sum(angles) / len(angles)] * 10)


def test_constant_without_labels_is_an_error():
    with pytest.raises(ValueError, match="no training label"):
        SteeringTask().constant(iter([]))


def test_network_maps_images_to_ten_angles():
    images = torch.randint(0, 256, (2, 3, 60, 96), dtype=torch.uint8)
    assert network_of(SteeringTask())(images).shape == (2, 10)


def test_there_is_nothing_to_restore():
    task = SteeringTask()
    task.fit(iter(random_labels(10)))
    assert task.state() == {}
