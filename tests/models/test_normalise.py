import pytest
import torch

from models.normalise import Normalise


def test_known_pixels():
    images = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8).view(2, 3, 1, 1)
    expected = torch.tensor(
        [[-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]]
    )
    torch.testing.assert_close(Normalise()(images).view(2, 3), expected)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_output_has_the_networks_memory_format(memory_format):
    normalise = Normalise()
    normalise.memory_format = memory_format
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for given in (images, images.to(memory_format=torch.channels_last)):
        assert normalise(given).is_contiguous(memory_format=memory_format)
