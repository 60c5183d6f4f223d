"""The range whose coded histogram tells most of the values' distribution."""

from __future__ import annotations

import torch

from autocompress.compression.ranges.base import Range, RangeMethod

_BINS = 2048
#: The smallest threshold, in bins.
_FEWEST = _BINS // 8
_TINY = 1e-12


class Entropy(RangeMethod):
    """The clipping with the smallest Kullback-Leibler divergence.

    Values beyond a threshold are counted at it; the counts inside are then told as if only one
    figure for each code were kept. The threshold is that where least is lost. Ends are
    cut by the same share where there are negative values.
    """

    name = "entropy"
    reference = "Migacz 2017, 8-bit inference with TensorRT"

    def choose(self, values: torch.Tensor, low: float, high: float, *, bits: int = 8) -> Range:
        """The best of the thresholds from an eighth of the range to all of it."""
        peak = max(-low, high)
        told = values[values != 0]  # zeros, of which a ReLU makes many, are exact in any range
        if peak <= 0.0 or not len(told):
            return Range(low, high)
        counts = torch.histc(told.abs().clamp(max=peak), bins=_BINS, min=0.0, max=peak)
        thresholds = range(_FEWEST, _BINS + 1, 16)
        losses = torch.tensor([_divergence(counts, kept, 2**bits) for kept in thresholds])
        kept = thresholds[int(losses.argmin())] / _BINS * peak
        return Range(max(low, -kept), min(high, kept))


def _divergence(counts: torch.Tensor, bins: int, codes: int) -> float:
    """What is lost of the distribution when it is cut behind so many bins and coded."""
    wanted = counts[:bins].clone()
    coded = _coded(wanted, codes)
    wanted[-1] += counts[bins:].sum()
    p, q = wanted / wanted.sum().clamp_min(_TINY), coded / coded.sum().clamp_min(_TINY)
    inside = p > 0
    return float((p[inside] * (p[inside] / q[inside].clamp_min(_TINY)).log()).sum())


def _coded(counts: torch.Tensor, codes: int) -> torch.Tensor:
    """Counts as so many codes tell them: each one's total spread over its bins that have any."""
    code = torch.arange(len(counts)) * codes // len(counts)
    full = (counts > 0).to(counts.dtype)
    totals = torch.zeros(codes, dtype=counts.dtype).index_add_(0, code, counts)
    places = torch.zeros(codes, dtype=counts.dtype).index_add_(0, code, full)
    return full * (totals / places.clamp_min(1.0))[code]
