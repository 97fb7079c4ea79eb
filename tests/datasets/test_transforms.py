"""Augmentation: the image and all its labels together, and nothing but a function of seed, epoch, frame and visit."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from datasets.a2d2.spec import LABELS
from datasets.frames import Frame
from datasets.samples import Batch, Collate, Sample
from datasets.transforms import Augmentation, brightened, contrasted, saturated
from tasks import TASKS
from tasks.box import BoxLabel

WIDTH, HEIGHT = 12, 8
COLUMN, ROW = 2, 5
NAMES = ("segmentation", "steering", "box", "depth")
ALL = {name: TASKS[name](spec=LABELS.get(name)) for name in NAMES}


def augmentation(hflip: float = 0.5, jitter: float = 0.0, seed: int = 0) -> Augmentation:
    return Augmentation(hflip=hflip, brightness=jitter, contrast=jitter, saturation=jitter, seed=seed)


def item(number: int, names: tuple[str, ...] = NAMES, missing: tuple[str, ...] = ()) -> dict[str, Any]:
    """A frame with a marker at (ROW, COLUMN) of image and maps, a box around it, and an angle."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 200, (HEIGHT, WIDTH, 3), np.uint8)
    image[ROW, COLUMN] = 255
    classes, depth = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint16)
    classes[ROW, COLUMN], depth[ROW, COLUMN] = 7, 60_000
    edges = np.array([[COLUMN / WIDTH, ROW / HEIGHT, (COLUMN + 1) / WIDTH, (ROW + 1) / HEIGHT]], np.float32)
    labels = {
        "segmentation": classes,
        "depth": depth,
        "box": BoxLabel(edges, np.array([3])),
        "steering": np.array([10.0, -20.0], np.float32),
    }
    wanted = {name: None if name in missing else labels[name] for name in names}
    sample = Sample(Frame("a2d2", "20180807_145028", f"{number:09d}"), names)
    return {"sample": sample, "nth": 0, "image": torch.from_numpy(image), "labels": wanted}


def batch_of(*items: dict[str, Any]) -> Batch:
    return Collate(ALL)(list(items))


def pixels(maps: torch.Tensor, value: int) -> list[list[int]]:
    """[sample, row, column] of the pixels with the value."""
    return (maps.int() == value).nonzero().tolist()


def test_flip_moves_the_image_and_all_labels_together() -> None:
    before = batch_of(item(1), item(2))
    after = augmentation(hflip=1.0)(before, ALL, epoch=0)
    mirrored = WIDTH - 1 - COLUMN
    assert torch.equal(after.images, before.images.flip(-1))
    assert pixels(after.images[:, 0], 255) == [[0, ROW, mirrored], [1, ROW, mirrored]]
    assert pixels(after.targets["segmentation"]["classes"], 7) == [[0, ROW, mirrored], [1, ROW, mirrored]]
    assert pixels(after.targets["depth"]["depth"], 60_000) == [[0, ROW, mirrored], [1, ROW, mirrored]]
    assert after.targets["depth"]["depth"].dtype == torch.uint16
    left, top, right, bottom = after.targets["box"]["boxes"][0, 0].tolist()
    assert [left * WIDTH, right * WIDTH] == pytest.approx([WIDTH - (COLUMN + 1), WIDTH - COLUMN], abs=1e-5)
    assert [top * HEIGHT, bottom * HEIGHT] == pytest.approx([ROW, ROW + 1])
    assert after.targets["steering"]["angles"][1, -2:].tolist() == [-10.0, 20.0]
    assert after.samples == before.samples


def test_some_samples_flip_and_each_with_all_its_labels() -> None:
    before = batch_of(*map(item, range(40)))
    after = augmentation()(before, ALL, epoch=0)
    flipped = after.targets["steering"]["angles"][:, -1] > 0
    assert 8 < flipped.sum() < 32
    for sample, moved in enumerate(flipped.tolist()):
        column = WIDTH - 1 - COLUMN if moved else COLUMN
        assert pixels(after.images[sample, :1], 255) == [[0, ROW, column]]
        assert pixels(after.targets["segmentation"]["classes"][sample : sample + 1], 7) == [[0, ROW, column]]
        assert pixels(after.targets["depth"]["depth"][sample : sample + 1], 60_000) == [[0, ROW, column]]
        assert int(after.targets["box"]["boxes"][sample, 0, 0] * WIDTH + 0.5) == column


def test_only_the_samples_with_a_label_are_flipped_with_it() -> None:
    """Every other frame lacks steering: angles and places stay side by side."""
    before = batch_of(*(item(number, missing=("steering",) if number % 2 else ()) for number in range(40)))
    after = augmentation()(before, ALL, epoch=0)
    mirrored = [pixels(after.images[sample, :1], 255) != [[0, ROW, COLUMN]] for sample in range(40)]
    assert after.places["steering"].tolist() == list(range(0, 40, 2))
    assert (after.targets["steering"]["angles"][:, -1] > 0).tolist() == mirrored[::2]
    assert 4 < sum(mirrored[::2]) < 16


def test_probability_zero_and_no_jitter_change_nothing() -> None:
    before = batch_of(*map(item, range(20)))
    after = augmentation(hflip=0.0)(before, ALL, epoch=3)
    assert torch.equal(after.images, before.images)
    for name, target in before.targets.items():
        assert all(torch.equal(after.targets[name][key], value) for key, value in target.items())


def test_jitter_changes_the_image_only() -> None:
    before = batch_of(*map(item, range(4)))
    after = augmentation(hflip=0.0, jitter=0.5)(before, ALL, epoch=0)
    assert after.images.dtype == torch.uint8
    assert all(not torch.equal(a, b) for a, b in zip(after.images, before.images, strict=True))
    assert torch.equal(after.targets["segmentation"]["classes"], before.targets["segmentation"]["classes"])


@pytest.mark.parametrize("adjusted", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvisions_with_a_factor_for_each_sample(adjusted: str) -> None:
    """But for the last bit of the product, which a truncation now and then turns into one unit."""
    images = torch.randint(0, 256, (6, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([0.0, 0.5, 0.8, 1.0, 1.3, 2.0])
    ours = {"brightness": brightened, "contrast": contrasted, "saturation": saturated}[adjusted]
    theirs = getattr(functional, f"adjust_{adjusted}")
    found = ours(images, factors[:, None, None, None]).int()
    expected = torch.stack([theirs(image, float(factor)) for image, factor in zip(images, factors, strict=True)]).int()
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01
    assert torch.equal(found[3], images[3].int())


def test_a_sample_does_not_see_its_batch() -> None:
    """Alone, among others, in another order: the same image. A neighbour's labels change nothing either."""
    augment = augmentation(jitter=0.3)
    items = [item(number, missing=("depth",) if number % 2 else ()) for number in range(12)]
    together = augment(batch_of(*items), ALL, epoch=2)
    reversed_ = augment(batch_of(*reversed(items)), ALL, epoch=2)
    for number, one in enumerate(items):
        alone = augment(batch_of(one), ALL, epoch=2)
        assert torch.equal(alone.images[0], together.images[number])
        assert torch.equal(alone.images[0], reversed_.images[-1 - number])
        assert torch.equal(alone.targets["box"]["boxes"][0], together.targets["box"]["boxes"][number])


def test_it_depends_on_seed_epoch_frame_and_visit_but_not_on_the_labels() -> None:
    image = item(0)["image"]
    numbers = range(16)

    def images(
        seed: int = 0, epoch: int = 0, names: tuple[str, ...] = NAMES, first: int = 0, nth: int = 0
    ) -> torch.Tensor:
        items = [item(first + number, names) | {"image": image, "nth": nth} for number in numbers]
        return augmentation(jitter=0.3, seed=seed)(batch_of(*items), ALL, epoch).images

    base = images()
    assert torch.equal(base, images())
    assert torch.equal(base, images(names=("depth",)))
    for other in (images(seed=1), images(epoch=1), images(nth=1), images(first=100)):
        assert all(not torch.equal(a, b) for a, b in zip(base, other, strict=True))


def test_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    augmentation(jitter=0.3)(batch_of(*map(item, range(4))), ALL, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
