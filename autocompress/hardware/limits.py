"""What a device has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autocompress.core.objective import Constraint
from autocompress.hardware.toml_section import Section


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a model must keep to run at all; 0 where there is none.

    Attributes:
        ram_bytes: working memory left for a model's activations.
        flash_bytes: permanent memory left for a model's file.
    """

    ram_bytes: int = 0
    flash_bytes: int = 0

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The same as constraints on a candidate's peak memory and size."""
        pairs = (("peak_memory_bytes", self.ram_bytes), ("size_bytes", self.flash_bytes))
        return tuple(Constraint(metric, float(bound)) for metric, bound in pairs if bound)

    def to_toml(self) -> dict[str, Any]:
        """The ``[limits]`` table."""
        return {"ram_bytes": self.ram_bytes, "flash_bytes": self.flash_bytes}

    @classmethod
    def from_toml(cls, value: object) -> Limits:
        """The limits of a ``[limits]`` table.

        Raises:
            ProfileError: a key is unknown, or a figure cannot be.
        """
        section = Section(value, "limits")
        made = cls(section.whole("ram_bytes", 0), section.whole("flash_bytes", 0))
        section.done()
        return made
