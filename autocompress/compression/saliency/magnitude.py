"""The smallest weights matter least."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.compression.saliency.base import Saliency


class Magnitude(Saliency):
    """Magnitudes; across tensors they favour large layers."""

    name = "magnitude"
    reference = "Han et al. 2015, arXiv:1506.02626"

    def scores(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """``|w|``."""
        return {name: weight.detach().abs() for name, weight in weights.items()}
