"""Merged classes against the slow obvious way: pixel by pixel, probabilities added one by one."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.a2d2.classes import MERGED_CLASSES, SEMANTIC_CLASSES
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.spec import IGNORE
from errors import UserError
from tasks.depth import DepthTask
from tasks.merged import MergedSegmentation, merge_logits
from tasks.segmentation import SegmentationTask
from tests.a2d2 import DEPTH, SEGMENTATION, merged
from training.report import merge_classes

HEIGHT, WIDTH = 5, 7
NAMES = tuple(MERGED_CLASSES)
MEMBERS = SEGMENTATION.classes.members()


def slow_probabilities(scores: list[float]) -> list[float]:
    """38 scores of a pixel -> 19 probabilities."""
    exponentials = [math.exp(score) for score in scores]
    probabilities = dict(zip(SEMANTIC_CLASSES, (value / sum(exponentials) for value in exponentials), strict=True))
    return [sum(probabilities[name] for name in members) for members in MERGED_CLASSES.values()]


def slow_merged(label: int) -> int:
    for index, members in enumerate(MERGED_CLASSES.values()):
        if label != IGNORE and SEMANTIC_CLASSES[label] in members:
            return index
    return IGNORE


def logits_and_label(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(SEMANTIC_CLASSES), (2, HEIGHT, WIDTH)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = IGNORE
    return torch.from_numpy(3 * rng.standard_normal((2, len(SEMANTIC_CLASSES), HEIGHT, WIDTH))), label


def test_every_class_belongs_to_exactly_one_of_nineteen() -> None:
    members = [name for names in MERGED_CLASSES.values() for name in names]
    assert sorted(members) == sorted(SEMANTIC_CLASSES)
    assert len(NAMES) == 19
    assert [SEGMENTATION.classes.merged_of_class()[label] for label in (*range(38), IGNORE)] == [
        slow_merged(label) for label in (*range(38), IGNORE)
    ]


def test_probabilities_are_merged_before_the_argmax() -> None:
    logits, _ = logits_and_label()
    found, probabilities = (
        merged().decode(logits),
        merge_logits(logits, MEMBERS).softmax(1),
    )
    differs = 0
    for batch, row, column in np.ndindex(2, HEIGHT, WIDTH):
        scores = logits[batch, :, row, column].tolist()
        expected = slow_probabilities(scores)
        np.testing.assert_allclose(probabilities[batch, :, row, column], expected, rtol=1e-12)
        assert found[batch, row, column] == int(np.argmax(expected))
        differs += slow_merged(int(np.argmax(scores))) != int(np.argmax(expected))
    assert differs  # merging after the argmax would not do


def test_large_logits_do_not_overflow() -> None:
    logits = torch.zeros(1, 38, 1, 1, dtype=torch.float16)
    logits[:, SEMANTIC_CLASSES.index("Dashed line")] = 60000
    assert NAMES[merged().decode(logits).item()] == "Lane lines"


def test_labels_metric_and_constant_predictor_are_merged(processed: ProcessedData) -> None:
    task, frame = (
        merged(),
        Frame("a2d2", "20180807_145028", "000000091"),
    )
    logits, label = logits_and_label(1)
    path = processed.path("segmentation", frame)
    path.parent.mkdir(parents=True)
    np.save(path, label[0])
    read = task.read(processed, frame)
    assert [[slow_merged(int(value)) for value in row] for row in label[0]] == read.tolist()

    metric = task.metric()
    predictions = task.decode(logits[:1])
    metric.update(predictions, task.collate([read]))
    scores = metric.compute()
    truth, guess = read.ravel(), predictions.numpy().ravel()
    for index, name in enumerate(NAMES):
        true = {i for i in range(truth.size) if truth[i] == index}
        predicted = {i for i in range(truth.size) if truth[i] != IGNORE and guess[i] == index}
        assert (f"iou/{name}" in scores) == bool(true)
        if true:
            assert math.isclose(scores[f"iou/{name}"], len(true & predicted) / len(true | predicted))
    assert task.constant([read]).max() < 19


def test_loss_is_that_of_the_merged_probabilities() -> None:
    task = merged()
    logits, label = logits_and_label(2)
    losses, valid = task.loss(logits, task.collate(list(SEGMENTATION.classes.merged_of_class()[label])))
    assert valid.all()
    for batch in range(2):
        expected = []
        for row, column in np.ndindex(HEIGHT, WIDTH):
            if (true := int(label[batch, row, column])) != IGNORE:
                probabilities = slow_probabilities(logits[batch, :, row, column].tolist())
                expected.append(-math.log(probabilities[slow_merged(true)]))
        assert math.isclose(losses[batch].item(), sum(expected) / len(expected), rel_tol=1e-9)


def test_evaluate_replaces_the_task_of_each_network_that_has_it() -> None:
    with_it = SimpleNamespace(
        tasks={"segmentation": SegmentationTask(spec=SEGMENTATION), "depth": DepthTask(spec=DEPTH)}
    )
    without = SimpleNamespace(tasks={"depth": DepthTask(spec=DEPTH)})
    merge_classes([with_it, without])
    assert [type(task) for task in with_it.tasks.values()] == [MergedSegmentation, DepthTask]
    assert list(without.tasks) == ["depth"]
    with pytest.raises(UserError, match="none of the checkpoints was trained for segmentation"):
        merge_classes([without])
