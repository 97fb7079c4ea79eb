import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.densedepth import MAX_DEPTH, MIN_DEPTH, DenseDepth, bounded_exp
from models.heads import BoxHead, DenseHead, DepthHead, SteeringHead
from models.pooling import average_pool
from models.yolov1 import YOLOv1
from tasks.box import BoxTask
from tests.a2d2 import BOX
from tests.parts import head_of

C = 16


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def levels(h, w, b=2, channels=C):
    """P2-P5 of an h x w image."""
    return [torch.randn(b, channels, h >> i, w >> i) for i in (2, 3, 4, 5)]


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 160), (96, 32)])
def test_output_shapes(h, w):
    pyramid = levels(h, w)
    assert DenseHead(channels=C, out_channels=38)(pyramid).shape == (2, 38, h, w)
    assert DepthHead(channels=C, median_depth=15.0)(pyramid).shape == (2, 1, h, w)
    for grid in (1, 4, 16):  # also more cells than a level has pixels
        assert BoxHead(channels=C, classes=14, grid=grid, predictors=3)(pyramid).shape == (2, grid, grid, 3, 19)
    assert SteeringHead(channels=C, outputs=10)(pyramid).shape == (2, 10)


@pytest.mark.parametrize(
    "head",
    [
        DenseHead(channels=C, out_channels=38),
        DepthHead(channels=C, median_depth=15.0),
        BoxHead(channels=C, classes=14),
        SteeringHead(channels=C, outputs=10),
    ],
    ids=lambda head: type(head).__name__,
)
def test_samples_do_not_see_each_other_and_every_parameter_learns(head):
    pyramid = levels(64, 96)
    output = head.train()(pyramid)
    torch.testing.assert_close(output[:1], head([level[:1] for level in pyramid]), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in head.modules())
    output.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in head.parameters())


# ---- dense ------------------------------------------------------------------------------------------------------


def test_dense_heads_work_at_a_quarter_and_enlarge_the_logits():
    head = DenseHead(channels=C, out_channels=5)
    sizes = []
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-2:]))
    pyramid = levels(64, 96)
    output = head(pyramid)
    assert set(sizes) == {(16, 24)}
    small = head.output(head.convs(pyramid[0]))
    torch.testing.assert_close(output, F.interpolate(small, (64, 96), mode="bilinear", align_corners=False))


@pytest.mark.parametrize("head", [DenseHead(channels=C, out_channels=3), DepthHead(channels=C, median_depth=15.0)])
def test_dense_heads_read_p2_alone(head):
    pyramid = [level.requires_grad_() for level in levels(64, 64)]
    head(pyramid).sum().backward()
    assert [level.grad is not None for level in pyramid] == [True, False, False, False]


@pytest.mark.parametrize("median", [2.0, 15.8, 70.0])
def test_a_new_depth_head_says_the_median_everywhere(median):
    depth = DepthHead(channels=C, median_depth=median)(levels(64, 64))
    torch.testing.assert_close(depth, torch.full_like(depth, median), rtol=0.05, atol=0)


@pytest.mark.parametrize("bias", [-1e8, -1e3, 1e3, 1e8])
def test_depth_stays_in_densedepths_range(bias):
    head = DepthHead(channels=C, median_depth=15.0)
    head.output.bias.data.fill_(bias)
    depth = head(levels(32, 32))
    assert MIN_DEPTH * 0.9999 <= depth.min() <= depth.max() <= MAX_DEPTH * 1.0001


def test_depth_is_enlarged_as_a_log_depth():
    head = DepthHead(channels=C, median_depth=15.0)
    nn.init.normal_(head.output.weight)
    pyramid = levels(64, 64)
    log_depth = head.output(head.convs(pyramid[0]))
    expected = bounded_exp(F.interpolate(log_depth, (64, 64), mode="bilinear", align_corners=False))
    depth = head(pyramid)
    torch.testing.assert_close(depth, expected)
    linear = F.interpolate(bounded_exp(log_depth), (64, 64), mode="bilinear", align_corners=False)
    assert not torch.allclose(depth, linear, rtol=0.01)
    assert DenseDepth(median_depth=15.0, encoder="small").output.bias.item() == head.output.bias.item()


def test_depth_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert DepthHead(channels=C, median_depth=15.0)(levels(32, 32)).dtype == torch.float32


# ---- box --------------------------------------------------------------------------------------------------------


def test_a_new_box_head_sees_next_to_nothing():
    output = BoxHead(channels=C, classes=14)(levels(128, 128))
    assert output[..., 4].median() < math.log(0.05 / 0.95)
    bias = BoxHead(channels=C, classes=14).output.bias.view(10, 19)
    torch.testing.assert_close(bias[:, 4].sigmoid(), torch.full((10,), 0.01))
    assert not bias[:, [0, 1, 2, 3, *range(5, 19)]].any()


def test_box_outputs_lie_as_yolos():
    """The same channel of the last convolution is the same number of the same predictor, in rows and columns."""
    head, yolo = BoxHead(channels=C, classes=14, grid=4), YOLOv1(classes=14, grid=4, base_channels=4, pairs=(1,))
    inputs = torch.randn(2, head.output.in_channels, 4, 4)
    for output in (head.output, yolo.output):
        raw = F.conv2d(inputs[:, : output.in_channels], output.weight, output.bias)  # B 190 S S
        found = output(inputs[:, : output.in_channels])
        for channel in (0, 18, 19, 189):
            torch.testing.assert_close(found[:, :, :, channel // 19, channel % 19], raw[:, channel])


def test_box_cells_are_rows_and_columns_of_the_image():
    head = BoxHead(channels=C, classes=14)
    pyramid = levels(256, 512)
    lit = [level.clone() for level in pyramid]
    lit[0][:, :, :2, -4:] += 10  # P2, top right
    # without norms, which tell every place of every change
    for norm in [module for module in head.modules() if isinstance(module, nn.GroupNorm)]:
        norm.forward = lambda x: x
    change = (head(lit) - head(pyramid)).abs().sum((0, 3, 4))  # rows, columns
    assert change[0, 7] > 0
    assert change[3:].max() == change[:, :5].max() == 0


def test_a_box_cell_tells_apart_what_lies_within_it():
    """Two things swap places inside one cell of the grid: their mean stays, the output does not."""
    head = BoxHead(channels=C, classes=14, grid=2).eval()
    pyramid = [torch.zeros(1, C, 64 >> i, 64 >> i) for i in range(4)]
    a, b = ([level.clone() for level in pyramid] for _ in range(2))
    a[0][:, :, :16, :16], b[0][:, :, 16:32, 16:32] = 1, 1
    assert a[0][:, :, :32, :32].mean() == b[0][:, :, :32, :32].mean()
    assert (head(a) - head(b))[0, 0, 0].abs().max() > 0.05


def shuffled_within(level, size):
    """B C H W with the pixels of each size x size block in another order, the same in all."""
    blocks = F.unfold(level, size, stride=size).unflatten(1, (level.shape[1], -1))  # B C size*size blocks
    blocks = blocks[:, :, torch.randperm(size * size)].flatten(1, 2)
    return F.fold(blocks, level.shape[-2:], size, stride=size)


def averaged_to_twice(grid, pyramid):
    """What a cheaper head would look at."""
    return [average_pool(level, 2 * grid, 2 * grid) for level in pyramid]


def test_the_order_of_pixels_within_half_a_cell_reaches_the_box_head():
    """P2 of 64 x 64 and S = 2: were the levels averaged to twice the grid, 16 x 16 pixels would be one."""
    pyramid = [level.double() for level in levels(256, 256)]
    shuffled = [shuffled_within(pyramid[0], 16), *pyramid[1:]]
    for a, b in zip(averaged_to_twice(2, pyramid), averaged_to_twice(2, shuffled), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    head = BoxHead(channels=C, classes=14, grid=2).double()
    assert (head(shuffled) - head(pyramid)).abs().max() > 0.01


def small_objects(generator, looks, b):
    """P2-P5 of a 256 x 256 image, a target for S = 2: in a cell, by chance, an object of 24 x 24 px (6 x 6 on P2).

    looks: 2 x C, what an object of either class adds to P2, on top of clutter of about the same strength and size.
    """
    clutter = F.interpolate(torch.randn(b, C, 16, 16, generator=generator), scale_factor=4, mode="bilinear")
    p2 = clutter + 0.3 * torch.randn(b, C, 64, 64, generator=generator)
    there = torch.rand(b, 4, generator=generator) < 0.5
    kinds = torch.randint(0, 2, (b, 4), generator=generator)
    corners = torch.randint(0, 27, (b, 4, 2), generator=generator)
    corners += 32 * torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])  # x, y of the cells
    for i, cell in there.nonzero().tolist():
        x, y = corners[i, cell].tolist()
        p2[i, :, y : y + 6, x : x + 6] += looks[kinds[i, cell], :, None, None]
    boxes = torch.cat([corners, corners + 6], -1) / 64
    target = {"boxes": boxes, "labels": kinds.where(there, -1), "present": torch.ones(b, dtype=torch.bool)}
    return [p2, *(F.avg_pool2d(p2, 1 << i) for i in (1, 2, 3))], target


def loss_on_small_objects(looked_at, seed, steps=150):
    """Of presence and class alone, on samples that were not trained on.

    looked_at: the pyramid -> what the head is given of it.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    looks = 6 * F.normalize(torch.randn(2, C, generator=generator), dim=1)  # 1.5 a channel
    task = BoxTask(BoxTask.Settings(grid=2, predictors=1, lambda_coord=0.0), spec=BOX)
    network = head_of(task, C)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(steps):
        pyramid, target = small_objects(generator, looks, 8)
        optimiser.zero_grad()
        task.loss(network(looked_at(pyramid)), target)[0].mean().backward()
        optimiser.step()
    pyramid, target = small_objects(generator, looks, 128)
    with torch.no_grad():
        return task.loss(network(looked_at(pyramid)), target)[0].mean().item()


def test_the_box_head_learns_small_objects_faster_at_the_levels_own_resolution():
    """Equal steps, learning rate and samples; an object covers 14 % of what the average over half a cell makes one."""
    own = loss_on_small_objects(lambda pyramid: pyramid, seed=0)
    averaged = loss_on_small_objects(partial(averaged_to_twice, 2), seed=0)
    print(f"loss after 150 steps: at their own resolution {own:.3f}, averaged {averaged:.3f}")
    assert own < 0.85 * averaged  # seeds 0-2: 0.48, 0.42, 0.48


@pytest.mark.parametrize("level", range(4))
def test_the_box_head_reads_every_level(level):
    head = BoxHead(channels=C, classes=14)
    pyramid = levels(64, 64)
    changed = [x + (torch.randn_like(x) if i == level else 0) for i, x in enumerate(pyramid)]
    assert (head(changed) - head(pyramid)).abs().max() > 0.01


# ---- steering ---------------------------------------------------------------------------------------------------


def test_steering_knows_where():
    """A thing at the left and the same at the right: global pooling could not tell them apart."""
    head = SteeringHead(channels=C, outputs=10).eval()
    pyramid = [torch.zeros(1, C, 64 >> i, 128 >> i) for i in range(4)]
    pyramid[1][..., 10:20, 4:12] = 1
    mirrored = [level.flip(-1) for level in pyramid]
    assert (head(pyramid) - head(mirrored)).abs().max() > 0.01


def test_steering_sees_the_whole_image():
    head = SteeringHead(channels=C, outputs=10)
    pyramid = [level.requires_grad_() for level in levels(128, 256, b=1)]
    head(pyramid).sum().backward()
    assert (pyramid[1].grad.abs().sum((0, 1)) > 0).all()


def test_steering_learns_on_from_wherever_a_few_steps_have_brought_it():
    """13 steps of Adam at 0.004 move a weight by 0.05; all one way, they once left every unit without a gradient."""
    head, pyramid = SteeringHead(channels=C, outputs=10), levels(64, 160)
    with torch.no_grad():
        head.dense[0].weight.sub_(0.05)
    before = head(pyramid)
    before.sum().backward()
    assert (head.dense[0].weight.grad.norm(dim=1) > 1e-4).all()
    assert not torch.allclose(before, head.dense[-1].bias)
