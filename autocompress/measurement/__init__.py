"""The timing protocol, and figures taken with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.measurement.device import measure_device

__all__ = ["measure_device"]


def __getattr__(name: str) -> Any:
    """Load :func:`measure_device` on first use: it needs the whole hardware package."""
    if name != "measure_device":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autocompress.measurement.device import measure_device

    return measure_device
