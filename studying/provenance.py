"""What a result was made with."""

import os
import platform
import socket
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from training.checkpoint import git_commit

PACKAGES = ("numpy", "scipy", "torch", "torchmetrics", "torchvision", "timm")


def describe_run(device: str, threads: int) -> dict[str, Any]:
    """Commit, versions, device, threads, time. The code is that of this process: a study starts its runs from it."""
    return {
        "commit": git_commit(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "host": socket.gethostname(),
        "cores": os.cpu_count(),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
    }


def processor() -> str:
    """The CPU's name, as Linux has it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "cpu")
    except OSError:
        return platform.processor() or "cpu"


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
