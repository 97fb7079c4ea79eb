from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.a2d2.spec import LABELS
from models.encoder import Encoder
from models.multitask import MultiTask, at
from tasks import TASKS
from tests.parts import head_of

SUBSETS = [
    (),
    ("steering",),
    ("segmentation",),
    ("box", "depth"),
    ("depth", "segmentation"),
    ("depth", "box", "steering", "segmentation"),
]
READ_ALL_LEVELS = {"box", "steering"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name="small", channels=16, layers=2, **options):
    tasks = {task: kind(spec=LABELS[task]) for task, kind in TASKS.items()}
    tasks["depth"].median_depth = 15.0
    heads = {task: head_of(kind, channels) for task, kind in tasks.items()}
    return MultiTask(encoder=Encoder(name=name, **options), channels=channels, layers=layers, heads=heads)


def images(b, h, w):
    return torch.randint(0, 256, (b, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


SHAPES = {
    "segmentation": lambda h, w: (2, 38, h, w),
    "depth": lambda h, w: (2, 1, h, w),
    "box": lambda h, w: (2, 8, 8, 10, 19),
    "steering": lambda h, w: (2, 10),
}


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (160, 32)])
@pytest.mark.parametrize("tasks", SUBSETS)
def test_any_size_and_any_subset(tasks, h, w):
    outputs = build()(images(2, h, w), dict.fromkeys(tasks))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        task: SHAPES[task](h, w) for task in tasks
    }


def test_a_subset_gives_the_same_outputs():
    network = build().eval()
    together = network(images(2, 64, 64), dict.fromkeys(TASKS))
    for task in TASKS:
        torch.testing.assert_close(network(images(2, 64, 64), {task: None})[task], together[task])


def test_each_head_sees_the_images_at_its_places_and_no_others():
    network = build().double().eval()
    batch = images(4, 64, 64)
    places = {"depth": torch.tensor([0, 2]), "box": torch.tensor([3]), "steering": None}
    outputs = network(batch, places)
    assert list(outputs) == list(places)
    alone = network(batch, dict.fromkeys(places))
    for task, where in places.items():
        torch.testing.assert_close(outputs[task], alone[task] if where is None else alone[task][where])


def test_images_keep_their_memory_format_on_the_way_to_a_head():
    x = torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last)
    assert at(x, torch.tensor([0, 3])).is_contiguous(memory_format=torch.channels_last)
    assert at(x, None) is x


@pytest.mark.parametrize("task", TASKS)
def test_outputs_fit_the_tasks_decoding(task):
    assert build().eval()(images(2, 64, 64), {task: None})[task] is not None
    decoded = TASKS[task](spec=LABELS.get(task)).decode(build().eval()(images(2, 64, 64), {task: None})[task])
    assert len(decoded) == 2


@pytest.mark.parametrize("tasks", SUBSETS)
def test_gradients_reach_the_backbone_and_the_heads_asked_for(tasks):
    network = build()
    loss = sum(output.square().mean() for output in network(images(2, 64, 64), dict.fromkeys(tasks)).values())
    if tasks:
        loss.backward()
    expected = set()
    for name, _ in network.named_parameters():
        part = name.split(".")[1] if name.startswith("heads.") else "backbone"
        # dense heads read P2: what the last layer does on its way up from there is not for them
        for_coarse_levels = name.startswith(("bifpn.layers.1.out3", "bifpn.layers.1.out4", "bifpn.layers.1.out5"))
        reached = tasks and (READ_ALL_LEVELS & set(tasks) if for_coarse_levels else True)
        if part in tasks or (part == "backbone" and reached):
            expected.add(name)
    if tasks == ("steering",):  # P3 is all that it reads
        expected -= {name for name in expected if name.startswith(("bifpn.layers.1.out4", "bifpn.layers.1.out5"))}
    found = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert found == expected
    assert all(p.grad.abs().max() > 0 for name, p in network.named_parameters() if name in expected)


def test_groups_hold_every_parameter_once():
    network = build()
    groups = network.groups()
    assert list(groups) == ["backbone", *TASKS]
    ids = [id(parameter) for group in groups.values() for parameter in group]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(parameter) for parameter in network.parameters()}
    for task in TASKS:
        assert {id(p) for p in groups[task]} == {id(p) for p in network.heads[task].parameters()}


def test_batch_norm_in_the_encoder_only():
    network = build(norm="train")
    batch_norms = [n for n, m in network.named_modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]
    assert batch_norms
    assert all(name.startswith("encoder.") for name in batch_norms)


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_a_sample_has_the_same_output_in_every_micro_batch(norm):
    network = build(norm=norm).double().train()
    together = network(images(4, 64, 64), dict.fromkeys(TASKS))
    for start in (0, 1, 3):
        alone = network(images(4, 64, 64)[start : start + 1], dict.fromkeys(TASKS))
        for task in TASKS:
            torch.testing.assert_close(alone[task], together[task][start : start + 1], rtol=1e-9, atol=1e-9)


def test_layers_and_channels_are_what_is_asked_for():
    assert len(build(layers=3).bifpn.layers) == 3
    assert build(channels=24).heads["segmentation"].output.in_channels == 24


# ---- cost -------------------------------------------------------------------------------------------------------


@cache
def meta_network():
    with torch.device("meta"):
        return build("resnet50", channels=256).eval()


def flops(module, *arguments):
    with FlopCounterMode(display=False) as counter:
        module(*arguments)
    return counter.get_total_flops()


@cache
def parts():
    """Floating point operations of encoder, BiFPN and each head for one 1024x1024 image."""
    network = meta_network()
    image = torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8, device="meta")
    features = network.encoder(image)
    levels = network.bifpn(features)
    costs = {"encoder": flops(network.encoder, image), "bifpn": flops(network.bifpn, features)}
    return costs | {task: flops(head, levels) for task, head in network.heads.items()}


def forward_flops(tasks):
    return flops(meta_network(), torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8, device="meta"), dict.fromkeys(tasks))


@pytest.mark.parametrize("tasks", SUBSETS)
def test_only_the_heads_asked_for_cost(tasks):
    assert forward_flops(tasks) == parts()["encoder"] + parts()["bifpn"] + sum(parts()[task] for task in tasks)
    assert all(cost > 0 for cost in parts().values())


def test_a_frame_with_one_label_costs_at_most_250_gflop():
    assert parts()["encoder"] / 1e9 == pytest.approx(171, abs=1)
    assert sum(forward_flops((task,)) for task in TASKS) / len(TASKS) <= 250e9
