"""The range with the smallest squared error of the rounded values."""

from __future__ import annotations

import torch

from autocompress.compression.ranges.base import Range, RangeMethod

#: Ends of a range that are tried, as shares of the extreme.
_SHARES = tuple(share / 50 for share in range(50, 4, -1))
#: Times that one end is searched while the other is held.
_SWEEPS = 3
#: Values that the error is computed on; evenly spread ones stand for more.
_SAMPLE = 1 << 13


class SquaredError(RangeMethod):
    """Searches both ends in turn for the smallest mean squared error of the rounded values."""

    name = "mse"
    reference = "Nagel et al. 2021, arXiv:2106.08295, section 3.1"

    def choose(self, values: torch.Tensor, low: float, high: float, *, bits: int = 8) -> Range:
        """The best of a grid of ends; never worse than the extremes on the sample."""
        kept = values[:: -(-len(values) // _SAMPLE)]
        ends = [low, high]
        for _ in range(_SWEEPS):
            before = tuple(ends)
            for side, extreme in enumerate((low, high)):
                if extreme != 0.0:
                    ends[side] = self._best(kept, ends, side, extreme, 2**bits - 1)
            if tuple(ends) == before:
                break
        return Range(*ends)

    def _best(
        self, values: torch.Tensor, ends: list[float], side: int, extreme: float, last: int
    ) -> float:
        """The end with the smallest error for codes 0 to ``last``."""
        tried = torch.tensor([share * extreme for share in _SHARES], dtype=values.dtype)
        low, high = (tried if i == side else torch.full_like(tried, ends[i]) for i in (0, 1))
        step = (high - low).clamp_min(1e-12) / last
        zero = torch.round(-low / step)
        codes = torch.round(values[:, None] / step) + zero
        error = ((codes.clamp(0, last) - zero) * step - values[:, None]).pow(2).mean(0)
        return float(tried[error.argmin()])
