"""timm's networks as encoders: the maps are timm's own, whatever the norm, and its files fit."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from errors import UserError
from models.encoder import check_encoder, imagenet_weights, make_encoder
from models.norms import FrozenBatchNorm2d, GroupNorm
from models.pretrained import imagenet_path, load_pretrained
from tests.conftest import ROOT

REAL = ROOT.parent / "shared" / "weights" / "tf_efficientnet_lite0.pth"
LITE = "tf_efficientnet_lite0"
NAMES = [LITE, "mobilenetv3_small_100", "convnext_atto", "resnetv2_50", "regnety_002"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def images(h=64, w=96):
    return torch.randint(0, 256, (2, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_levels(name):
    encoder = make_encoder(check_encoder(f"timm/{name}"), "train").eval()
    shapes = [tuple(level.shape) for level in encoder(images())]
    assert shapes == [(2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (4, 8, 16, 32), strict=True)]


@pytest.mark.parametrize("name", ["nothing", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_what_has_no_such_maps_is_refused(name):
    with pytest.raises(ValueError, match=f"timm/{name} "):
        check_encoder(f"timm/{name}")
    with pytest.raises(ValueError, match="resnet18"):
        check_encoder("resnet19")


def test_pixels_are_scaled_as_timms_network_wants_them():
    normalise = make_encoder(f"timm/{LITE}", "train").normalise
    assert normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [1.0]
    assert normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).unique().tolist() == [-1.0]


def norms_and_activations(encoder, kind):
    return [
        (type(norm), type(norm.act)) for norm in encoder.modules() if isinstance(norm, kind) and hasattr(norm, "act")
    ]


def test_norms_are_replaced_and_their_activations_stay():
    trained = norms_and_activations(make_encoder(f"timm/{LITE}", "train"), nn.BatchNorm2d)
    frozen = norms_and_activations(make_encoder(f"timm/{LITE}", "frozen"), FrozenBatchNorm2d)
    group = make_encoder(f"timm/{LITE}", "group")
    grouped = norms_and_activations(group, GroupNorm)
    assert [act for _, act in trained] == [act for _, act in frozen] == [act for _, act in grouped]
    assert nn.ReLU6 in {act for _, act in grouped}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in group.modules())


def expected(network, encoder):
    """timm's own maps of the images."""
    with torch.no_grad():
        return network.eval()(encoder.normalise(images()))


def file_of(network, path):
    """As people have them: of the whole network, in half precision."""
    torch.save({name: v.half() if v.ndim == 4 else v for name, v in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["frozen", "train"])
def test_a_file_with_timms_names_makes_it_timms_network(name, norm, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(name)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = file_of(whole, tmp_path / "weights.pth")
    encoder = make_encoder(f"timm/{name}", norm).eval()
    load_pretrained(encoder.pretrained_part(), str(path), None, name)
    whole.load_state_dict({key: value.float() for key, value in torch.load(path, weights_only=True).items()})
    with torch.no_grad():
        _, levels = whole.eval().forward_intermediates(encoder.normalise(images()))
        for found, level in zip(encoder(images()), levels[-4:], strict=True):
            torch.testing.assert_close(found, level, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not REAL.exists(), reason="the real weights are not here")
def test_real_weights():
    plain = timm.create_model(LITE, features_only=True, out_indices=(1, 2, 3, 4))
    state = {name: value.float() for name, value in torch.load(REAL, weights_only=True).items()}
    plain.load_state_dict(state, strict=False)
    encoder = make_encoder(f"timm/{LITE}", "frozen").train()
    load_pretrained(encoder.pretrained_part(), str(REAL), None, LITE)
    for found, level in zip(encoder(images()), expected(plain, encoder), strict=True):
        torch.testing.assert_close(found, level, rtol=1e-4, atol=1e-4)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = file_of(timm.create_model("mobilenetv3_small_100"), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_pretrained(make_encoder(f"timm/{LITE}", "train").pretrained_part(), str(path), None, LITE)


def test_where_timms_own_weights_lie():
    assert Path(imagenet_path(imagenet_weights(f"timm/{LITE}"))).name == "tf_efficientnet_lite0-0aa007d2.pth"
    assert imagenet_weights("small") is None
