"""Magnitudes that can be compared across tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.compression.saliency.base import Saliency


class LayerAdaptive(Saliency):
    """LAMP: within a tensor the order of the magnitudes, across tensors one scale."""

    name = "layer_adaptive"
    reference = "Lee et al. 2021, arXiv:2010.07611"

    def scores(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A weight's square over the sum of those of its tensor that are not smaller."""
        found = {}
        for name, weight in weights.items():
            squares, order = weight.detach().flatten().double().pow(2).sort(descending=True)
            scores = torch.empty_like(squares)
            scores[order] = squares / squares.cumsum(0).clamp_min(1e-30)
            found[name] = scores.reshape(weight.shape)
        return found
