"""A checkpoint of the smallest network, written by hand."""

from typing import Any

import torch

# what never changes during a run
CONSTANTS: dict[str, Any] = {
    "kind": "single_task",
    "mode": "steering",
    "config": {},
    "split": {"train": ["a2d2/scene/1"], "val": ["a2d2/scene/2"], "test": [], "unused": []},
    "datasets": {"a2d2": {"geometry": None, "labels": {"steering": {}}}},
    "bound": {"steering": ["a2d2"]},
    "git_commit": None,
    "wandb_id": "0123abcd",
    "samples": {"steering": 1},
    "sample_lists": {"data_set": "a2d2", "train": "", "val": ""},
    "constant": {},
}


def content(epoch: int = 1) -> dict[str, Any]:
    """After an epoch, with a gradient that is pending in another type than its weight's."""
    moments = {"step": torch.ones(()), "exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}
    settings = {"params": [0], "lr": 0.1, "initial_lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    optimizer = {"state": {0: moments}, "param_groups": [settings]}
    return {
        **CONSTANTS,
        "model": {"weight": torch.arange(6.0).view(2, 3)},
        "updates": {
            "groups": {
                "steering": {
                    "optimizer": optimizer,
                    "count": 2,
                    "gradients": [None, torch.ones(2, dtype=torch.float64)],
                }
            },
            "loss_scale": {"value": 1.0, "good_steps": 3},
            "schedule": {"warmup": 0.0, "start": 0.0, "peak": 1.0, "end": 4},
            "samples_seen": 3,
            "seen": {"steering": 3},
            "steps": 1,
            "overflows": 0,
        },
        "balancing": {},
        "tasks": {"steering": {}},
        "position": {"epoch": epoch, "samples": 1, "blocks": 1, "validated": True},
        "best": {"score": -0.5, "epoch": 1, "results": {"steering": {"mae": 0.5, "bias": float("nan")}}},
        "unreadable": [],
        "log": {"sums": {"steering": [0.5, 2]}, "latest": {}, "noted": False},
        "random": {"cpu": torch.get_rng_state(), "cuda": []},
    }
