"""Zeros anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autocompress.compression.patterns.base import Pattern


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Exactly ``round(sparsity * numel)`` zeros, wherever the scores are smallest."""

    @property
    def name(self) -> str:
        """Always "unstructured"."""
        return "unstructured"

    def mask(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """1 for the entries that stay, 0 for the share ``sparsity`` with the smallest scores."""
        zeros = round(sparsity * scores.numel())
        mask = torch.ones_like(scores).flatten()
        mask[scores.flatten().argsort(stable=True)[:zeros]] = 0
        return mask.reshape(scores.shape)
