import os
import pickle
import socket
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet169_Weights
from torchvision.models.densenet import DenseNet

from errors import UserError
from models.encoder import Encoder
from models.norms import set_norm
from models.pretrained import imagenet_path, load_pretrained

WEIGHTS = SimpleNamespace(url="https://download.pytorch.org/models/tiny-0123abcd.pth")


def tiny(seed):
    torch.manual_seed(seed)
    return DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8, num_classes=3)


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """TORCH_HOME is an empty folder, and whoever opens a connection fails."""

    def connect(*args):
        raise AssertionError("the network was touched")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket.socket, "connect", connect)


def same(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_none_leaves_the_weights_alone():
    network, before = tiny(0), tiny(0).state_dict()
    load_pretrained(network, "none", WEIGHTS, "encoder")
    assert same(network.state_dict(), before)


def test_path_is_torch_hubs(tmp_path):
    expected = tmp_path / "torch" / "hub" / "checkpoints" / "densenet169-b2777c0a.pth"
    assert imagenet_path(DenseNet169_Weights.IMAGENET1K_V1) == expected


def test_missing_imagenet_file_names_the_command():
    with pytest.raises(UserError, match=r"encoder.*tiny-0123abcd\.pth.*sh get_data\.sh --weights") as error:
        load_pretrained(tiny(0), "imagenet", WEIGHTS, "encoder")
    assert "\n" not in str(error.value)


def test_imagenet_file_with_the_old_names():
    """As torchvision publishes DenseNets: dots in the layers' names, no count of batches, a classifier."""
    source, network = tiny(1).state_dict(), tiny(0)
    network.classifier = nn.Identity()
    published = {
        name.replace("norm1.", "norm.1.")
        .replace("conv1.", "conv.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv2.", "conv.2."): value
        for name, value in source.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    imagenet_path(WEIGHTS).parent.mkdir(parents=True)
    torch.save(published, imagenet_path(WEIGHTS))
    load_pretrained(network, "imagenet", WEIGHTS, "encoder")
    assert same(network.state_dict(), source)


def test_own_file(tmp_path):
    source, network = tiny(1).state_dict(), tiny(0)
    torch.save(source, tmp_path / "own.pt")
    load_pretrained(network, str(tmp_path / "own.pt"), WEIGHTS, "encoder")
    assert same(network.state_dict(), source)


def test_weights_in_half_precision_and_in_torchs_older_form(tmp_path):
    """The older form is no archive and has no checksums: torchvision's first files are in it."""
    path, network = tmp_path / "own.pt", tiny(0)
    half = {name: value.half() if value.is_floating_point() else value for name, value in tiny(1).state_dict().items()}
    torch.save(half, path, _use_new_zipfile_serialization=False)
    load_pretrained(network, str(path), WEIGHTS, "encoder")
    assert same(network.state_dict(), {name: value.float() for name, value in half.items()})


def test_a_flipped_bit_is_noticed(tmp_path):
    path, network = tmp_path / "own.pt", tiny(0)
    torch.save(tiny(1).state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"can't be read as weights \(damaged"):
        load_pretrained(network, str(path), WEIGHTS, "encoder")
    assert same(network.state_dict(), tiny(0).state_dict())


@pytest.mark.parametrize(
    ("made_with", "loaded_into", "advice"),
    [
        ("train", "group", "was made with batch norm (bn1); set norm to frozen or train"),
        ("frozen", "group", "was made with batch norm (bn1); set norm to frozen or train"),
        ("group", "frozen", "was made with norm: group (bn1 has no statistics); set norm to group"),
        ("group", "train", "was made with norm: group (bn1 has no statistics); set norm to group"),
        ("train", "frozen", None),
        ("frozen", "train", None),
        ("group", "group", None),
    ],
)
def test_weights_made_with_another_norm_are_refused(tmp_path, made_with, loaded_into, advice):
    torch.manual_seed(0)
    path, source = tmp_path / "own.pt", Encoder(name="small", norm=made_with).resnet.state_dict()
    torch.save(source, path)
    network = Encoder(name="small", norm=loaded_into).resnet
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if advice is None:
        load_pretrained(network, str(path), None, "small")
        assert same(network.state_dict(), source)
        return
    with pytest.raises(UserError) as error:
        load_pretrained(network, str(path), None, "small")
    assert str(error.value) == f"small: {path} {advice}"
    assert same(network.state_dict(), before)


def test_imagenet_files_of_densenet_are_of_batch_norm(tmp_path):
    torch.save(tiny(1).state_dict(), tmp_path / "own.pt")
    network = tiny(0)
    set_norm(network, "group")
    with pytest.raises(UserError, match="was made with batch norm"):
        load_pretrained(network, str(tmp_path / "own.pt"), None, "encoder")
    set_norm(network := tiny(0), "frozen")
    load_pretrained(network, str(tmp_path / "own.pt"), None, "encoder")
    assert same(network.state_dict(), tiny(1).state_dict())


class Shout:
    def __reduce__(self):
        return os.mkdir, (os.environ["TORCH_HOME"] + "-was-here",)


def write_garbage(path):
    path.write_bytes(b"not weights")


def write_truncated(path):
    torch.save(tiny(1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "do not exist"),
        (write_garbage, "can't be read as weights"),
        (write_truncated, "can't be read as weights"),
        (lambda path: path.write_bytes(b""), "can't be read as weights"),
        (lambda path: path.mkdir(), "can't be read as weights"),
        (os.mkfifo, "can't be read as weights"),
        (lambda path: path.write_bytes(pickle.dumps(Shout(), protocol=2)), "can't be read as weights"),
        (lambda path: torch.save({"weight": Shout()}, path), "can't be read as weights"),
        (lambda path: torch.save([torch.zeros(1)], path), "no state dict"),
        (lambda path: torch.save({"model": {}}, path), "no state dict"),
        (lambda path: torch.save({}, path), "does not fit"),
        (
            lambda path: torch.save(tiny(1).state_dict() | {"features.conv0.weight": torch.zeros(8, 1, 7, 7)}, path),
            "fit",
        ),
        (lambda path: torch.save({name: value.int() for name, value in tiny(1).state_dict().items()}, path), "fit"),
        (lambda path: torch.save({name: value + 0j for name, value in tiny(1).state_dict().items()}, path), "fit"),
    ],
)
def test_unusable_file_is_a_one_line_error_and_changes_nothing(tmp_path, write, reason):
    path, network, before = tmp_path / "own.pt", tiny(0), tiny(0).state_dict()
    write(path)
    with pytest.raises(UserError, match=reason) as error:
        load_pretrained(network, str(path), WEIGHTS, "encoder")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert same(network.state_dict(), before)
    assert not (tmp_path / "torch-was-here").exists()
