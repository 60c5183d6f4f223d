"""The tables of ``profile.toml``: a line for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from autocompress.core.capabilities import Capabilities
from autocompress.errors import AutocompressError
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.energy import EnergyModel
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Machine
from autocompress.hardware.memory_model import MemoryModel
from autocompress.hardware.profile import Provenance, RuntimeSpec, Validation
from autocompress.hardware.profile_rules import BOUNDS, REQUIRED_KEYS, check_section
from autocompress.hardware.roofline import Roofline
from autocompress.hardware.schema import build, plain
from autocompress.hardware.toml_document import Place
from autocompress.hardware.work_scale import WorkScale


@runtime_checkable
class OwnCodec(Protocol):
    """A section's class that reads and writes its table itself."""

    @classmethod
    def from_toml(cls, value: dict[str, Any]) -> Any:
        """The section of a table; raises ``ProfileError`` where it is not understood."""

    def to_toml(self) -> dict[str, Any]:
        """The inverse."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the file and the attribute of ``HardwareProfile`` that it fills.

    Attributes:
        name: the table's name.
        attribute: the attribute's name.
        kind: the attribute's class: a dataclass, read by its annotations (see
            :mod:`autocompress.hardware.schema`), or one with ``from_toml`` and ``to_toml``.
        required: whether every profile has it.
        measured: whether a measured profile has it.
    """

    name: str
    attribute: str
    kind: type
    required: bool = False
    measured: bool = False

    def read(self, value: object, at: Place, *, complete: bool) -> Any:
        """The attribute's value from the parsed table.

        Args:
            value: the table.
            at: its place in the file.
            complete: whether keys with defaults must be there, too.

        Raises:
            ProfileError: the table is not understood; the message names file, line and remedy.
        """
        if issubclass(self.kind, OwnCodec) and isinstance(value, dict):
            try:
                return self.kind.from_toml(value)
            except (AutocompressError, KeyError, TypeError, ValueError) as error:
                raise at.error(f"is not understood: {error}") from error
        found: Any = build(self.kind, value, at, BOUNDS)
        missing = [key for key in REQUIRED_KEYS.get(self.name, ()) if key not in cast(Any, value)]
        if complete and missing:
            raise at.error(f"lacks the key {missing[0]!r}; add it, or measure the device again")
        check_section(found, at)
        return found

    def write(self, value: Any) -> dict[str, Any] | None:
        """The table of an attribute's value; None where there is nothing to write."""
        if value is None:
            return None
        table = value.to_toml() if isinstance(value, OwnCodec) else plain(value)
        return table if table or self.required or self.measured else None


#: In the order in which they are written.
SECTIONS = (
    Section("device", "machine", Machine, required=True),
    Section("runtime", "runtime", RuntimeSpec, required=True),
    Section("supports", "capabilities", Capabilities, required=True),
    Section("limits", "limits", Limits),
    Section("roofline", "roofline", Roofline),
    Section("scale", "scale", WorkScale),
    Section("memory", "memory", MemoryModel),
    Section("energy", "energy", EnergyModel),
    Section("calibration", "calibration", Calibration, measured=True),
    Section("validation", "validation", Validation, measured=True),
    Section("provenance", "provenance", Provenance, required=True),
)
