"""Unstructured sparsity: the smallest weights of a layer become zero.

It makes the entropy-coded file smaller. No runtime supported here computes faster for it, and no
estimate says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part, Transform
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph

SPARSITY = "sparsity:"
RATIOS = (0.0, 0.5, 0.7, 0.85)


class Sparsity(Technique):
    """Share of zero weights per layer."""

    name = "sparsity"
    order = 30
    reference = "Han et al. 2015, arXiv:1506.02626"

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per layer, when zeros pay on the device or in the packed file."""
        if not (capabilities.sparsity_pays or capabilities.stores_packed):
            return []
        return [Choice(SPARSITY + layer.name, RATIOS) for layer in graph.layers.values()]

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Zeros do not pay."""
        return "zeros make nothing faster on this device, and the packed file was not asked for"

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``sparsity``."""
        return {"sparsity": value}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Masks the smallest weights; the masks are recomputed from the weights at every call."""
        if policy.sparsity == 0.0:
            return None

        def mask(parts: Sequence[Part]) -> list[Part]:
            return [
                part.with_weight(part.weight * magnitude_mask(part.weight, policy.sparsity))
                for part in parts
            ]

        return mask


def magnitude_mask(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """1 for the weights that stay and 0 for the ``sparsity`` share of smallest ones.

    Exactly ``round(sparsity * weight.numel())`` entries are 0; ties break by position.
    """
    return largest_mask(weight.detach().abs(), sparsity).to(weight.dtype)


def largest_mask(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """The same by scores of any kind; same shape and element type as the scores."""
    zeros = round(sparsity * scores.numel())
    mask = torch.ones_like(scores).flatten()
    mask[scores.flatten().argsort(stable=True)[:zeros]] = 0
    return mask.reshape(scores.shape)
