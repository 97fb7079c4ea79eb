"""What a benchmark ran on, for its JSON."""

import os
import platform
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("numpy", "opencv-python-headless", "pyspng", "torch")


def describe_machine() -> dict[str, Any]:
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
        **({"gpu": describe_gpu()} if torch.cuda.is_available() else {}),
    }


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # OpenCV has several names
        return None


def describe_gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
