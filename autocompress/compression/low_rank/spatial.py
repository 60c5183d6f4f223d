"""Spatial SVD: a column of filters, then a row of filters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.low_rank.base import Factorization, Split, leading_vectors
from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape


class SpatialSvd(Factorization):
    """``W[o,i,y,x] ~ sum_r V[r,i,y] H[o,r,x]``: k x 1 filters, then 1 x k filters."""

    name = "spatial"
    reference = "Jaderberg et al. 2014, arXiv:1405.3866, scheme 2"

    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """Keeps the row filters fixed and projects the weight onto them."""
        rank = shapes[0].weight[0]
        out, channels, height, width = part.weight.shape
        matrix = unfolded(part.weight.detach().double())
        rows = leading_vectors(matrix.T @ matrix, rank).to(part.weight.dtype)
        filters = rows.reshape(out, width, rank).transpose(1, 2)[:, :, None, :]

        def split(weight: torch.Tensor) -> list[torch.Tensor]:
            columns = (unfolded(weight) @ rows).T.reshape(rank, channels, height, 1)
            return [columns, filters]

        return split


def unfolded(weight: torch.Tensor) -> torch.Tensor:
    """Inputs and rows of the kernel against outputs and its columns."""
    out, channels, height, width = weight.shape
    return weight.permute(1, 2, 0, 3).reshape(channels * height, out * width)
