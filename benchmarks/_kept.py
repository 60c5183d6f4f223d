"""Finished parts of a long benchmark, kept in a folder: the same command goes on after a break.

A part is complete under its name, or it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from autocompress.core.files import replacing, write_atomically

#: The project's folder, from wherever a benchmark is started.
ROOT = Path(__file__).resolve().parent.parent


def runs_of(benchmark: str) -> Path:
    """Where the runs of a benchmark lie."""
    return ROOT / "runs" / benchmark


def keep_json(path: Path, value: Any) -> None:
    """Write plain values."""
    write_atomically(path, json.dumps(value, indent=1))


def kept_json(path: Path) -> Any:
    """What :func:`keep_json` wrote; None where nothing is finished."""
    return json.loads(path.read_text()) if path.is_file() else None


def keep_weights(path: Path, model: nn.Module) -> None:
    """Write the state of a model."""
    with replacing(path) as temporary:
        save_file({k: t.contiguous().clone() for k, t in model.state_dict().items()}, temporary)
