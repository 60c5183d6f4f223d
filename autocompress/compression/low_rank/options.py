"""The values of a layer's rank gene: which forms, at which ranks, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil

import torch
from torch import nn

from autocompress.compression.low_rank.spatial import unfolded
from autocompress.compression.low_rank.vbmf import vbmf_rank
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.errors import RequestError
from autocompress.graph.factors import LayerShape, entering, factorizations, factors, macs
from autocompress.graph.model_graph import Layer

#: A rank is offered when the factors need at most this share of the layer's multiplications.
WORTHWHILE = 0.8
#: Shares of the full rank that are offered, by form.
SHARES: Mapping[str, tuple[float, ...]] = {
    "svd": (0.5, 0.25),
    "whitened": (0.5, 0.25),
    "tucker": (0.5,),
    "cp": (1.0, 0.5),
    "spatial": (0.25,),
}
#: Length of a weight's shorter side above which its VBMF rank is not looked for: seconds each.
_LONGEST_SIDE = 1536
_NAME = re.compile(r"([a-z]+):([1-9]\d*)(?:x([1-9]\d*))?")


def rank_name(factorization: str, rank: int, input_rank: int | None = None) -> str:
    """Such as "whitened:16", or "tucker:16x8" (outputs, inputs)."""
    return f"{factorization}:{rank}" + (f"x{input_rank}" if input_rank else "")


def rank_settings(name: Scalar | None) -> dict[str, Scalar | None]:
    """``factorization``, ``rank`` and ``input_rank`` of a name; those of the full weight for None.

    Raises:
        RequestError: the name is none.
    """
    if name is None:
        return {"factorization": "svd", "rank": None, "input_rank": None}
    found = _NAME.fullmatch(str(name))
    if found is None:
        raise RequestError(f"rank is {name!r}; use such as 'svd:16', 'tucker:16x8', or None")
    inner = None if found[3] is None else int(found[3])
    return {"factorization": found[1], "rank": int(found[2]), "input_rank": inner}


def rank_options(
    layer: Layer, module: nn.Conv2d | nn.Linear | nn.Embedding, step: int, forms: Sequence[str]
) -> tuple[str, ...]:
    """Names of what is worth offering for a layer, most multiplications first.

    Each form comes at the shares of :data:`SHARES` and at the rank that variational Bayes finds in
    the weight (rounded up), all multiples of the device's step. What saves too few multiplications
    is left out.

    Args:
        layer: the full layer.
        module: the layer itself, of whose weight the signal's rank is asked.
        step: ranks that are multiples of it run well on the device.
        forms: names of factorisations.
    """
    if layer.calls > 1:
        return ()
    whole = LayerShape.of(module)
    size = entering(layer, whole)
    most = WORTHWHILE * macs((whole,), size)
    found: dict[str, int] = {}
    for form in [form for form in factorizations(layer) if form in forms]:
        for rank, inner in _ranks(form, module.weight, step):
            policy = LayerPolicy(rank=rank, factorization=form, input_rank=inner)
            made = factors(layer, whole, policy)
            if made is not None and (cost := macs(made, size)) <= most:
                found[rank_name(form, rank, policy.input_rank)] = cost
    return tuple(sorted(found, key=lambda name: (-found[name], name)))


def _ranks(form: str, weight: torch.Tensor, step: int) -> Iterator[tuple[int, int | None]]:
    """Ranks of a form, the second for the inputs where it has one."""
    if form == "cp":  # no unfolding has the rank of a canonical decomposition
        side = max(weight.shape[:2])
        for share in SHARES[form]:
            yield _rounded(share * side, side, step), None
        return
    matrices = _UNFOLDED[form](weight.detach())
    sides = [min(matrix.shape) for matrix in matrices]
    for share in SHARES[form]:
        yield _pair([_rounded(share * side, side, step) for side in sides])
    if weight.is_meta or max(sides) > _LONGEST_SIDE:
        return
    signal = [vbmf_rank(matrix) for matrix in matrices]
    if min(signal) > 0:
        steps = [_step(side, step) for side in sides]
        yield _pair([ceil(r / step) * step for r, step in zip(signal, steps, strict=True)])


def _rounded(rank: float, side: int, step: int) -> int:
    step = _step(side, step)
    return max(step, round(rank / step) * step)


def _step(side: int, step: int) -> int:
    """The device's; for sides too short for it, a quarter of themselves, at least 2."""
    return step if side >= 2 * step else max(2, side // 4)


def _pair(ranks: Sequence[int]) -> tuple[int, int | None]:
    """One rank, or two that differ."""
    return ranks[0], ranks[-1] if ranks[-1] != ranks[0] else None


def _outputs(weight: torch.Tensor) -> list[torch.Tensor]:
    return [weight.flatten(1)]


#: The matrices whose ranks are a form's, by form.
_UNFOLDED: Mapping[str, Callable[[torch.Tensor], list[torch.Tensor]]] = {
    "svd": _outputs,
    "whitened": _outputs,
    "tucker": lambda weight: [weight.flatten(1), weight.transpose(0, 1).flatten(1)],
    "spatial": lambda weight: [unfolded(weight)],
}
