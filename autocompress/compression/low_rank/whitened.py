"""Singular value decomposition that weighs a weight by the inputs it meets.

``min ||X (W - W')^T||`` instead of ``min ||W - W'||``. With ``S S^T`` the inputs' second moment,
the answer is the decomposition of ``W S`` (Wang et al. 2024, SVD-LLM, arXiv:2403.07378). Its left
singular vectors are the eigenvectors of ``W S S^T W^T``, the second moment of the outputs, and
``W' = U_r U_r^T W``. Hence neither ``S`` nor its inverse is needed, and moments may be singular.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.low_rank.base import Factorization, Split, leading_vectors
from autocompress.compression.low_rank.svd import onto_outputs, output_basis
from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape

#: Second moment, relative to the mean of those seen, that every direction has at the least.
_UNSEEN = 1e-3


class WhitenedSvd(Factorization):
    """The weight of its rank with the nearest outputs; plain SVD where no inputs were observed."""

    name = "whitened"
    reference = "Wang et al. 2024, SVD-LLM, arXiv:2403.07378"

    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """Projects the outputs onto the directions that hold most of them."""
        rank = shapes[0].weight[0]
        if part.inputs is None:
            return onto_outputs(output_basis(part.weight, rank))
        return onto_outputs(response_basis(part.weight, part.inputs(), rank))


def response_basis(weight: torch.Tensor, second: torch.Tensor, rank: int) -> torch.Tensor:
    """The first ``rank`` principal directions of the outputs, shape ``(out, rank)``.

    Args:
        weight: ``(out, in, height, width)`` or ``(out, in)``.
        second: uncentred second moments of the inputs, shape ``(k, k)``, ``k`` the weight's length.
        rank: directions.
    """
    matrix = weight.detach().flatten(1)
    # inputs that were not seen are taken to be small, not absent: the weight decides among them
    unseen = _UNSEEN * float(second.diagonal().mean())
    moments = (matrix @ second.to(matrix.dtype) + unseen * matrix).double() @ matrix.T.double()
    return leading_vectors((moments + moments.T) / 2, rank).to(weight.dtype)
