"""From a candidate to a verified ONNX file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.export.manifest import verify as verify
    from autocompress.export.onnx_export import ExportedModel as ExportedModel
    from autocompress.export.onnx_export import export_onnx as export_onnx
    from autocompress.export.packing.container import pack as pack
    from autocompress.export.packing.container import packed_size as packed_size
    from autocompress.export.packing.container import unpack as unpack
    from autocompress.export.verification import Check as Check
    from autocompress.export.verification import Expectations as Expectations
    from autocompress.export.verification import Verification as Verification
    from autocompress.export.verification import verify_artifact as verify_artifact

_HOME = {
    "Check": "verification",
    "Expectations": "verification",
    "ExportedModel": "onnx_export",
    "Verification": "verification",
    "export_onnx": "onnx_export",
    "pack": "packing.container",
    "packed_size": "packing.container",
    "unpack": "packing.container",
    "verify": "manifest",
    "verify_artifact": "verification",
}

__all__ = [
    "Check",
    "Expectations",
    "ExportedModel",
    "Verification",
    "export_onnx",
    "pack",
    "packed_size",
    "unpack",
    "verify",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    """Load a name on first use (PEP 562): packing a file needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
