"""What a pattern of zeros is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from autocompress.graph.model_graph import Layer

#: Why an embedding has no pattern that makes layers faster.
NOTHING_MULTIPLIED = "its rows are looked up, and nothing is multiplied by them"


class Pattern(ABC):
    """Which of a weight's entries may be zero together.

    Weights are ``(out, in)`` of linear layers, or ``(out, in / groups, height, width)`` of
    convolutions. Patterns lie along output and input channels and are the same question at each
    position of a kernel.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """As a :class:`~autocompress.core.candidate.LayerPolicy` names it."""

    @abstractmethod
    def mask(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """1 for entries that stay, 0 for those of the smallest scores that the pattern lets go.

        Args:
            scores: shape of the weight; larger scores stay. Ties break by position.
            sparsity: share of zeros, in [0, 1); a pattern that fixes its own share ignores it.

        Returns:
            Shape and element type of the scores.
        """

    def refusal(self, layer: Layer) -> str | None:
        """Why a layer cannot have zeros laid out like this, or None."""
        return None
