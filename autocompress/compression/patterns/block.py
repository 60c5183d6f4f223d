"""Whole blocks of zeros, which vector instructions can step over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from autocompress.compression.patterns.base import NOTHING_MULTIPLIED, Pattern
from autocompress.compression.patterns.unstructured import Unstructured
from autocompress.graph.model_graph import Layer


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of ``rows`` output channels by ``columns`` input channels become zero together.

    Blocks of one row suit kernels that load neighbouring inputs, blocks of one column those that
    compute neighbouring outputs from one input (Elsen et al. 2020, Fast Sparse ConvNets,
    arXiv:1911.09723; Narang et al. 2017, arXiv:1711.02782). Each kernel position has blocks of its
    own. A block's score is the mean of its entries'; blocks at the ends may be smaller.

    Attributes:
        rows: output channels of a block.
        columns: input channels of a block.
    """

    rows: int
    columns: int

    @property
    def name(self) -> str:
        """Such as "block:1x4"."""
        return f"block:{self.rows}x{self.columns}"

    def mask(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """1 for the blocks that stay; exactly ``round(sparsity * blocks)`` blocks are 0."""
        out, channels = scores.shape[:2]
        flat = scores.reshape(out, channels, -1).permute(2, 0, 1)
        size = self._blocked(torch.ones_like(flat)).sum((2, 4))
        means = self._blocked(flat).sum((2, 4)) / size
        kept = Unstructured().mask(means, sparsity)
        mask = kept.repeat_interleave(self.rows, 1).repeat_interleave(self.columns, 2)
        return mask[:, :out, :channels].permute(1, 2, 0).reshape(scores.shape).contiguous()

    def refusal(self, layer: Layer) -> str | None:
        """Layers that are smaller than a block."""
        if layer.kind == "embedding":
            return NOTHING_MULTIPLIED
        channels = layer.in_channels // layer.groups
        if layer.out_channels >= self.rows and channels >= self.columns:
            return None
        return (
            f"it has {layer.out_channels} output channels that sum over {channels} input channels, "
            f"fewer than a block's {self.rows} by {self.columns}"
        )

    def _blocked(self, values: torch.Tensor) -> torch.Tensor:
        """``(n, out, in)`` as ``(n, blocks down, rows, blocks across, columns)``, zeros added."""
        n, out, channels = values.shape
        padded = functional.pad(values, (0, -channels % self.columns, 0, -out % self.rows))
        down, across = padded.shape[1] // self.rows, padded.shape[2] // self.columns
        return padded.reshape(n, down, self.rows, across, self.columns)
