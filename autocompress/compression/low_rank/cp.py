"""Canonical polyadic decomposition: a depthwise convolution between two 1x1 layers.

Kernel positions are one axis, so that the middle layer is one depthwise convolution of the full
kernel: one kernel less to launch than with an axis each for height and width (Lebedev et al. 2015,
arXiv:1412.6553), and closer to the weight at the same rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.low_rank.base import Factorization, Split, leading_vectors
from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape

_SWEEPS = 50
#: Relative change of the error below which the least squares have converged.
_TOLERANCE = 1e-4
#: Added to the normal equations, relative to their diagonal: without it, components of opposite
#: signs grow without bound (de Silva & Lim 2008, doi:10.1137/06066518X).
_RIDGE = 1e-4


class Cp(Factorization):
    """``W[o,i,s] ~ sum_r A[o,r] B[i,r] C[s,r]``, by regularised alternating least squares."""

    name = "cp"
    reference = "Astrid & Lee 2017, arXiv:1701.07148"
    iterative = True

    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """Fixes the first two layers and fits the last to the weight by least squares."""
        rank, kind = shapes[0].weight[0], part.weight.dtype
        into, places = _components(part.weight.detach().flatten(2), rank)
        solve = torch.linalg.inv(_damped(_gram(into, places))).to(kind)
        into, places = into.to(kind), places.to(kind)
        first = into.T[:, :, None, None]
        middle = places.T.reshape(rank, 1, *part.weight.shape[2:])

        def split(weight: torch.Tensor) -> list[torch.Tensor]:
            last = _through(weight.flatten(2), into, places) @ solve
            return [first, middle, last[:, :, None, None]]

        return split


def _through(whole: torch.Tensor, into: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The weight ``(out, in, positions)`` seen through the components, ``(out, rank)``."""
    return (torch.einsum("ois,ir->osr", whole, into) * places).sum(1)


def _components(whole: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit columns for inputs ``(in, rank)`` and for kernel positions ``(positions, rank)``.

    Products with the weight are in its own precision, everything else in double.
    """
    kind, exact = whole.dtype, whole.double()
    into = _start(torch.einsum("ois,ojs->ij", exact, exact), rank, seed=1)
    places = _start(torch.einsum("ois,oit->st", exact, exact), rank, seed=2)
    energy, before = float(exact.pow(2).sum()), float("inf")
    for _ in range(_SWEEPS):
        seen = _through(whole, into.to(kind), places.to(kind)).double()
        out = _solved(seen, into, places)
        fitted = float((out.T @ out * _gram(into, places)).sum())
        error = energy - 2 * float((seen * out).sum()) + fitted
        if before - error <= _TOLERANCE * energy:
            break
        before = error
        halfway = torch.einsum("ois,or->isr", whole, out.to(kind)).double()
        into = _unit(_solved((halfway * places).sum(1), out, places))
        places = _unit(_solved((halfway * into[:, None]).sum(0), out, into))
    return into, places


def _start(gram: torch.Tensor, rank: int, seed: int) -> torch.Tensor:
    """Leading vectors of an axis, then random directions where the rank exceeds its length."""
    leading = leading_vectors(gram, min(rank, len(gram)))
    generator = torch.Generator().manual_seed(seed)
    more = torch.randn(len(gram), rank - leading.shape[1], dtype=gram.dtype, generator=generator)
    return _unit(torch.cat([leading, more], 1))


def _solved(seen: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Least squares for one axis, given what it sees of the weight through the other two."""
    solution: torch.Tensor = torch.linalg.solve(_damped(_gram(first, second)), seen.T)
    return solution.T


def _gram(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.T @ first) * (second.T @ second)


def _damped(gram: torch.Tensor) -> torch.Tensor:
    added = _RIDGE * gram.diagonal().mean() + 1e-12  # a weight of zeros has no diagonal
    return gram + added * torch.eye(len(gram), dtype=gram.dtype)


def _unit(columns: torch.Tensor) -> torch.Tensor:
    length: torch.Tensor = columns.norm(dim=0)
    return columns / length.clamp_min(1e-12)
