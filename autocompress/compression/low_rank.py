"""Low rank: a layer as two smaller ones, by singular value decomposition over its outputs.

For ``W`` with singular vectors ``U``, rank ``r`` keeps ``U_r (U_r^T W)``: first ``r`` filters, then
a 1x1 convolution (or linear map) back to all outputs (Zhang et al. 2015, arXiv:1505.06798, without
their non-linear response correction).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part, Transform
from autocompress.compression.refusals import called_again
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph

RANK = "rank:"
#: A rank is offered when the factors need at most this share of the layer's multiplications.
WORTHWHILE = 0.8
_SHARES = (0.5, 0.25)


class LowRank(Technique):
    """Rank per layer; None keeps the full weight."""

    name = "low_rank"
    order = 20
    reference = "Zhang et al. 2015, arXiv:1505.06798"

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per ungrouped layer for which some rank saves multiplications."""
        found: list[Choice] = []
        for layer in graph.layers.values():
            ranks = rank_options(layer, capabilities.rank_step)
            if ranks:
                found.append(Choice(RANK + layer.name, (None, *ranks)))
        return found

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Groups, shared weights, or no rank that pays."""
        if layer.groups > 1:
            kind = "depthwise" if layer.is_depthwise else "grouped"
            return f"{kind} convolution: its weight is many small matrices, not one"
        if layer.calls > 1:
            return called_again(layer)
        return (
            f"no rank in steps of {capabilities.rank_step} needs {WORTHWHILE:.0%} of its "
            "multiplications or fewer"
        )

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``rank``."""
        return {"rank": value}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Splits the layer's only part in two; None when the rank would not reduce it."""
        if policy.rank is None or len(parts) != 1 or parts[0].groups > 1:
            return None
        part = parts[0]
        rows, columns = part.weight.shape[0], part.weight[0].numel()
        if policy.rank >= min(rows, columns):
            return None
        with torch.no_grad():
            basis = output_basis(part.weight, policy.rank)

        def split(parts: Sequence[Part]) -> list[Part]:
            return factorise(parts[0], basis.to(parts[0].weight.dtype))

        return split


def output_basis(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """The first ``rank`` left singular vectors of the weight, shape ``(out, rank)``."""
    matrix = weight.detach().flatten(1).double()
    vectors: torch.Tensor = torch.linalg.svd(matrix, full_matrices=False)[0]
    return vectors[:, :rank].float()


def factorise(part: Part, basis: torch.Tensor) -> list[Part]:
    """The part as two, of rank ``basis.shape[1]``; differentiable in the part's weight."""
    rank = basis.shape[1]
    reduced = (basis.T @ part.weight.flatten(1)).reshape(rank, *part.weight.shape[1:])
    first = Part(part.kind, reduced, None, part.stride, part.padding, part.dilation)
    expand = basis if part.kind == "linear" else basis[:, :, None, None]
    return [first, Part(part.kind, expand, part.bias)]


def rank_options(layer: Layer, step: int) -> tuple[int, ...]:
    """Ranks worth offering, largest first; empty when none saves enough multiplications."""
    if layer.groups > 1 or layer.calls > 1:
        return ()
    area = 1
    for k in layer.kernel:
        area *= k
    columns = layer.in_channels * area
    full = layer.out_channels * columns
    smaller = min(layer.out_channels, columns)
    if smaller < 2 * step:
        step = max(2, smaller // 4)
    ranks = {max(step, round(share * smaller / step) * step) for share in _SHARES}
    return tuple(
        sorted(
            (r for r in ranks if r * (columns + layer.out_channels) <= WORTHWHILE * full),
            reverse=True,
        )
    )
