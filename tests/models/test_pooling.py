import pytest
import torch
import torch.nn.functional as F

from models.pooling import average_pool, max_pool

CASES = [((8, 8), (4, 4)), ((7, 5), (3, 2)), ((3, 5), (8, 16)), ((4, 6), (8, 12)), ((1, 1), (2, 3)), ((9, 4), (9, 2))]


@pytest.mark.parametrize(("size", "cells"), CASES)
@pytest.mark.parametrize(("ours", "theirs"), [(average_pool, F.adaptive_avg_pool2d), (max_pool, F.adaptive_max_pool2d)])
def test_values_and_gradients_are_torchs(ours, theirs, size, cells):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, *cells, dtype=torch.float64)
    found, expected = ours(x, *cells), theirs(x, cells)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((pooled * weights).sum(), x)[0] for pooled in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_bf16_keeps_its_precision():
    """Sums of thousands of elements are taken in float32 inside the product."""
    x = 1 + torch.rand(1, 2, 96, 96).bfloat16()
    found = average_pool(x, 2, 2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.adaptive_avg_pool2d(x.float(), 2), rtol=0.01, atol=0)
