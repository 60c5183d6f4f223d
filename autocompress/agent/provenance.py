"""When, where, with what and how a run was made."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autocompress.hardware.machine import describe_machine

_PACKAGES = (
    "autocompress", "torch", "torchvision", "onnxruntime", "openvino", "onnx", "optuna", "numpy",
)  # fmt: skip


def now() -> str:
    """The time, in ISO 8601 with UTC offset."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run gives."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def machine() -> dict[str, Any]:
    """CPU, cores and operating system of this machine."""
    found = describe_machine()
    system = f"{platform.system()} {platform.release()}"
    return {"cpu": found.cpu, "cores": found.cores, "os": system}


def command_line() -> str:
    """The command this process was started with."""
    return " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
