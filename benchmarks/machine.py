"""What a benchmark ran on, for its JSON."""

import os
import platform
import sys
from datetime import datetime
from importlib.metadata import version
from typing import Any

PACKAGES = ("numpy", "opencv-python-headless", "pyspng", "torch")


def describe_machine() -> dict[str, Any]:
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {name: version(name) for name in PACKAGES},
    }
