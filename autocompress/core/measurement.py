"""Measured figures with their spread, unit and protocol; failure is data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """Statistics of repeated measurements, or the reason there are none.

    Attributes:
        value: the figure to quote (the protocol says which statistic it is).
        unit: its unit, such as "ms".
        low: lower end of its interval, same unit.
        high: upper end of its interval, same unit.
        runs: how many runs count in it.
        protocol: how it was taken, as plain JSON values.
        environment: where it was taken (CPU, runtime, threads …), as plain JSON values.
        error: why there is no figure, or None.
    """

    value: float = float("nan")
    unit: str = "ms"
    low: float = float("nan")
    high: float = float("nan")
    runs: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a figure."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted figure with its error band.

    Attributes:
        value: the estimate.
        low: lower end of the band.
        high: upper end of the band.
        coverage: share of it that comes from measured table rows rather than from a model, 0..1.
    """

    value: float
    low: float
    high: float
    coverage: float = 1.0
