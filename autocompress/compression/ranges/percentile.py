"""All but the most extreme values."""

from __future__ import annotations

import torch

from autocompress.compression.ranges.base import Range, RangeMethod

#: Share of values inside the range.
INSIDE = 0.9999


class Percentile(RangeMethod):
    """Leaves the most extreme 0.01 % out.

    It equals "minmax" on small calibration sets and ignores outliers on large ones.
    """

    name = "percentile"
    reference = "Wu et al. 2020, arXiv:2004.09602"

    def choose(self, values: torch.Tensor, low: float, high: float, *, bits: int = 8) -> Range:
        """Both tails cut, or the upper one alone where nothing is negative."""
        tail = (1.0 - INSIDE) / 2.0
        if low >= 0.0:
            return Range(0.0, max(0.0, _quantile(values, INSIDE)))
        return Range(min(0.0, _quantile(values, tail)), max(0.0, _quantile(values, 1.0 - tail)))


def _quantile(ordered: torch.Tensor, share: float) -> float:
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    mix = at - below
    return float(ordered[below] * (1.0 - mix) + ordered[above] * mix)
