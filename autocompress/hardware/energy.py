"""Energy of one inference, from what operations and bytes cost and what the device draws anyway.

``E = MACs * energy a MAC + bytes * energy a byte + active power * time``. Where the three come from
is the profile's business: figures of a process such as those of Horowitz 2014
(doi:10.1109/ISSCC.2014.6757323), a data sheet's current, or an instrument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autocompress.errors import ProfileError
from autocompress.hardware.roofline import FORMS, form_of, work_of
from autocompress.hardware.toml_section import Section
from autocompress.measurement.kernels import KernelSignature

_PICOJOULES = 1e9  # in a millijoule


@dataclass(frozen=True, slots=True)
class EnergyLevel:
    """A memory and what a byte from it costs.

    Attributes:
        name: such as "L2".
        size_bytes: what it holds; 0 for the last one, which holds everything.
        pj_per_byte: picojoules a byte that is read or written.
    """

    name: str
    size_bytes: int
    pj_per_byte: float


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """What an inference costs.

    Attributes:
        kind: "measured" when the figures come from an instrument on the device, else "estimate".
        source: where the figures come from.
        error: how far the energy may be off, as a share; 1.0 is half to double.
        active_mw: milliwatts that the device draws while it computes, besides what is counted by
            operations and bytes.
        idle_mw: milliwatts that it draws in between.
        pj_per_mac: by form, picojoules a multiply-accumulate.
        levels: memories, the smallest first; the last one holds everything.
        weight_pj_per_byte: picojoules a byte of weights where they stay in a flash memory; 0 where
            they are read like everything else.
    """

    kind: Literal["estimate", "measured"]
    source: str
    error: float
    active_mw: float
    idle_mw: float
    pj_per_mac: Mapping[str, float]
    levels: tuple[EnergyLevel, ...]
    weight_pj_per_byte: float = 0.0

    def __post_init__(self) -> None:
        sizes = [level.size_bytes for level in self.levels]
        if not sizes or sizes[-1] or sizes[:-1] != sorted({s for s in sizes[:-1] if s}):
            raise ProfileError(
                f"[energy] levels have {sizes} bytes; list them from the smallest, the last one "
                "with size_bytes = 0 for what holds everything"
            )

    def kernel_mj(self, kernel: KernelSignature) -> float:
        """Millijoules of a kernel's operations and bytes, without the power while it runs."""
        if kernel.is_view:
            return 0.0
        mac = self.pj_per_mac.get(form_of(kernel), self.pj_per_mac["f32"])
        moved = kernel.activation_bytes + kernel.weight_bytes
        byte = next((v.pj_per_byte for v in self.levels if v.size_bytes >= moved), None)
        byte = self.levels[-1].pj_per_byte if byte is None else byte
        total = work_of(kernel) * mac + kernel.activation_bytes * byte
        total += kernel.weight_bytes * (self.weight_pj_per_byte or byte)
        return total / _PICOJOULES

    def average_mw(self, energy_mj: float, latency_ms: float, per_second: float) -> float:
        """Milliwatts at so many inferences a second, idle in between.

        Raises:
            ProfileError: the device is not that fast.
        """
        busy = per_second * latency_ms / 1e3
        if busy > 1:
            raise ProfileError(
                f"{per_second:g} inferences of {latency_ms:.4g} ms do not fit into a second; "
                f"at most {1e3 / latency_ms:.4g} do"
            )
        return energy_mj * per_second + (1 - busy) * self.idle_mw

    def to_toml(self) -> dict[str, Any]:
        """The ``[energy]`` table."""
        return {
            "kind": self.kind,
            "source": self.source,
            "error": self.error,
            "active_mw": self.active_mw,
            "idle_mw": self.idle_mw,
            "weight_pj_per_byte": self.weight_pj_per_byte,
            "pj_per_mac": dict(self.pj_per_mac),
            "levels": [
                {"name": v.name, "size_bytes": v.size_bytes, "pj_per_byte": v.pj_per_byte}
                for v in self.levels
            ],
        }

    @classmethod
    def from_toml(cls, value: object) -> EnergyModel:
        """The model of an ``[energy]`` table.

        Raises:
            ProfileError: a key is unknown or missing, or a figure cannot be.
        """
        section = Section(value, "energy")
        levels = []
        for level in section.tables("levels"):
            found = EnergyLevel(
                level.text("name"), level.whole("size_bytes", 0), level.number("pj_per_byte")
            )
            level.done()
            levels.append(found)
        kind = section.text("kind", one_of=("estimate", "measured"))
        made = cls(
            kind="measured" if kind == "measured" else "estimate",
            source=section.text("source"),
            error=section.number("error", above=0.0),
            active_mw=section.number("active_mw"),
            idle_mw=section.number("idle_mw", 0.0),
            pj_per_mac=section.numbers("pj_per_mac", known=FORMS, needed=("f32",)),
            levels=tuple(levels),
            weight_pj_per_byte=section.number("weight_pj_per_byte", 0.0),
        )
        section.done()
        return made
