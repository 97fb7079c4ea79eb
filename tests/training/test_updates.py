"""Accumulate, then step: against AdamW written out by hand, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.config import GroupConfig
from training.updates import Group, LossScale, Schedule, Updates

NO_CLIP = 1e9
RATE, DECAY = 0.1, 0.05


class ByHand:
    """AdamW (Loshchilov and Hutter 2019) of one tensor."""

    def __init__(self, value: Tensor, decay: float):
        self.value, self.decay = value.detach().numpy().copy(), decay
        self.mean, self.square, self.time = np.zeros_like(self.value), np.zeros_like(self.value), 0

    def step(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        self.time += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.time), self.square / (1 - 0.999**self.time)
        self.value = self.value - rate * self.decay * self.value - rate * mean / (np.sqrt(square) + 1e-8)
        return self.value


class Net(nn.Module):
    """A backbone and two heads, in miniature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.a, self.b = (nn.Linear(3, 3).double() for _ in range(3))

    def losses(self, inputs: Tensor, head: str) -> Tensor:
        return getattr(self, head)(self.backbone(inputs).tanh()).square().sum(1)  # B


def inputs(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(
    net: Net,
    batch_size: int | dict[str, int] = 4,
    *,
    clip: float = NO_CLIP,
    planned: int = 10**9,
    scaled: bool = False,
    together: bool = False,
) -> Updates:
    """Three groups with a constant learning rate unless `planned` is small."""
    names = ("backbone", "a", "b")
    sizes = batch_size if isinstance(batch_size, dict) else dict.fromkeys(names, batch_size)
    config = {"learning_rate": RATE, "weight_decay": DECAY}
    groups = [
        Group(name, getattr(net, name).parameters(), GroupConfig(batch_size=sizes[name], **config), clip)
        for name in names
    ]
    schedule = Schedule.over(planned, warmup=0.0)
    return Updates(groups, schedule=schedule, loss_scale=LossScale(enabled=scaled), together=together)


def accumulate(net: Net, updates: Updates, samples: Tensor, head: str, micro_batch_size: int = 2) -> None:
    for part in samples.split(micro_batch_size):
        (net.losses(part, head).sum() * updates.loss_scale.value).backward()
    updates.add(len(samples), {"backbone": len(samples), head: len(samples)})


def weights(net: Net) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


# ---- steps ----------------------------------------------------------------------------------------------------


def test_steps_equal_adamw_with_the_mean_gradient() -> None:
    net, reference = Net(), Net()
    updates = make(net)
    by_hand = {name: ByHand(p, DECAY if p.ndim > 1 else 0.0) for name, p in reference.named_parameters()}
    for time in range(3):
        accumulate(net, updates, inputs(4, time), "a")
        reports = updates.step_full_groups()
        assert [(report.group, report.samples) for report in reports] == [("backbone", 4), ("a", 4)]

        reference.zero_grad()
        reference.losses(inputs(4, time), "a").mean().backward()
        moved = {name: p for name, p in reference.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(p.grad.square().sum()) for name, p in moved.items() if name.startswith("a")))
        assert reports[1].gradient_norm == pytest.approx(norm, rel=1e-12)
        for name, p in moved.items():
            p.data = torch.from_numpy(by_hand[name].step(p.grad.numpy(), RATE))
        torch.testing.assert_close(weights(net), weights(reference), rtol=0, atol=1e-12)
    assert updates.steps == 6


def test_the_cut_into_micro_batches_does_not_matter() -> None:
    results = []
    for micro_batch_size in (1, 3, 4, 12):
        net = Net()
        updates = make(net, 12)
        for time in range(4):
            accumulate(net, updates, inputs(12, time), "a", micro_batch_size)
            updates.step_full_groups()
        results.append(weights(net))
    assert not torch.equal(results[0], weights(Net()))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-12)


def test_a_group_steps_when_its_own_count_is_full() -> None:
    net = Net()
    updates = make(net, {"backbone": 8, "a": 4, "b": 6})
    stepped = []
    for number, head in enumerate(["a", "b", "a", "b", "b", "a"]):  # blocks of 2
        accumulate(net, updates, inputs(2, number), head)
        stepped.append([(report.group, report.samples) for report in updates.step_full_groups()])
    assert stepped == [[], [], [("a", 4)], [("backbone", 8)], [("b", 6)], []]
    assert {name: group.count for name, group in updates.groups.items()} == {"backbone": 4, "a": 2, "b": 0}


def test_a_group_that_is_not_full_does_not_move() -> None:
    net = Net()
    updates = make(net, {"backbone": 2, "a": 4, "b": 4})
    before = {name: p.clone() for name, p in net.named_parameters()}
    accumulate(net, updates, inputs(2), "a")
    updates.step_full_groups()
    moved = {name.split(".")[0] for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"backbone"}
    assert net.a.weight.grad is not None
    assert net.backbone.weight.grad is None  # cleared


def test_the_rest_steps_with_its_true_count() -> None:
    net, other = Net(), Net()
    updates, full = make(net, 8), make(other, 3)
    accumulate(net, updates, inputs(3), "a")
    assert updates.step_full_groups() == []
    assert [(report.group, report.samples) for report in updates.step_rest()] == [("backbone", 3), ("a", 3)]
    accumulate(other, full, inputs(3), "a")
    full.step_full_groups()
    torch.testing.assert_close(weights(net), weights(other), rtol=0, atol=1e-12)
    assert updates.step_rest() == []


def test_samples_without_a_valid_label_do_not_count() -> None:
    """Losses of five samples, two of them masked out: the step is that of the other three."""
    net, other = Net(), Net()
    updates, three = make(net, 3), make(other, 3)
    samples, valid = inputs(5), torch.tensor([True, False, True, True, False])
    net.losses(samples, "a").where(valid, 0).sum().backward()
    updates.add(5, {"backbone": int(valid.sum()), "a": int(valid.sum())})
    assert [report.samples for report in updates.step_full_groups()] == [3, 3]
    accumulate(other, three, samples[valid], "a")
    three.step_full_groups()
    torch.testing.assert_close(weights(net), weights(other), rtol=0, atol=1e-12)


def test_clipping_comes_after_the_division() -> None:
    """The mean gradient is under the limit though the sum is over it: nothing is clipped."""
    samples = inputs(1).repeat(8, 1)
    probe = Net()
    probe.losses(samples[:1], "a").sum().backward()
    norm = float(nn.utils.get_total_norm([p.grad for p in probe.a.parameters()]))
    results = {}
    for name, clip in {"no": NO_CLIP, "above": 1.5 * norm, "below": 0.25 * norm}.items():
        net = Net()
        group = Group("a", net.a.parameters(), GroupConfig(batch_size=8, learning_rate=1.0), clip)
        group.optimizer = torch.optim.SGD(group.parameters, lr=1.0)  # AdamW forgets the gradient's length
        net.losses(samples, "a").sum().backward()
        group.count = 8
        before = net.a.weight.detach().clone()
        report = group.step(group.prepare(1.0).tolist())
        assert report is not None
        assert report.gradient_norm == pytest.approx(norm, rel=1e-9)  # of the mean, before clipping
        results[name] = before - net.a.weight.detach()
    torch.testing.assert_close(results["above"], results["no"], rtol=0, atol=1e-12)
    torch.testing.assert_close(results["below"], 0.25 * results["no"], rtol=1e-5, atol=0)


def test_biases_are_not_decayed() -> None:
    net = Net()
    group = Group("a", net.a.parameters(), GroupConfig(batch_size=1, learning_rate=RATE, weight_decay=DECAY), NO_CLIP)
    weight, bias = net.a.weight.detach().clone(), net.a.bias.detach().clone()
    (0 * net.losses(inputs(1), "a").sum()).backward()
    group.count = 1
    group.step(group.prepare(1.0).tolist())
    torch.testing.assert_close(net.a.weight.detach(), weight * (1 - RATE * DECAY), rtol=1e-12, atol=0)
    assert torch.equal(net.a.bias.detach(), bias)


# ---- loss scale -----------------------------------------------------------------------------------------------


def test_the_loss_scale_cancels_out() -> None:
    plain, scaled = Net(), Net()
    for net in (plain, scaled):
        updates = make(net, scaled=net is scaled)
        accumulate(net, updates, inputs(4), "a")
        updates.step_full_groups()
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=0, atol=1e-12)


def test_an_overflow_drops_gradient_and_count_and_halves_the_scale() -> None:
    net, other = Net(), Net()
    updates = make(net, {"backbone": 99, "a": 4, "b": 99}, scaled=True)
    accumulate(net, updates, inputs(3, 1), "b")
    accumulate(net, updates, inputs(4, 2), "a")
    pending = net.b.weight.grad.clone()
    net.a.weight.grad[0, 0] = math.inf
    before = weights(net)
    assert updates.step_full_groups() == []
    assert (updates.overflows, updates.steps) == (1, 0)
    assert updates.loss_scale.value == LossScale.INITIAL / 2
    assert torch.equal(weights(net), before)
    assert (updates.groups["a"].count, net.a.weight.grad) == (0, None)
    assert torch.equal(net.b.weight.grad, pending / 2)  # pending gradients follow the scale

    accumulate(net, updates, inputs(2, 3), "b")  # at the new scale, on top of those at the old one
    assert [(report.group, report.samples) for report in updates.step_rest()] == [("backbone", 9), ("b", 5)]
    plain = make(other, 99)
    accumulate(other, plain, inputs(3, 1), "b")
    accumulate(other, plain, inputs(4, 2), "a")
    accumulate(other, plain, inputs(2, 3), "b")
    plain.groups["a"].clear()
    plain.step_rest()
    torch.testing.assert_close(weights(net), weights(other), rtol=0, atol=1e-12)


def test_the_scale_doubles_after_many_good_steps() -> None:
    scale = LossScale(enabled=True)
    factors = [scale.update(overflow=False) for _ in range(LossScale.GROWTH_INTERVAL)]
    assert factors[:-1] == [1.0] * (LossScale.GROWTH_INTERVAL - 1)
    assert (factors[-1], scale.value) == (2.0, 2 * LossScale.INITIAL)
    assert scale.update(overflow=True) == 0.5
    assert scale.update(overflow=False) == 1.0
    assert scale.good_steps == 1  # an overflow starts the count anew


def test_a_gradient_that_is_not_finite_without_scaling_is_an_error() -> None:
    net = Net()
    updates = make(net)
    accumulate(net, updates, inputs(4), "a")
    net.a.weight.grad[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="the gradient of a is not finite"):
        updates.step_full_groups()


def test_overflows_do_not_go_on_for_ever() -> None:
    """Once the scale has come down to 1 it is not the scale's fault."""
    net = Net()
    updates = make(net, {"backbone": 99, "a": 1, "b": 99}, scaled=True)

    def overflow() -> None:
        accumulate(net, updates, inputs(1), "a")
        net.a.weight.grad[0, 0] = math.inf
        updates.step_full_groups()

    for _ in range(16):  # 2^16 -> 1
        overflow()
    assert updates.loss_scale.value == 1
    with pytest.raises(FloatingPointError):
        overflow()


# ---- schedule, state ------------------------------------------------------------------------------------------


def test_schedule_at_its_key_points() -> None:
    schedule = Schedule.over(1000, warmup=0.1)
    factors = {seen: schedule.factor(seen) for seen in (0, 50, 100, 325, 550, 1000, 1200)}
    expected = {0: 0.0, 50: 0.5, 100: 1.0, 325: 0.5 * (1 + math.cos(math.pi / 4)), 550: 0.5, 1000: 0.0, 1200: 0.0}
    assert factors == pytest.approx(expected, abs=1e-12)


def test_every_group_steps_at_the_rate_of_the_middle_of_the_block_that_has_ended() -> None:
    """Blocks of 4, so the second one's middle is at 6 of 16: alike for a group that steps often and one that waits."""
    net = Net()
    updates = make(net, {"backbone": 4, "a": 4, "b": 8}, planned=16)
    for _ in range(2):
        accumulate(net, updates, inputs(4), "b")
        updates.step_full_groups()
    rates = [updates.groups[name].learning_rate for name in ("backbone", "b")]
    assert rates == pytest.approx([RATE * 0.5 * (1 + math.cos(math.pi * 6 / 16))] * 2)


@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.5, 0.99])
def test_no_step_has_the_learning_rate_0(steps: int, warmup: float) -> None:
    """Not even the last one, or the only one. Nor what is left over at the end of an epoch."""
    net = Net()
    updates = make(net, {"backbone": 2, "a": 9999, "b": 9999})
    updates.schedule = Schedule.over(2 * steps, warmup)
    for step in range(steps):
        before = net.backbone.weight.detach().clone()
        accumulate(net, updates, inputs(2, step), "a")
        assert updates.step_full_groups()
        assert 0 < updates.groups["backbone"].learning_rate <= RATE
        assert not torch.equal(net.backbone.weight, before)
    assert [report.group for report in updates.step_rest()] == ["a"]
    assert updates.groups["a"].learning_rate == updates.groups["backbone"].learning_rate


def test_rates_matter_even_with_one_step_in_all() -> None:
    moved = []
    for rate in (1e-4, 1e-1):
        net = Net()
        group = Group("a", net.a.parameters(), GroupConfig(batch_size=4, learning_rate=rate), NO_CLIP)
        updates = Updates([group], schedule=Schedule.over(4, 0.0), loss_scale=LossScale(enabled=False))
        before = net.a.weight.detach().clone()
        net.losses(inputs(4), "a").sum().backward()
        updates.add(4, {"a": 4})
        updates.step_full_groups()
        moved.append(float((net.a.weight.detach() - before).norm()))
    assert moved[1] == pytest.approx(1000 * moved[0], rel=0.02)  # but for the decay


def test_a_schedule_laid_anew_goes_on_from_the_factor_reached_down_to_the_new_end() -> None:
    old = Schedule.over(1000, warmup=0.1)
    new = old.laid_anew(550, 2050)
    assert new.factor(550) == pytest.approx(old.factor(550))
    assert new.factor(1300) == pytest.approx(0.5 * old.factor(550))
    assert new.factor(2050) == pytest.approx(0, abs=1e-12)
    # within the warm-up it rises on as planned, and the cosine then leads to the new end
    early = old.laid_anew(40, 600)
    assert [early.factor(seen) for seen in (40, 100)] == pytest.approx([0.4, 1.0])
    assert early.factor(350) == pytest.approx(0.5)
    # and where the new end comes before the warm-up's, it just ends
    assert Schedule.over(1000, 0.5).laid_anew(40, 80).factor(80) == pytest.approx(80 / 500)


def test_together_all_groups_step_at_every_border_with_the_counts_that_they_have() -> None:
    net = Net()
    updates = make(net, 4, together=True)
    net.losses(inputs(3, 1), "a").sum().backward()
    net.losses(inputs(1, 2), "b").sum().backward()
    updates.add(4, {"backbone": 4, "a": 3, "b": 1})
    reports = updates.step_full_groups()
    assert [(report.group, report.samples) for report in reports] == [("backbone", 4), ("a", 3), ("b", 1)]
    updates.add(4, {"backbone": 0, "a": 0, "b": 0})  # no valid label in the whole block: nobody steps
    assert updates.step_full_groups() == []


def test_start_again_drops_what_is_pending() -> None:
    net = Net()
    updates = make(net, 8, planned=40)
    accumulate(net, updates, inputs(3), "a")
    updates.start_again(seen=0, end=20)
    assert updates.samples_seen == 0
    assert updates.schedule == Schedule.over(20, 0.0)
    assert all(group.count == 0 for group in updates.groups.values())
    assert all(parameter.grad is None for parameter in net.parameters())


# ---- parameters of the balancing ------------------------------------------------------------------------------


def test_the_balancings_parameters_have_their_own_rate_no_decay_and_stay_out_of_the_clip() -> None:
    net = Net()
    s = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    config = GroupConfig(batch_size=4, learning_rate=RATE, weight_decay=0.5)
    group = Group("a", net.a.parameters(), config, 1e-3, balancing=[s], balancing_rate=0.01)
    other = Net()
    alone = Group("a", other.a.parameters(), config, 1e-3)
    for one, more in ((net, 1000 * s), (other, 0)):  # a gradient that would fill the clip by itself
        (one.losses(inputs(4), "a").sum() + more).backward()
    for either in (group, alone):
        either.count = 4
        either.set_learning_rate(0.5)
    reports = [either.step(either.prepare(1.0).tolist()) for either in (group, alone)]
    assert reports[0] == reports[1]
    assert torch.equal(net.a.weight, other.a.weight)
    assert s.item() == pytest.approx(2 - 0.5 * 0.01)  # the first step of Adam is the rate's length; no decay


def test_a_log_variance_that_is_not_finite_stops_the_step() -> None:
    net = Net()
    s = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    config = GroupConfig(batch_size=4, learning_rate=RATE)
    group = Group("a", net.a.parameters(), config, NO_CLIP, balancing=[s], balancing_rate=0.01)
    net.losses(inputs(4), "a").sum().backward()
    s.grad, group.count = torch.tensor(math.nan, dtype=torch.float64), 4
    before = net.a.weight.detach().clone()
    assert group.step(group.prepare(1.0).tolist()) is None
    assert torch.equal(net.a.weight, before)


def test_state_round_trip_in_the_middle_of_everything() -> None:
    sizes = {"backbone": 8, "a": 4, "b": 6}

    def train(net: Net, updates: Updates, numbers: range) -> None:
        for number in numbers:
            accumulate(net, updates, inputs(2, number), "ab"[number % 2])
            updates.step_full_groups()

    net, whole = Net(), Net()
    train(whole, make(whole, sizes, planned=40, scaled=True), range(11))
    updates = make(net, sizes, planned=40, scaled=True)
    train(net, updates, range(5))
    assert any(group.count for group in updates.groups.values())
    resumed = Net()
    resumed.load_state_dict(net.state_dict())
    restored = make(resumed, sizes, planned=40, scaled=True)
    restored.load_state(updates.state())
    assert restored.samples_seen == updates.samples_seen
    train(resumed, restored, range(5, 11))
    assert torch.equal(weights(resumed), weights(whole))
    assert restored.steps == 5 + 1


def test_slowed_parameters_have_a_factor_of_the_groups_rate_in_the_same_optimiser() -> None:
    encoder, neck = nn.Linear(2, 3), nn.Linear(3, 1)
    config = GroupConfig(batch_size=1, learning_rate=0.5, weight_decay=0.1)
    both = [*encoder.parameters(), *neck.parameters()]
    group = Group("backbone", both, config, NO_CLIP, slowed=(list(encoder.parameters()), 0.25))
    found = {id(p): (part["lr"], part["weight_decay"]) for part in group.optimizer.param_groups for p in part["params"]}
    assert [found[id(p)] for p in both] == [(0.125, 0.1), (0.125, 0.0), (0.5, 0.1), (0.5, 0.0)]
    assert group.learning_rate == 0.5
    group.set_learning_rate(0.5)
    assert [part["lr"] for part in group.optimizer.param_groups] == [0.25, 0.25, 0.0625, 0.0625]


@pytest.mark.parametrize("before", [True, False])
def test_pending_gradients_follow_the_precision_of_the_run_that_goes_on(before: bool) -> None:
    """fp16's are scaled, others are not."""
    first, second = (LossScale(enabled=enabled) for enabled in (before, not before))
    growth = second.load_state(first.state())
    assert (second.value, growth) == (
        (1.0, 1 / LossScale.INITIAL) if before else (LossScale.INITIAL, LossScale.INITIAL)
    )
    first.update(overflow=True)
    again = LossScale(enabled=before)
    assert (again.load_state(first.state()), again.value) == (1.0, first.value)

    group, group_then = (
        Group("a", nn.Linear(2, 2).parameters(), GroupConfig(batch_size=4, learning_rate=0.1), 1.0) for _ in range(2)
    )
    saved = updates_of(group, LossScale(enabled=before))
    for parameter in group.parameters:
        parameter.grad = torch.full_like(parameter, saved.loss_scale.value)
    group.count = 1
    then = updates_of(group_then, LossScale(enabled=not before))
    then.load_state(saved.state())
    assert all((parameter.grad == then.loss_scale.value).all() for parameter in group_then.parameters)


def updates_of(group: Group, scale: LossScale) -> Updates:
    return Updates([group], schedule=Schedule.over(4, 0.0), loss_scale=scale)
