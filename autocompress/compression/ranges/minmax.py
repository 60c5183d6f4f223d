"""Everything that was seen."""

from __future__ import annotations

import torch

from autocompress.compression.ranges.base import Range, RangeMethod


class MinMax(RangeMethod):
    """From the smallest to the largest value: nothing saturates on the calibration data."""

    name = "minmax"
    reference = "Jacob et al. 2018, arXiv:1712.05877"

    def choose(self, values: torch.Tensor, low: float, high: float, *, bits: int = 8) -> Range:
        """The extremes."""
        return Range(low, high)
