"""Symmetric integer codes, one step per output channel."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.forms import CONTAINER_BITS, LEVELS
from autocompress.compression.rounding import fake_quantize
from autocompress.compression.stored.base import StoredWeight, WeightForm, widened
from autocompress.compression.weight_scale import clip_ratio, per_channel, weight_scale


class SymmetricCodes(WeightForm):
    """Codes of ``bits`` bits around 0, the extreme negative one unused (Krishnamoorthi 2018).

    Steps of fewer than 8 bits can be learned with the weights (Esser et al. 2020, LSQ,
    arXiv:1902.08153), as shares of the channel's largest weight.

    Args:
        weight: fitted to.
        bits: 8, 6, 5, 4, 3 or 2.

    Attributes:
        clip_ratio: shape ``(out,)``: share of ``max|w|`` that the largest code stands for.
    """

    def __init__(self, weight: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.weight_bits = bits
        self.clip_ratio = nn.Parameter(clip_ratio(weight, bits), requires_grad=False)

    @property
    def file_bits(self) -> int:
        """Those of the container."""
        return CONTAINER_BITS[self.weight_bits]

    def refit(self, weight: torch.Tensor) -> None:
        """Search the clipping ratios again."""
        self.clip_ratio.data.copy_(clip_ratio(weight, self.weight_bits))

    def learn(self) -> None:
        """Let the clipping ratios be trained; 8 bits have codes enough for the whole range."""
        self.clip_ratio.requires_grad_(self.weight_bits < 8)

    @torch.no_grad()
    def keep_scale(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        """Make ``scale``, shape ``(out,)``, that of ``weight``; channels of zeros keep theirs."""
        peaks = weight.abs().flatten(1).amax(1)
        kept = scale * LEVELS[self.weight_bits] / peaks.clamp_min(1e-12)
        self.clip_ratio.copy_(torch.where(peaks > 0, kept, self.clip_ratio))

    def scale(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """It follows the weight."""
        return widened(weight_scale(weight, self.weight_bits, self.clip_ratio), least)

    def rounded(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """The weight rounded to whole steps; gradients pass inside the range."""
        scale = per_channel(self.scale(weight, least), weight)
        levels = LEVELS[self.weight_bits]
        return fake_quantize(weight, scale, scale.new_zeros(()), -levels, levels)

    def stored(self, weight: torch.Tensor, least: torch.Tensor | None) -> StoredWeight:
        """Int8 codes, to be stored in the next container that holds them."""
        levels, scale = LEVELS[self.weight_bits], self.scale(weight, least).detach()
        codes = torch.round(weight.detach() / per_channel(scale, weight)).clamp(-levels, levels)
        return StoredWeight(codes.to(torch.int8), self.file_bits, scale)
