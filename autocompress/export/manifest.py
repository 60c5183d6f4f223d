"""The manifest beside a model: what it is, its hash, its figures and how they were obtained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autocompress.core.files import write_atomically
from autocompress.core.local_device import DEFAULT_RUNTIME
from autocompress.errors import StorageError
from autocompress.export.verification import (
    Expectations,
    Metric,
    Verification,
    verify_artifact,
)
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime

NAME = "manifest.json"
_KEYS = ("id", "sha256", "size_bytes")


def manifest_path(model: str | Path) -> Path:
    """A model's manifest: ``<stem>.manifest.json``, or else ``manifest.json`` beside it."""
    model = Path(model)
    own = model.with_suffix(f".{NAME}")
    return own if own.is_file() else model.with_name(NAME)


def write_manifest(path: str | Path, manifest: Mapping[str, Any]) -> Path:
    """Write a manifest; NaN and infinity become null.

    Args:
        path: the manifest's file, or the folder that ``manifest.json`` goes into.
        manifest: plain JSON values, with at least "id", "sha256" and "size_bytes".

    Raises:
        StorageError: a key is missing, a value is no JSON, or the file cannot be written.
    """
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise StorageError(f"a manifest needs {', '.join(missing)}")
    target = Path(path)
    target = target / NAME if target.is_dir() else target
    try:
        text = json.dumps(_plain(manifest), indent=1, allow_nan=False)
    except TypeError as error:
        raise StorageError(f"the manifest holds something that is no JSON: {error}") from error
    write_atomically(target, (text + "\n").encode())
    return target


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        StorageError: it is missing, damaged or incomplete.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(
            f"there is no manifest at {path}; verify needs one to compare with"
        ) from None
    except (OSError, ValueError) as error:
        raise StorageError(f"the manifest {path} cannot be read: {error}") from error
    if not isinstance(value, dict) or any(key not in value for key in _KEYS):
        raise StorageError(f"the manifest {path} lacks one of {', '.join(_KEYS)}")
    return value


def verify(
    path: str | Path,
    *,
    batches: Iterable[Sequence[torch.Tensor]] | None = None,
    metric: Metric | None = None,
    runtime: Runtime | None = None,
    strict: bool = True,
) -> Verification:
    """Open a model again and check it against its manifest.

    Hash, length, validity, loading and the precision of what runs are always checked; the metric
    only when data is given.

    Args:
        path: an ONNX file with its manifest beside it.
        batches: ``(inputs…, targets)`` of the split that the manifest's accuracy is over.
        metric: the task's metric of concatenated outputs and targets; None takes top-1.
        runtime: what runs the file; None takes the one that the manifest names.
        strict: raise when a check fails, rather than only saying so in the result.

    Raises:
        StorageError: there is no manifest, or it cannot be read.
        VerificationError: a check fails and ``strict`` is on.
        MissingExtraError: the runtime that the manifest names is not installed.
        RequestError: it names one that is not known.
    """
    manifest = read_manifest(manifest_path(path))
    metrics = manifest.get("metrics") or {}
    claimed = metrics.get("accuracy") if batches is not None else None
    result = verify_artifact(
        path,
        batches=batches,
        metric=(metric or top1) if batches is not None else None,
        runtime=runtime or load_runtime(runtime_name(manifest)),
        expectations=Expectations(
            sha256=str(manifest["sha256"]),
            size_bytes=int(manifest["size_bytes"]),
            metric=None if claimed is None else float(claimed),
        ),
    )
    return result.raise_if_failed() if strict else result


def runtime_name(manifest: Mapping[str, Any]) -> str:
    """The runtime that the model was checked in: ONNX Runtime where a manifest says nothing."""
    return str(manifest.get("runtime") or DEFAULT_RUNTIME)


def top1(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of examples whose largest output is the target."""
    return float((outputs.argmax(1) == targets).double().mean())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
