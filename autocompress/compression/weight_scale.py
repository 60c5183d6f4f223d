"""The scale of symmetric per-channel weight quantisation with the smallest squared error."""

from __future__ import annotations

import torch

from autocompress.compression.forms import LEVELS

#: Clipping ratios tried before refinement; 2 bits clip far more than 4.
_MILD, _STRONG = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2)
_STARTS = {6: _MILD, 5: _MILD, 4: _MILD, 3: _STRONG, 2: _STRONG}
_REFINEMENTS = 3
_FLOOR = 1e-8
#: A clipping ratio that is learned stays above it.
_LEAST_RATIO = 0.01


def per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``values`` of shape ``(out,)``, shaped to broadcast over the first axis of ``like``."""
    return values.reshape(-1, *([1] * (like.dim() - 1)))


def channel_peaks(weight: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each output channel, shape ``(out,)``; positive, no gradient."""
    return weight.detach().abs().flatten(1).amax(1).clamp_min(_FLOOR)


def weight_scale(weight: torch.Tensor, bits: int, ratio: torch.Tensor) -> torch.Tensor:
    """Step of each output channel, shape ``(out,)``; positive even for channels of zeros.

    Differentiable in ``ratio``, which counts as no less than a hundredth.
    """
    largest = weight.detach().abs().flatten(1).amax(1)
    return (largest * ratio.clamp_min(_LEAST_RATIO) / LEVELS[bits]).clamp_min(_FLOOR)


def binary_scale(weight: torch.Tensor) -> torch.Tensor:
    """Mean magnitude of each output channel's non-zeros, ``(out,)``; positive, no gradient."""
    rows = weight.detach().abs().flatten(1)
    return (rows.sum(1) / (rows > 0).sum(1).clamp_min(1)).clamp_min(_FLOOR)


@torch.no_grad()
def clip_ratio(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Per output channel, the share of ``max|w|`` that the largest code stands for; ``(out,)``.

    1 for 8 bits. For fewer, the best of a few ratios, refined by alternating between the codes of
    a scale and the least-squares scale of those codes (``<w, q> / <q, q>``), which never raises
    the squared error.

    Args:
        weight: shape ``(out, ...)``.
        bits: 8, 6, 5, 4, 3 or 2.
    """
    rows = weight.detach().flatten(1).float()
    largest = rows.abs().amax(1)
    ratio = torch.ones_like(largest)
    starts = _STARTS.get(bits)
    if starts is None:
        return ratio
    levels = LEVELS[bits]
    safe = largest.clamp_min(1e-12)
    best = torch.full_like(largest, float("inf"))
    for start in starts:
        scale = safe * start / levels
        ratio, best = _better(rows, scale, levels, safe, ratio, best)
    for _ in range(_REFINEMENTS):
        codes = _codes(rows, safe * ratio / levels, levels)
        scale = (rows * codes).sum(1) / codes.pow(2).sum(1).clamp_min(1.0)
        ratio, best = _better(rows, scale.clamp_min(1e-12), levels, safe, ratio, best)
    return torch.where(largest > 0, ratio, torch.ones_like(ratio))


def _codes(rows: torch.Tensor, scale: torch.Tensor, levels: int) -> torch.Tensor:
    return torch.round(rows / scale[:, None]).clamp_(-levels, levels)


def _better(
    rows: torch.Tensor,
    scale: torch.Tensor,
    levels: int,
    largest: torch.Tensor,
    ratio: torch.Tensor,
    best: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The better of the ratio so far and that of ``scale``, channel by channel."""
    error = (_codes(rows, scale, levels) * scale[:, None] - rows).pow(2).sum(1)
    wins = error < best
    return torch.where(wins, scale * levels / largest, ratio), torch.where(wins, error, best)
