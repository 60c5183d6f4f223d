"""How much slower a device is at each kind of work than the table of another says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocompress.hardware.roofline import family_of, form_of
from autocompress.hardware.toml_section import Section
from autocompress.measurement.kernels import KernelSignature

WORK_KINDS = ("dense float", "dense integer", "depthwise", "linear", "other")


def work_kind(kernel: KernelSignature) -> str:
    """One of :data:`WORK_KINDS`: devices are fast at some and slow at others."""
    family = family_of(kernel)
    if family in ("depthwise", "linear"):
        return family
    if family == "elementwise":
        return "other"
    return "dense integer" if form_of(kernel) == "i8" else "dense float"


@dataclass(frozen=True, slots=True)
class WorkScale:
    """Factors on the price of every kernel, wherever the price comes from.

    Attributes:
        factors: by kind of work, above 0.
    """

    factors: Mapping[str, float]

    def factor(self, kernel: KernelSignature) -> float:
        """What the kernel's price is multiplied by."""
        return self.factors[work_kind(kernel)]

    def to_toml(self) -> dict[str, Any]:
        """The ``[scale]`` table."""
        return {"factors": dict(self.factors)}

    @classmethod
    def from_toml(cls, value: object) -> WorkScale:
        """The factors of a ``[scale]`` table.

        Raises:
            ProfileError: a kind is unknown or missing, or a factor is not above 0.
        """
        section = Section(value, "scale")
        made = cls(section.numbers("factors", known=WORK_KINDS, needed=WORK_KINDS))
        section.done()
        return made
