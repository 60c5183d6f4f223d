"""Floats of half the width."""

from __future__ import annotations

import torch

from autocompress.compression.rounding import as_half, straight_through
from autocompress.compression.stored.base import StoredWeight, WeightForm


class HalfFloats(WeightForm):
    """Half precision, saturated at its largest finite value."""

    weight_bits = 16

    @property
    def file_bits(self) -> int:
        """16."""
        return 16

    def rounded(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """The weight rounded to half precision."""
        return straight_through(weight, as_half(weight.detach()).float())

    def stored(self, weight: torch.Tensor, least: torch.Tensor | None) -> StoredWeight:
        """Float16 numbers."""
        return StoredWeight(as_half(weight.detach()), 16)
