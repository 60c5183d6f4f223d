"""Tucker-2: a convolution between fewer channels, with 1x1 layers before and after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.low_rank.base import Factorization, Split, leading_vectors
from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape

#: Refinements of the first guess at the most; they converge in a few.
_SWEEPS = 10
#: A refinement that keeps so little more of the weight's energy, as a share of it, is the last.
_GAIN = 1e-6


class Tucker(Factorization):
    """``W ~ core x U_out x U_in`` over the channels; kernels are too small to gain from."""

    name = "tucker"
    reference = "Kim et al. 2016, arXiv:1511.06530"

    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """Projects both channel axes onto the spaces that keep most of the weight."""
        out, into = channel_bases(part.weight, (shapes[1].weight[0], shapes[1].weight[1]))

        def split(weight: torch.Tensor) -> list[torch.Tensor]:
            core = torch.einsum("oihw,op,ij->pjhw", weight, out, into)
            return [into.T[:, :, None, None], core, out[:, :, None, None]]

        return split


def channel_bases(
    weight: torch.Tensor, ranks: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal bases of the outputs ``(out, ranks[0])`` and of the inputs ``(in, ranks[1])``.

    The first guess is each unfolding's own (HOSVD); then each axis is fitted to what the other one
    keeps, in turn (HOOI; De Lathauwer et al. 2000, doi:10.1137/S0895479898346995).
    """
    whole = weight.detach().flatten(2).double()
    into = leading_vectors(torch.einsum("ois,ojs->ij", whole, whole), ranks[1])
    kept, energy = 0.0, float(whole.pow(2).sum())
    for _ in range(_SWEEPS):
        part = torch.einsum("ois,ij->ojs", whole, into)
        out = leading_vectors(torch.einsum("ois,pis->op", part, part), ranks[0])
        part = torch.einsum("ois,op->pis", whole, out)
        into = leading_vectors(torch.einsum("ois,ojs->ij", part, part), ranks[1])
        before, kept = kept, float(torch.einsum("ois,ij->ojs", part, into).pow(2).sum())
        if kept - before <= _GAIN * energy:
            break
    return out.to(weight.dtype), into.to(weight.dtype)
