import torch

from models.normalise import Normalise


def test_known_pixels():
    images = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8).view(2, 3, 1, 1)
    expected = torch.tensor(
        [[-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]]
    )
    torch.testing.assert_close(Normalise()(images).view(2, 3), expected)


def test_memory_format_is_kept():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert Normalise()(images).is_contiguous(memory_format=torch.channels_last)
