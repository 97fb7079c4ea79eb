"""Methods that make one number of the tasks' mean losses: TorchJD's own numbers, whatever the micro-batches."""

import copy

import pytest
import torch
from torchjd import scalarization

from models.multitask import BACKBONE
from tests.training.test_balancing import SAMPLES, WEIGHTS, Net, close, gradients, in_parts, samples, valid
from training.config import method_settings
from training.methods import METHODS, Context
from training.methods.scalarization import HISTORY, Scalarized

NAMES = [name for name, method in METHODS.items() if method.complete]
PLAIN = {
    "dwa": scalarization.DWA(2.0),
    "imtl_l": scalarization.IMTLL(3),
    "geometric_mean": scalarization.GeometricMean(),
    "random": scalarization.Random(),
    "stch": scalarization.STCH(0.1),
    "cosmos": scalarization.COSMOS(1.0, torch.ones(3).double()),
    "pbi": scalarization.PBI(5.0, torch.ones(3).double()),
}
EVERYBODY = {task: torch.ones(SAMPLES, dtype=torch.bool) for task in WEIGHTS}


def new(name, net, **parameters):
    groups = {BACKBONE: list(net.shared.parameters())}
    groups |= {task: list(head.parameters()) for task, head in net.heads.items()}
    context = Context(WEIGHTS, dict.fromkeys(WEIGHTS, "regression"), groups, seed=3)
    return METHODS[name].make(method_settings({"name": name, **parameters}), context)


def block(balancing, net, size=SAMPLES, masks=EVERYBODY, seed=1):
    """All samples in micro-batches of `size`, then the gradients of all."""
    net.zero_grad()
    for part, mask in zip(samples(seed=seed).split(size), in_parts(masks, size), strict=True):
        balancing.backward(net.losses(part), mask)
    balancing.aggregate(SAMPLES)
    return gradients(net.parameters())


def own(balancing):
    return [parameter.grad for parameter in balancing.parameters_of(BACKBONE)]


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_torchjds_number(name):
    net, other = Net(), Net()
    balancing = new(name, net)
    found = block(balancing, net, size=2)
    scalarizer = copy.deepcopy(PLAIN[name]).double()
    torch.manual_seed(3)
    scalarizer(torch.stack([WEIGHTS[t] * losses.mean() for t, losses in other.losses(samples()).items()])).backward()
    # heads divide by their count when they step
    expected = [p.grad for p in other.shared.parameters()]
    expected += [SAMPLES * p.grad for p in other.heads.parameters()]
    close(found, expected, 1e-9)
    close(own(balancing), [parameter.grad for parameter in scalarizer.parameters()], 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_float32_network_gets_the_gradient_of_a_float64_one(name):
    found, expected = [], []
    for net, type_, into in ((Net(), torch.float64, expected), (Net().float(), torch.float32, found)):
        balancing = new(name, net)
        for part in samples().to(type_).split(2):
            balancing.backward(net.losses(part), {task: mask[:2] for task, mask in EVERYBODY.items()})
        balancing.aggregate(SAMPLES)
        into += gradients(net.parameters()) + own(balancing)
    assert all(gradient.dtype is torch.float32 for gradient in found)
    close([gradient.double() for gradient in found], expected, 1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_do_not_matter(name, size):
    whole, pieces = Net(), Net()
    close(block(new(name, pieces), pieces, size, valid()), block(new(name, whole), whole, SAMPLES, valid()))


@pytest.mark.parametrize("name", NAMES)
def test_it_resumes_in_the_middle_of_a_block_and_of_an_epoch(name):
    net = Net()
    balancing = new(name, net)
    for epoch in range(3):
        block(balancing, net, seed=epoch)
        block(balancing, net, seed=10 + epoch)
        if epoch < 2:
            balancing.epoch_ended()
    for parameter in balancing.parameters_of(BACKBONE):
        parameter.data += 0.3
    half, rest = samples(seed=20).split(SAMPLES // 2)
    mask = {task: torch.ones(SAMPLES // 2, dtype=torch.bool) for task in WEIGHTS}
    net.zero_grad()
    balancing.backward(net.losses(half), mask)
    saved, resumed = copy.deepcopy(balancing.state()), copy.deepcopy(net)
    for parameter, twin in zip(resumed.parameters(), net.parameters(), strict=True):
        parameter.grad = None if twin.grad is None else twin.grad.clone()
    again = new(name, resumed)
    again.load_state(saved)
    for one, network in ((balancing, net), (again, resumed)):
        one.backward(network.losses(rest), mask)
        one.aggregate(SAMPLES)
        one.epoch_ended()
    close(gradients(resumed.parameters()), gradients(net.parameters()), 0)
    close(block(again, resumed), block(balancing, net), 0)
    assert again.weights() == balancing.weights()


def test_dwas_history_is_all_that_its_calls_change():
    """It is private to TorchJD: another version may call it otherwise."""
    scalarizer = scalarization.DWA()
    before = copy.deepcopy(vars(scalarizer))
    scalarizer(torch.ones(2))
    scalarizer.step()
    scalarizer(torch.ones(2))
    changed = {key for key, value in vars(scalarizer).items() if str(value) != str(before[key])}
    assert changed == set(HISTORY)


def test_dwa_weighs_by_how_fast_losses_fall():
    net = Net()
    balancing = new("dwa", net, temperature=0.5)
    means = []
    for seed in (1, 2):
        block(balancing, net, seed=seed)
        means.append(torch.stack([WEIGHTS[t] * loss.mean() for t, loss in net.losses(samples(seed=seed)).items()]))
        assert balancing.weights() == WEIGHTS
        balancing.epoch_ended()
    block(balancing, net)
    factors = 3 * torch.softmax(means[1] / means[0] / 0.5, 0)
    assert list(balancing.weights().values()) == pytest.approx(
        (factors * torch.tensor(list(WEIGHTS.values()))).tolist()
    )


def test_an_epoch_that_starts_again_leaves_nothing_in_dwas_history():
    net, again = Net(), Net()
    whole, cut = new("dwa", net, temperature=0.5), new("dwa", again, temperature=0.5)
    block(cut, again, seed=7)
    cut.start_epoch_again()
    for seed in (1, 2):
        block(whole, net, seed=seed)
        block(cut, again, seed=seed)
        whole.epoch_ended()
        cut.epoch_ended()
    block(whole, net)
    block(cut, again)
    assert cut.weights() == pytest.approx(whole.weights())


@pytest.mark.parametrize("name", NAMES)
def test_a_task_without_a_valid_label_in_a_block_keeps_its_value(name):
    net, masks = Net(), {**EVERYBODY, "b": torch.zeros(SAMPLES, dtype=torch.bool)}
    balancing = new(name, net)
    block(balancing, net, masks=masks)
    assert balancing.row_weights == {"a": 1.0, "b": 0.0, "c": 1.0}
    block(balancing, net)
    value = balancing.values[1].item()
    block(balancing, net, masks=masks, seed=2)
    assert balancing.values[1].item() == value
    assert all(gradient.isfinite().all() for gradient in gradients(net.parameters()))


def test_the_pending_sums_of_processes_add_up():
    parts, masks, net = samples().split(4), in_parts(EVERYBODY, 4), Net()
    ranks = [new("stch", net) for _ in range(2)]
    for rank, part, mask in zip(ranks, parts, masks, strict=True):
        rank.backward(net.losses(part), mask)
    for tensor, other in zip(ranks[0].pending(), ranks[1].pending(), strict=True):
        tensor += other
    ranks[0].aggregate(SAMPLES)
    whole = Net()
    close(gradients(net.parameters()), block(new("stch", whole), whole))


def test_only_imtl_l_learns_parameters_of_its_own():
    balancing = new("imtl_l", Net(), learning_rate=0.25)
    assert isinstance(balancing, Scalarized)
    assert balancing.learning_rate == 0.25
    assert [name for name in NAMES if new(name, Net()).parameters_of(BACKBONE)] == ["imtl_l"]
    assert balancing.parameters_of("a") == []
