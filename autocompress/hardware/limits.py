"""What a device has room for, and what a model on it must stay below."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.core.objective import Constraint


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that every model on the device must keep to; None where nothing is set.

    Attributes:
        ram_bytes: memory for activations and whatever else the runtime holds.
        flash_bytes: memory that the model's file is stored in.
        max_latency_ms: of one run.
        max_energy_mj: of one run.
    """

    ram_bytes: int | None = None
    flash_bytes: int | None = None
    max_latency_ms: float | None = None
    max_energy_mj: float | None = None

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The same as constraints on a candidate's metrics."""
        pairs = (
            ("peak_memory_bytes", self.ram_bytes),
            ("size_bytes", self.flash_bytes),
            ("latency_ms", self.max_latency_ms),
            ("energy_mj", self.max_energy_mj),
        )
        return tuple(Constraint(metric, float(bound)) for metric, bound in pairs if bound)
