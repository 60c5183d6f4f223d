"""Weights that training moves towards zero matter least."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.compression.saliency.base import Saliency


class Movement(Saliency):
    """Movement: the sum over the training's steps of ``-w * dL/dw``.

    A score grows while gradient descent takes a weight away from zero. That of a weight that is
    held at zero grows by what single steps would move it.
    """

    name = "movement"
    reference = "Sanh et al. 2020, arXiv:2005.07683"

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def observe(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Add this step's ``-w * dL/dw``."""
        for name, weight in weights.items():
            if weight.grad is None:
                continue
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(weight, requires_grad=False)
            self._sums[name].sub_(weight.detach() * weight.grad)

    def scores(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What was added up so far; magnitudes where no gradient has been seen."""
        return {
            name: self._sums[name].clone() if name in self._sums else weight.detach().abs()
            for name, weight in weights.items()
        }
