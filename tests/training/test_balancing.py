import copy
import math

import pytest
import torch
from torch import nn
from torchjd.aggregation import PCGrad, Sum, UPGrad
from torchjd.autojac import mtl_backward

from datasets.a2d2.spec import LABELS
from errors import UserError
from models.encoder import Encoder
from models.multitask import MultiTask
from tasks import TASKS
from tests.conftest import ROOT
from tests.parts import head_of
from training.config import GroupConfig, load_config
from training.methods.fixed import Fixed
from training.methods.gradients import AGGREGATORS, Aggregated
from training.methods.similarity import GradientSimilarity, cosine_similarities
from training.methods.uncertainty import Uncertainty
from training.runs import SYMMETRIC, SymmetricRun
from training.updates import Group

WEIGHTS = {"a": 1.0, "b": 0.5, "c": 3.0}
SAMPLES = 8


class Net(nn.Module):
    """A shared layer and three heads, float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()).double()
        self.heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in WEIGHTS}).double()

    def losses(self, inputs, tasks=tuple(WEIGHTS)):
        """B losses a task, that pull in different directions."""
        features = self.shared(inputs)
        return {
            task: (self.heads[task](features).squeeze(1) - 3 * list(WEIGHTS).index(task) + 3) ** 2 for task in tasks
        }


def samples(n=SAMPLES, seed=1):
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def valid(n=SAMPLES):
    """Of sample 2, a has no valid label; of 3 and 4, b has none."""
    masks = {task: torch.ones(n, dtype=torch.bool) for task in WEIGHTS}
    masks["a"][2] = False
    masks["b"][3:5] = False
    return masks


def in_parts(tensors, size):
    return [
        dict(zip(tensors, part, strict=True)) for part in zip(*(t.split(size) for t in tensors.values()), strict=True)
    ]


def gradients(parameters):
    return [parameter.grad for parameter in parameters]


def close(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- fixed --------------------------------------------------------------------------------------------------------


def test_fixed_is_the_weighted_sum_over_valid_samples():
    losses = {"a": torch.tensor([1.0, 2.0, 4.0]), "b": torch.tensor([10.0, 20.0, 40.0])}
    masks = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, False, True])}
    fixed = Fixed({"a": 2.0, "b": 0.25, "c": 7.0})
    assert fixed.weighted(losses, masks).item() == 2 * (1 + 4) + 0.25 * 40
    assert fixed.weighted({"b": losses["b"]}, masks).item() == 10
    assert fixed.weights() == {"a": 2.0, "b": 0.25, "c": 7.0}
    assert fixed.parameters_of("a") == []


def test_fixed_backward_with_a_loss_scale():
    x = torch.tensor([3.0, 5.0], requires_grad=True)
    Fixed({"a": 2.0}).backward({"a": x**2}, {"a": torch.tensor([True, False])}, loss_scale=8.0)
    assert x.grad.tolist() == [8 * 2 * 2 * 3, 0]


# ---- uncertainty ----------------------------------------------------------------------------------------------------


KINDS = {"r": "regression", "c": "classification"}


def test_uncertainty_by_hand():
    balancing = Uncertainty(KINDS, learning_rate=0.01, dtype=torch.float64)
    balancing.s["r"].data.fill_(0.7)
    balancing.s["c"].data.fill_(-1.3)
    losses = {"r": torch.tensor([2.0, 99.0, 3.0]).double(), "c": torch.tensor([0.5, 0.25, 99.0]).double()}
    masks = {"r": torch.tensor([True, False, True]), "c": torch.tensor([True, True, False])}
    expected = (math.exp(-0.7) / 2 * 2 + 0.7 / 2) + (math.exp(-0.7) / 2 * 3 + 0.7 / 2)
    expected += (math.exp(1.3) * 0.5 - 1.3 / 2) + (math.exp(1.3) * 0.25 - 1.3 / 2)
    total = balancing.weighted(losses, masks)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    total.backward()
    assert balancing.s["r"].grad.item() == pytest.approx(-math.exp(-0.7) / 2 * 5 + 2 / 2, rel=1e-12)
    assert balancing.s["c"].grad.item() == pytest.approx(-math.exp(1.3) * 0.75 + 2 / 2, rel=1e-12)
    assert balancing.weights() == pytest.approx({"r": math.exp(-0.7) / 2, "c": math.exp(1.3)})


def test_an_invalid_sample_adds_nothing_at_all():
    balancing = Uncertainty(KINDS, learning_rate=0.01)
    balancing.s["r"].data.fill_(2.0)
    losses, nobody = {"r": torch.zeros(3)}, {"r": torch.zeros(3, dtype=torch.bool)}
    total = balancing.weighted(losses, nobody)
    assert total.item() == 0
    total.backward()
    assert balancing.s["r"].grad.item() == 0
    assert balancing.s["c"].grad is None  # not in this micro-batch


def test_uncertainty_finds_the_loss_as_variance():
    """For a constant loss L the sum is least at s = ln L (regression) and ln 2 L (classification)."""
    balancing = Uncertainty(KINDS, learning_rate=0.01)
    optimizer = torch.optim.Adam([*balancing.parameters_of("r"), *balancing.parameters_of("c")], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        losses = {"r": torch.full((4,), 5.0), "c": torch.full((4,), 0.1)}
        balancing.backward(losses, {task: torch.ones(4, dtype=torch.bool) for task in losses})
        optimizer.step()
    assert balancing.s["r"].item() == pytest.approx(math.log(5), abs=0.02)
    assert balancing.s["c"].item() == pytest.approx(math.log(0.2), abs=0.02)


@pytest.mark.parametrize(("start", "loss", "limit"), [(50.0, 1e9, 6.0), (-50.0, 1e-9, -6.0)])
def test_s_stays_in_range_and_comes_back(start, loss, limit):
    balancing = Uncertainty({"r": "regression"}, learning_rate=0.01)
    balancing.s["r"].data.fill_(start)
    one = torch.ones(1, dtype=torch.bool)
    total = balancing.weighted({"r": torch.tensor([loss])}, {"r": one})
    assert total.item() == pytest.approx(math.exp(-limit) / 2 * loss + limit / 2)
    assert balancing.s["r"].item() == limit
    total.backward()  # for this loss s would rather go further
    assert balancing.s["r"].grad.sign() == -math.copysign(1, limit)
    balancing.s["r"].grad = None
    balancing.weighted({"r": torch.tensor([1.0])}, {"r": one}).backward()  # and for this one back
    assert balancing.s["r"].grad.sign() == math.copysign(1, limit)


def test_s_is_not_decayed():
    balancing = Uncertainty({"r": "regression"}, learning_rate=0.01)
    config = GroupConfig(batch_size=1, learning_rate=0.1, weight_decay=0.5)
    head = nn.Linear(2, 1)
    own, rate = balancing.parameters_of("r"), balancing.learning_rate
    group = Group("r", head.parameters(), config, 1.0, balancing=own, balancing_rate=rate)
    parts = {id(p): part for part in group.optimizer.param_groups for p in part["params"]}
    assert parts[id(balancing.s["r"])]["weight_decay"] == 0
    assert parts[id(balancing.s["r"])]["lr"] == 0.01
    assert parts[id(head.weight)]["weight_decay"] == 0.5


def test_uncertainty_resumes():
    balancing, other = Uncertainty(KINDS, learning_rate=0.01), Uncertainty(KINDS, learning_rate=0.01)
    balancing.s["c"].data.fill_(1.5)
    other_s = other.s["c"]
    other.load_state(balancing.state())
    assert other.s["c"] is other_s  # the optimiser holds it
    assert other.weights() == balancing.weights() != Uncertainty(KINDS, learning_rate=0.01).weights()


def test_every_task_says_which_likelihood_it_has():
    kinds = {name: task.likelihood for name, task in TASKS.items()}
    assert set(kinds.values()) == {"regression", "classification"}
    assert Uncertainty(kinds, learning_rate=0.01).weights() == {
        n: 0.5 if k == "regression" else 1.0 for n, k in kinds.items()
    }


# ---- aggregated gradients -------------------------------------------------------------------------------------------


def run(name, size, masks=None, seed=0, net=None):
    """All samples in micro-batches of `size`, then one aggregation."""
    net = net or Net()
    masks = masks or valid()
    balancing = Aggregated(name, WEIGHTS, net.shared.parameters(), seed=seed)
    for part, mask in zip(samples().split(size), in_parts(masks, size), strict=True):
        balancing.backward(net.losses(part), mask)
    assert all(parameter.grad is None for parameter in net.shared.parameters())
    balancing.aggregate(SAMPLES)
    return net, balancing


def mean_rows(masks=None):
    """What the rows must be before they are aggregated: T x N, by autograd, one task after the other.

    Means over all frames, those without the task's label included.
    """
    net, masks = Net(), masks or valid()
    parameters = list(net.shared.parameters())
    rows = []
    for task, losses in net.losses(samples()).items():
        mean = WEIGHTS[task] * losses[masks[task]].sum() / SAMPLES
        gradient = torch.autograd.grad(mean, parameters, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in gradient]))
    return torch.stack(rows)


def flat_gradient(net):
    return torch.cat([parameter.grad.flatten() for parameter in net.shared.parameters()])


def test_the_plain_sum_of_the_rows_is_the_gradient_of_fixed_weights():
    """With labels missing too: both divide by frames."""
    net = Net()
    Fixed(WEIGHTS).backward(net.losses(samples()), valid())
    group = Group("shared", net.shared.parameters(), GroupConfig(batch_size=SAMPLES, learning_rate=0.1), 1e9)
    group.optimizer.step = lambda: None
    expected = [parameter.grad / SAMPLES for parameter in net.shared.parameters()]
    group.count = SAMPLES
    norm = group.step(group.prepare(1.0).tolist()).gradient_norm
    other = Net()
    balancing = Aggregated("upgrad", WEIGHTS, other.shared.parameters())
    balancing.aggregator = Sum()
    balancing.backward(other.losses(samples()), valid())
    balancing.aggregate(SAMPLES)
    close([parameter.grad for parameter in other.shared.parameters()], expected)
    assert norm == pytest.approx(float(flat_gradient(other).norm()))


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_do_not_matter(name, size):
    whole, in_pieces = run(name, SAMPLES)[0], run(name, size)[0]
    close(gradients(in_pieces.parameters()), gradients(whole.parameters()))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_gradient_is_torchjds_aggregation_of_the_mean_gradients(name):
    rows = mean_rows()
    torch.manual_seed(5)
    expected = AGGREGATORS[name]()(rows)
    close([flat_gradient(run(name, 2, seed=5)[0])], [expected], 1e-9)


def test_the_rows_conflict():
    """Else the test above would pass without any surgery."""
    rows = mean_rows()
    assert min((rows @ rows.T).flatten()) < 0
    assert not torch.allclose(UPGrad()(rows), rows.mean(0), rtol=1e-3)
    assert not torch.allclose(PCGrad()(rows), rows.sum(0), rtol=1e-3)


def test_rows_are_those_of_mtl_backward():
    net = Net()
    features = net.shared(samples())
    losses = [
        (net.heads[t](features).squeeze(1) - 3 * i + 3).square().sum() * w for i, (t, w) in enumerate(WEIGHTS.items())
    ]
    mtl_backward(losses, features)
    other = Net()
    balancing = Aggregated("upgrad", WEIGHTS, other.shared.parameters())
    everybody = {task: torch.ones(SAMPLES, dtype=torch.bool) for task in WEIGHTS}
    balancing.backward(other.losses(samples()), everybody)
    close(balancing.jacobians, [parameter.jac for parameter in net.shared.parameters()])
    close(gradients(other.heads.parameters()), gradients(net.heads.parameters()))


def test_heads_get_the_gradients_of_fixed_weights():
    net = Net()
    Fixed(WEIGHTS).backward(net.losses(samples()), valid())
    close(gradients(run("pcgrad", 2)[0].heads.parameters()), gradients(net.heads.parameters()))


def test_a_micro_batch_without_a_task_adds_nothing_to_its_row():
    net = Net()
    balancing = Aggregated("upgrad", WEIGHTS, net.shared.parameters())
    masks = {task: torch.ones(4, dtype=torch.bool) for task in WEIGHTS}
    balancing.backward(net.losses(samples(4)), masks)
    before = [jacobian.clone() for jacobian in balancing.jacobians]
    balancing.backward(net.losses(samples(4, seed=2), ("c", "a")), masks)
    assert balancing.counts.tolist() == [8, 4, 8]
    for old, new in zip(before, balancing.jacobians, strict=True):
        assert new[1].equal(old[1])
        assert not new[0].equal(old[0])
        assert not new[2].equal(old[2])


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_task_without_samples_has_no_say(name):
    masks = valid()
    masks["b"][:] = False
    rows = mean_rows(valid())[[0, 2]]
    torch.manual_seed(0)
    expected = AGGREGATORS[name]()(rows)
    net, balancing = run(name, 4, masks)
    close([flat_gradient(net)], [expected], 1e-9)
    assert balancing.weights()["b"] == 0
    assert set(balancing.similarities) == {"a/c"}


def test_rows_start_anew_after_a_step():
    net = Net()
    balancing = Aggregated("upgrad", WEIGHTS, net.shared.parameters())
    balancing.backward(net.losses(samples(seed=7)), valid())
    balancing.aggregate(SAMPLES)
    net.zero_grad()
    balancing.backward(net.losses(samples()), valid())
    balancing.aggregate(SAMPLES)
    close([flat_gradient(net)], [flat_gradient(run("upgrad", SAMPLES)[0])])


@pytest.mark.parametrize("name", ["pcgrad", "graddrop"])
def test_random_methods_draw_the_same_numbers_everywhere_and_new_ones_each_step(name):
    """Every process must step alike; four tasks, so that PCGrad's order counts."""
    parameters = [nn.Parameter(torch.zeros(6, dtype=torch.float64))]
    rows = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.3

    def aggregate(balancing):
        parameters[0].grad = None
        balancing.jacobians[0].copy_(rows)
        balancing.counts.fill_(1)
        balancing.aggregate(1)
        return parameters[0].grad

    def new(seed=0):
        return Aggregated(name, dict.fromkeys("abcd", 1.0), parameters, seed=seed)

    first = new()
    torch.manual_seed(1)
    steps = [aggregate(first) for _ in range(8)]
    drawn = torch.rand(1)
    torch.manual_seed(2)
    second, resumed = new(), new()
    close([aggregate(second) for _ in range(5)], steps[:5], 0)
    resumed.load_state(second.state())
    close([aggregate(resumed) for _ in range(3)], steps[5:], 0)
    assert not all(step.equal(steps[0]) for step in steps)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn  # the global generator has not moved


def test_resume_with_half_full_rows():
    parts, masks = samples().split(4), in_parts(valid(), 4)
    net = Net()
    expected = flat_gradient(run("pcgrad", 4)[0])
    before = Aggregated("pcgrad", WEIGHTS, net.shared.parameters())
    before.backward(net.losses(parts[0]), masks[0])
    saved = copy.deepcopy(before.state())
    after = Aggregated("pcgrad", WEIGHTS, net.shared.parameters())
    after.load_state(saved)
    after.backward(net.losses(parts[1]), masks[1])
    after.aggregate(SAMPLES)
    close([flat_gradient(net)], [expected])


def test_pending_sums_over_processes():
    """Two processes with half the samples each: summing what is pending gives the rows of one with all."""
    parts, masks, net = samples().split(4), in_parts(valid(), 4), Net()
    ranks = [Aggregated("upgrad", WEIGHTS, net.shared.parameters()) for _ in range(2)]
    for rank, part, mask in zip(ranks, parts, masks, strict=True):
        rank.backward(net.losses(part), mask)
    for tensor, other in zip(ranks[0].pending(), ranks[1].pending(), strict=True):
        tensor += other
    ranks[0].aggregate(SAMPLES)
    close([flat_gradient(net)], [flat_gradient(run("upgrad", SAMPLES)[0])])


def test_fp16_is_refused():
    net = Net()
    balancing = Aggregated("upgrad", WEIGHTS, net.shared.parameters())
    with pytest.raises(UserError, match="fp16"):
        balancing.backward(net.losses(samples()), valid(), loss_scale=2.0**16)


def test_a_gradient_that_is_not_finite_is_named():
    net = Net()
    balancing = Aggregated("upgrad", WEIGHTS, net.shared.parameters())
    losses = net.losses(samples())
    losses["b"] = losses["b"] * math.inf
    balancing.backward(losses, valid())
    with pytest.raises(FloatingPointError, match="the gradient of b is not finite"):
        balancing.aggregate(SAMPLES)


def test_weights_are_those_that_made_the_gradient():
    net, balancing = run("upgrad", 4)
    rows = mean_rows()
    used = torch.tensor([balancing.weights()[task] / WEIGHTS[task] for task in WEIGHTS], dtype=torch.float64)
    close([used @ rows], [flat_gradient(net)], 1e-9)
    assert Aggregated("upgrad", WEIGHTS, net.shared.parameters()).weights() == WEIGHTS


def test_on_the_multi_task_network():
    torch.manual_seed(0)
    tasks = {name: task(spec=LABELS[name]) for name, task in TASKS.items()}
    tasks["depth"].median_depth = 15.0
    heads = {name: head_of(task, 8) for name, task in tasks.items()}
    network = MultiTask(encoder=Encoder(name="small"), channels=8, layers=1, heads=heads).double()
    groups = network.groups()
    balancing = Aggregated("upgrad", dict.fromkeys(TASKS, 1.0), groups["backbone"])
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)

    def one_step(size):
        network.zero_grad()
        for part in images.split(size):
            outputs = network(part, dict.fromkeys(TASKS))
            losses = {task: output.square().flatten(1).mean(1) for task, output in outputs.items()}
            balancing.backward(losses, {task: torch.ones(len(part), dtype=torch.bool) for task in losses})
        balancing.aggregate(4)
        return [p.grad for p in network.parameters() if p.requires_grad]

    whole = one_step(4)
    assert all(gradient is not None for gradient in whole)
    close(one_step(1), whole, 1e-10)
    assert set(balancing.similarities) == {
        "segmentation/steering", "segmentation/box", "segmentation/depth", "steering/box", "steering/depth", "box/depth"
    }  # fmt: skip


# ---- similarities ---------------------------------------------------------------------------------------------------


def test_cosine_similarities_by_hand():
    rows = {
        "a": [torch.tensor([[1.0, 0.0]]), torch.tensor([0.0])],
        "b": [torch.tensor([[1.0, 0.0]]), torch.tensor([1.0])],
        "c": [torch.tensor([[-2.0, 0.0]]), torch.tensor([0.0])],
        "zero": [torch.zeros(1, 2), torch.zeros(1)],
    }
    found = cosine_similarities(rows)
    assert found == pytest.approx({"a/b": math.sqrt(0.5), "a/c": -1.0, "b/c": -math.sqrt(0.5)})


def test_similarities_of_a_step_are_those_of_the_rows():
    rows = mean_rows()
    unit = rows / rows.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    _, balancing = run("mgda", 2)
    assert balancing.similarities == pytest.approx(
        {"a/b": cosines[0, 1].item(), "a/c": cosines[0, 2].item(), "b/c": cosines[1, 2].item()}
    )


def test_measuring_similarity_leaves_the_backward_pass_as_it_was():
    net, other = Net(), Net()
    similarity = GradientSimilarity(net.shared.parameters(), list(WEIGHTS), every=1)
    losses = net.losses(samples())
    similarity.record(losses, valid())
    assert all(parameter.grad is None for parameter in net.parameters())
    Fixed(WEIGHTS).backward(losses, valid())
    Fixed(WEIGHTS).backward(other.losses(samples()), valid())
    close(gradients(net.parameters()), gradients(other.parameters()))


@pytest.mark.parametrize("size", [2, SAMPLES])
@pytest.mark.parametrize("one_task_each", [True, False])
def test_similarity_is_that_of_all_samples_since_the_last_step(size, one_task_each):
    net = Net()
    similarity = GradientSimilarity(net.shared.parameters(), list(WEIGHTS), every=1)
    for part, mask in zip(samples().split(size), in_parts(valid(), size), strict=True):
        for tasks in [(task,) for task in WEIGHTS] if one_task_each else [tuple(WEIGHTS)]:
            similarity.record(net.losses(part, tasks), mask)
    assert similarity.stepped() == pytest.approx(run("mgda", 2)[1].similarities)


def test_similarity_is_measured_once_in_every_so_many_steps():
    net = Net()
    similarity = GradientSimilarity(net.shared.parameters(), list(WEIGHTS), every=3)
    found = []
    for step in range(7):
        similarity.record(net.losses(samples(seed=step)), valid())
        found.append(similarity.stepped())
    assert [bool(values) for values in found] == [True, False, False, True, False, False, True]
    assert found[0] != found[3]  # rows start anew
    never = GradientSimilarity(net.shared.parameters(), list(WEIGHTS), every=0)
    never.record(net.losses(samples()), valid())
    assert never.stepped() == {}


@pytest.mark.parametrize(("mode", "measured"), [(SYMMETRIC, True), ("depth", False)])
def test_there_is_nothing_to_measure_of_one_task_alone(mode, measured):
    changes = ["training.similarity_every=2", "network.channels=8"]
    config = load_config(SymmetricRun, ROOT / "configs/demo/symmetric.yaml", changes).of_mode(mode)
    tasks = config.make_tasks(LABELS)
    tasks["depth"].median_depth = 15.0
    balancing = config.make_balancing(config.make_model(tasks), tasks)
    assert (balancing.similarity is not None) == measured


def test_a_gradient_that_does_not_reach_a_parameter_is_zero_there():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    similarity = GradientSimilarity([a, b], ["x", "y"], every=1)
    similarity.record({"x": 2 * a, "y": a + b}, {task: torch.ones(2, dtype=torch.bool) for task in "xy"})
    assert similarity.stepped() == pytest.approx({"x/y": math.sqrt(0.5)})


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregated_gradients_lie_in_memory_as_their_parameters(name):
    """Fused optimisers on CUDA refuse others, and encoders with frozen norms are channels_last."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert not conv.weight.is_contiguous()
    balancing = Aggregated(name, {"a": 1.0, "b": 1.0}, conv.parameters())
    maps = conv(torch.randn(2, 3, 5, 5)).flatten(1)
    losses = {"a": maps.square().mean(1), "b": maps.sum(1)}
    balancing.backward(losses, {task: torch.ones(2, dtype=torch.bool) for task in losses})
    balancing.aggregate(2)
    assert [p.grad.stride() for p in conv.parameters()] == [p.stride() for p in conv.parameters()]
