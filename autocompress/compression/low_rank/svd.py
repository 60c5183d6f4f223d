"""Singular value decomposition over the outputs: fewer filters, then a 1x1 layer to all outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.low_rank.base import Factorization, Split, leading_vectors
from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape


class PlainSvd(Factorization):
    """The nearest weight of its rank (Eckart & Young 1936): ``W ~ U_r (U_r^T W)``.

    An embedding's table has its short side at the end: ``E ~ (E V_r) V_r^T``.
    """

    name = "svd"
    reference = "Zhang et al. 2015, arXiv:1505.06798, without the response's non-linearity"

    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """Projects the outputs onto the weight's first left singular vectors."""
        if part.kind == "embedding":
            return onto_columns(output_basis(part.weight.T, shapes[0].weight[1]))
        return onto_outputs(output_basis(part.weight, shapes[0].weight[0]))


def output_basis(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """The first ``rank`` left singular vectors of the weight, shape ``(out, rank)``."""
    matrix = weight.detach().flatten(1).double()
    if matrix.shape[0] <= matrix.shape[1]:
        vectors = leading_vectors(matrix @ matrix.T, rank)
    else:
        vectors = torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
    return vectors.to(weight.dtype)


def onto_outputs(basis: torch.Tensor) -> Split:
    """Splits ``W`` into ``B^T W`` and ``B``, of shape ``(out, rank)`` with orthonormal columns."""

    def split(weight: torch.Tensor) -> list[torch.Tensor]:
        reduced = (basis.T @ weight.flatten(1)).reshape(basis.shape[1], *weight.shape[1:])
        return [reduced, basis if weight.dim() == 2 else basis[:, :, None, None]]

    return split


def onto_columns(basis: torch.Tensor) -> Split:
    """Splits a table ``E`` into ``E B`` and ``B``, of shape ``(width, rank)``, orthonormal."""

    def split(weight: torch.Tensor) -> list[torch.Tensor]:
        return [weight @ basis, basis]

    return split
