"""Initial weights from a file: ImageNet's as torchvision publishes them, or the user's own. Never from the network.

Compute nodes often have no internet, so `sh get_data.sh --weights` fetches the ImageNet files on the login node, into
torch.hub's folder (`TORCH_HOME`).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from errors import UserError
from models.tensor_files import read_published
from models.timm_encoder import TimmWeights

# The published DenseNet files are older than the rule against dots in module names: 'denselayer1.norm.1.weight'
OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_pretrained(module: nn.Module, pretrained: str, weights: WeightsEnum | TimmWeights | None, what: str) -> None:
    """Fill `module` with the weights that a config names: "imagenet", "none" (leaves it as it is) or a file.

    `weights` is torchvision's entry for ImageNet, `what` the module's name in error messages.
    """
    if pretrained == "imagenet":
        load_imagenet(module, weights, what)
    elif pretrained != "none":
        load_file(module, Path(pretrained), what)


def load_imagenet(module: nn.Module, weights: WeightsEnum | TimmWeights, what: str) -> None:
    """Fill a torchvision network (its classifier may be removed) with the fetched ImageNet weights."""
    path = imagenet_path(weights)
    if not path.is_file() and isinstance(weights, TimmWeights):
        raise UserError(
            f"{what}: the ImageNet weights {path} are missing; put {weights.url} there, or pretrained: none"
        )
    if not path.is_file():
        raise UserError(
            f"{what}: the ImageNet weights {path} are missing; fetch them where there is internet (the login node): "
            "sh get_data.sh --weights   (or train without: pretrained: none)"
        )
    load_file(module, path, what)


def imagenet_path(weights: WeightsEnum | TimmWeights) -> Path:
    """Where torch.hub keeps the file of a published entry."""
    name = weights.file if isinstance(weights, TimmWeights) else weights.url.rsplit("/", 1)[-1]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def load_file(module: nn.Module, path: Path, what: str) -> None:
    """Fill `module` from a state dict in a file, which must hold every weight; others (a classifier) are ignored."""
    if not path.exists():
        raise UserError(f"{what}: the initial weights {path} do not exist (pretrained: imagenet | none | PATH)")
    try:
        state = read_published(path)
    except Exception as error:  # torch raises many types for a file that holds no weights
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{what}: {path} can't be read as weights ({reason}); fetch or write it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{what}: {path} holds no state dict (a dict of tensors)")
    state = {OLD_DENSENET_NAME.sub(r"\1\2", name): value for name, value in state.items()}
    own = module.state_dict()
    # timm's names of a whole network; where it gives maps only, it joins them: stages_0 for stages.0
    joined = {name.replace(".", "_"): name for name in own}
    state = {joined.get(name.replace(".", "_"), name): value for name, value in state.items()}
    check_norms(module, state, f"{what}: {path}")
    unfit = [
        name
        for name, value in own.items()
        # old files do not count batches
        if not name.endswith("num_batches_tracked") and not (name in state and fits(state[name], value))
    ]
    if unfit:
        raise UserError(f"{what}: {path} does not fit: {len(unfit)} of {len(own)} weights, {unfit[0]!r} the first")
    module.load_state_dict(state, strict=False)


def fits(given: Tensor, own: Tensor) -> bool:
    """Whether a weight can be copied: in half precision too, but no whole or complex numbers for real ones."""
    return given.shape == own.shape and given.is_floating_point() == own.is_floating_point()


def check_norms(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """UserError where the state is of a network with another norm: batch norm's and GroupNorm's weights look alike."""
    for name, part in module.named_modules():
        of_batch_norm = f"{name}.running_mean" in state
        if isinstance(part, nn.GroupNorm) and of_batch_norm:
            raise UserError(f"{source} was made with batch norm ({name}); set norm to frozen or train")
        if isinstance(part, nn.BatchNorm2d) and f"{name}.weight" in state and not of_batch_norm:
            raise UserError(f"{source} was made with norm: group ({name} has no statistics); set norm to group")
