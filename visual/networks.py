"""The networks that --checkpoint LABEL=PATH names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from datasets.a2d2.raw import RawData
from datasets.processed import ProcessedData
from errors import UserError
from training.restore import Restored
from visual.viewer import RESERVED


def load_networks(
    checkpoints: Iterable[str], raw: RawData, processed: Sequence[ProcessedData], device: torch.device
) -> dict[str, Restored]:
    """Label -> network on the device, in the order given. UserError for a label or a checkpoint of no use."""
    networks: dict[str, Restored] = {}
    for checkpoint in checkpoints:
        label, equals, path = checkpoint.partition("=")
        if not equals or not re.fullmatch(r"[\w.+ -]+", label):
            raise UserError(f"--checkpoint {checkpoint}: not of the form LABEL=PATH, such as ours=runs/ours/best.pt")
        if label in networks or label in RESERVED:
            raise UserError(f"--checkpoint {checkpoint}: the label {label} is taken; choose another one")
        networks[label] = Restored.load(Path(path), raw, processed)
        networks[label].model.to(device)
    restored = list(networks.values())
    for other in restored[1:]:
        restored[0].check_same_split(other)
    return networks
