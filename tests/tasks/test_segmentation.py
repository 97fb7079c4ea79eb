import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datasets.a2d2.classes import SEMANTIC_CLASSES
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.spec import IGNORE
from tasks.segmentation import SegmentationTask
from tasks.segmentation_metric import SegmentationMetric
from tests.a2d2 import SEGMENTATION
from tests.parts import network_of

FRAME = Frame("a2d2", "20180807_145028", "000000091")
WEIGHTED = SegmentationTask.Settings(class_weights="inverse_log")

CLASSES = len(SEMANTIC_CLASSES)


def random_labels(number: int, height: int = 6, width: int = 9, seed: int = 0) -> list[np.ndarray]:
    """Labels with every class, about a tenth of the pixels without one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (number, height, width)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    return list(labels)


def random_logits(batch: int, height: int = 6, width: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CLASSES, height, width, generator=generator, requires_grad=True)


def slow_loss(logits: np.ndarray, label: np.ndarray, weights: np.ndarray) -> float:
    """One sample's weighted cross-entropy, pixel by pixel."""
    total, total_weight = 0.0, 0.0
    for row in range(label.shape[0]):
        for column in range(label.shape[1]):
            c = label[row, column]
            if c != IGNORE:
                scores = logits[:, row, column].astype(np.float64)
                total += weights[c] * (math.log(sum(math.exp(s) for s in scores)) - scores[c])
                total_weight += weights[c]
    return total / total_weight


def slow_metric(predictions: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """IoU from sets of pixels, class by class."""
    prediction, truth = np.concatenate(predictions).ravel(), np.concatenate(labels).ravel()
    pixels = [i for i in range(truth.size) if truth[i] != IGNORE]
    ious, shares, frequent = {}, {}, []
    for c, name in enumerate(SEMANTIC_CLASSES):
        true = {i for i in pixels if truth[i] == c}
        predicted = {i for i in pixels if prediction[i] == c}
        if true:
            ious[f"iou/{name}"] = len(true & predicted) / len(true | predicted)
            shares[f"share/{name}"] = len(true) / len(pixels)
            if shares[f"share/{name}"] > 0.005:
                frequent.append(ious[f"iou/{name}"])
    return (
        ious
        | shares
        | {
            "miou": sum(ious.values()) / len(ious),
            "miou_frequent": sum(frequent) / len(frequent),
            "accuracy": sum(bool(prediction[i] == truth[i]) for i in pixels) / len(pixels),
            "classes_present": len(ious),
        }
    )


# ---- files --------------------------------------------------------------------------------------------------


def write(processed: ProcessedData, array: np.ndarray) -> None:
    path = processed.path("segmentation", FRAME)
    path.parent.mkdir(parents=True)
    np.save(path, array)


def test_read_gives_the_label_as_it_lies(processed):
    label = np.array([[0, 37, IGNORE]], np.uint8)
    write(processed, label)
    read = SegmentationTask(spec=SEGMENTATION).read(processed, FRAME)
    assert read.dtype == np.uint8
    assert np.array_equal(read, label)


def test_a_missing_file_is_no_label(processed):
    assert SegmentationTask(spec=SEGMENTATION).read(processed, FRAME) is None


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), np.int64), r"is int64 with shape \(2, 2\)"),
        (np.zeros((2, 2, 3), np.uint8), r"shape \(2, 2, 3\)"),
        (np.full((2, 2), 38, np.uint8), "has class 38"),
        (np.full((2, 2), 254, np.uint8), "has class 254"),
        (np.array([[{}]], object), "Object arrays"),
    ],
)
def test_read_names_what_is_wrong(processed, array, reason):
    write(processed, array)
    with pytest.raises(ValueError, match=reason):
        SegmentationTask(spec=SEGMENTATION).read(processed, FRAME)


@pytest.mark.parametrize("length", [0, 5, 130])
def test_read_refuses_a_file_that_is_cut_off(processed, length):
    write(processed, np.zeros((4, 4), np.uint8))
    path = processed.path("segmentation", FRAME)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"not a whole \.npy file"):
        SegmentationTask(spec=SEGMENTATION).read(processed, FRAME)


# ---- targets ------------------------------------------------------------------------------------------------


def test_collate_marks_the_sample_without_label():
    labels = random_labels(2)
    classes = SegmentationTask(spec=SEGMENTATION).collate([labels[0], None, labels[1]])["classes"]
    assert classes.dtype == torch.uint8
    assert np.array_equal(classes[0], labels[0])
    assert (classes[1] == IGNORE).all()
    assert np.array_equal(classes[2], labels[1])


def test_hflip_mirrors_the_samples_asked_for():
    task = SegmentationTask(spec=SEGMENTATION)
    target, flip = task.collate(random_labels(3)), torch.tensor([True, False, True])
    flipped = task.hflip(target, flip)
    for i, label in enumerate(target["classes"].numpy()):
        assert np.array_equal(flipped["classes"][i], np.fliplr(label) if flip[i] else label)
    assert torch.equal(task.hflip(flipped, flip)["classes"], target["classes"])


# ---- loss ---------------------------------------------------------------------------------------------------


def test_loss_by_hand():
    # one pixel of class 0 with probability e / (e + 37), one of class 1 with probability 1 / 38, one without a class
    logits = torch.zeros(1, CLASSES, 1, 3)
    logits[0, 0, 0, 0] = 1
    losses, valid = SegmentationTask(spec=SEGMENTATION).loss(
        logits, {"classes": torch.tensor([[[0, 1, IGNORE]]], dtype=torch.uint8)}
    )
    expected = (-math.log(math.e / (math.e + 37)) + math.log(38)) / 2
    assert losses.tolist() == pytest.approx([expected])
    assert valid.tolist() == [True]


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_against_a_loop_over_pixels_and_against_torch(weighted):
    labels, logits = random_labels(3), random_logits(3)
    task = SegmentationTask(WEIGHTED if weighted else None, spec=SEGMENTATION)
    task.fit(iter(np.minimum(label, 36) for label in labels))  # skewed, so that the weights differ
    weights = task.class_weights if weighted else torch.ones(CLASSES)
    losses, valid = task.loss(logits, task.collate(labels))
    assert losses.dtype == torch.float32
    assert valid.all()
    for i, label in enumerate(labels):
        slow = slow_loss(logits[i].detach().numpy(), label, weights.numpy())
        assert losses[i].item() == pytest.approx(slow, rel=1e-5)
        classes = torch.from_numpy(label)[None].long()
        torch.testing.assert_close(losses[i], F.cross_entropy(logits[i : i + 1], classes, weights, ignore_index=IGNORE))


@pytest.mark.parametrize("settings", [None, WEIGHTED])
def test_a_missing_label_adds_nothing(settings):
    task = SegmentationTask(settings, spec=SEGMENTATION)
    labels, logits = random_labels(2), random_logits(3)
    task.fit(iter(labels))
    losses, valid = task.loss(logits, task.collate([labels[0], None, labels[1]]))
    assert valid.tolist() == [True, False, True]
    assert losses[1] == 0
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1] == 0).all()

    alone = random_logits(3)
    task.loss(alone[[0, 2]], task.collate(labels))[0].sum().backward()
    torch.testing.assert_close(logits.grad, alone.grad)
    no_class = torch.from_numpy(labels[0] == IGNORE)
    assert (logits.grad[0][:, no_class] == 0).all()
    assert (logits.grad[0][:, ~no_class] != 0).any()


def test_loss_of_half_precision_is_computed_in_float32():
    logits = random_logits(1).detach()
    task, labels = SegmentationTask(spec=SEGMENTATION), random_labels(1)
    losses, _ = task.loss(logits.bfloat16(), task.collate(labels))
    assert losses.dtype == torch.float32
    exact, _ = task.loss(logits.bfloat16().float(), task.collate(labels))
    assert torch.equal(losses, exact)


# ---- class weights ------------------------------------------------------------------------------------------


def test_class_weights_by_hand():
    # three quarters of the pixels with a class are class 0, one quarter is class 5
    task = SegmentationTask(WEIGHTED, spec=SEGMENTATION)
    task.fit(iter([np.array([[0, 0, IGNORE]], np.uint8), np.array([[0, 5, IGNORE]], np.uint8)]))
    weights = task.class_weights
    assert weights[0].item() == pytest.approx(1 / math.log(1.77))
    assert weights[5].item() == pytest.approx(1 / math.log(1.27))
    assert weights[1].item() == pytest.approx(1 / math.log(1.02))


def test_without_class_weights_fit_reads_no_label():
    def labels():
        raise AssertionError("read")
        yield

    task = SegmentationTask(spec=SEGMENTATION)
    task.fit(labels())
    assert task.state() == {}


def test_state_restores_the_class_weights():
    fitted, restored = (
        SegmentationTask(WEIGHTED, spec=SEGMENTATION),
        SegmentationTask(WEIGHTED, spec=SEGMENTATION),
    )
    fitted.fit(iter(random_labels(2)))
    restored.load_state(fitted.state())
    target, logits = fitted.collate(random_labels(2)), random_logits(2)
    assert torch.equal(restored.loss(logits, target)[0], fitted.loss(logits, target)[0])


def test_a_weighted_loss_without_weights_is_refused():
    task = SegmentationTask(WEIGHTED, spec=SEGMENTATION)
    with pytest.raises(RuntimeError, match="fit"):
        task.loss(random_logits(1), task.collate(random_labels(1)))


def test_without_training_labels_all_classes_weigh_alike():
    task = SegmentationTask(WEIGHTED, spec=SEGMENTATION)
    task.fit(iter([np.full((2, 2), IGNORE, np.uint8)]))
    target, logits = task.collate(random_labels(2)), random_logits(2)
    torch.testing.assert_close(task.loss(logits, target), SegmentationTask(spec=SEGMENTATION).loss(logits, target))


# ---- metric -------------------------------------------------------------------------------------------------


def test_metric_by_hand():
    # truth: 4 pixels of class 0, 2 of class 1; class 2 is predicted once but nowhere true
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1, IGNORE]]], dtype=torch.uint8)
    prediction = torch.tensor([[[0, 0, 0, 2, 1, 0, 5]]], dtype=torch.uint8)
    metric = SegmentationMetric(SEMANTIC_CLASSES)
    metric.update(prediction, {"classes": truth})
    assert metric.compute() == pytest.approx(
        {
            "iou/Car": 3 / 5,
            "iou/Bicycle": 1 / 2,
            "share/Car": 4 / 6,
            "share/Bicycle": 2 / 6,
            "miou": 0.55,
            "miou_frequent": 0.55,
            "accuracy": 4 / 6,
            "classes_present": 2,
        }
    )


def test_miou_frequent_leaves_out_classes_of_half_a_percent():
    truth = torch.zeros(1, 20, 20, dtype=torch.uint8)
    truth[0, 0, :2] = 1  # 2 of 400: exactly 0.5 %
    truth[0, 1, :3] = 2
    metric = SegmentationMetric(SEMANTIC_CLASSES)
    metric.update(torch.zeros_like(truth), {"classes": truth})
    scores = metric.compute()
    assert scores["miou_frequent"] == pytest.approx((395 / 400 + 0) / 2)
    assert scores["miou"] == pytest.approx((395 / 400) / 3)


def predictions_near(labels: list[np.ndarray], seed: int = 1) -> list[np.ndarray]:
    """Predictions that are right in about half of the pixels."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, CLASSES, (len(labels), *labels[0].shape)).astype(np.uint8)
    return [np.where((rng.random(n.shape) < 0.5) & (t != IGNORE), t, n) for n, t in zip(noise, labels, strict=True)]


def skewed_labels(number: int) -> list[np.ndarray]:
    """Most pixels of a few classes, some classes under 0.5 %, some absent."""
    rng = np.random.default_rng(3)
    classes = np.minimum(rng.geometric(0.25, (number, 20, 30)) - 1, CLASSES - 1).astype(np.uint8)
    classes[rng.random(classes.shape) < 0.1] = IGNORE
    return list(classes)


def test_metric_against_sets_of_pixels():
    labels = skewed_labels(4)
    predictions = predictions_near(labels)
    metric = SegmentationMetric(SEMANTIC_CLASSES)
    metric.update(torch.from_numpy(np.stack(predictions)), SegmentationTask(spec=SEGMENTATION).collate(labels))
    expected = slow_metric(predictions, labels)
    assert expected["miou"] != pytest.approx(expected["miou_frequent"], abs=0.01)
    assert metric.compute() == pytest.approx(expected)


def test_metric_merges_over_batches_and_processes():
    task, labels = SegmentationTask(spec=SEGMENTATION), skewed_labels(4)
    predictions = torch.from_numpy(np.stack(predictions_near(labels)))
    whole, first, second = task.metric(), task.metric(), task.metric()
    whole.update(predictions, task.collate(labels))
    first.update(predictions[:1], task.collate(labels[:1]))
    first.update(predictions[1:2], task.collate(labels[1:2]))
    second.update(predictions[2:], task.collate(labels[2:]))
    first.merge_state(second)
    assert first.compute() == whole.compute()


def test_a_missing_label_adds_nothing_to_the_metric():
    task, labels = SegmentationTask(spec=SEGMENTATION), skewed_labels(2)
    predictions = torch.from_numpy(np.stack(predictions_near(labels)))
    with_missing, without = task.metric(), task.metric()
    with_missing.update(predictions, task.collate([labels[0], None]))
    without.update(predictions[:1], task.collate(labels[:1]))
    assert with_missing.compute() == without.compute()


def test_a_split_without_labels_has_no_score():
    metric = SegmentationMetric(SEMANTIC_CLASSES)
    metric.update(torch.zeros(1, 2, 2, dtype=torch.uint8), {"classes": torch.full((1, 2, 2), IGNORE)})
    scores = metric.compute()
    assert math.isnan(scores["miou"])
    assert scores["classes_present"] == 0


# ---- predictions --------------------------------------------------------------------------------------------


def test_decode_takes_the_likeliest_class():
    logits = random_logits(2)
    decoded = SegmentationTask(spec=SEGMENTATION).decode(logits)
    assert decoded.dtype == torch.uint8
    assert np.array_equal(decoded, np.argmax(logits.detach().numpy(), axis=1))


def test_constant_takes_each_pixels_commonest_class():
    # 37 is the commonest class here: 0, what an empty count suggests, is not
    labels = [np.where(label == IGNORE, label, np.uint8(37) - label) for label in skewed_labels(9)]
    for label in labels:
        label[0, 0] = IGNORE
    prediction = SegmentationTask(spec=SEGMENTATION).constant(iter(labels))
    assert prediction.dtype == torch.uint8
    stack = np.stack(labels)
    overall = int(np.bincount(stack[stack != IGNORE]).argmax())
    ties = 0
    for row in range(20):
        for column in range(30):
            classes = [c for c in stack[:, row, column].tolist() if c != IGNORE]
            best = max(sorted(set(classes)), key=classes.count) if classes else overall
            ties += sum(classes.count(c) == classes.count(best) for c in set(classes)) > 1
            assert prediction[0, row, column] == best
    assert ties > 0
    assert prediction[0, 0, 0] == overall


def test_constant_without_labels_is_an_error():
    with pytest.raises(ValueError, match="no training label"):
        SegmentationTask(spec=SEGMENTATION).constant(iter([]))


def test_network_maps_images_to_logits_of_every_class():
    network = network_of(SegmentationTask(spec=SEGMENTATION), base_channels=4)
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    assert network(images).shape == (1, CLASSES, 32, 48)
    assert sum(p.numel() for p in network.parameters()) < sum(
        p.numel() for p in network_of(SegmentationTask(spec=SEGMENTATION), base_channels=8).parameters()
    )
