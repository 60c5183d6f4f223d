"""The layers that a factorised layer becomes: how many, in which shapes, and whether they pay.

The weights in them are :mod:`autocompress.compression.low_rank`'s business; a candidate is priced
without looking at a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from torch import nn

from autocompress.core.candidate import LayerPolicy
from autocompress.errors import RequestError
from autocompress.graph.layers import kernel_padding, pair
from autocompress.graph.model_graph import Layer

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Shape of a convolution, or of another layer, which has the defaults from ``stride`` on.

    Attributes:
        weight: ``(out, in / groups, height, width)``, ``(out, in)`` of a linear layer, or
            ``(rows, width)`` of an embedding.
        stride: height and width.
        padding: height and width.
        dilation: height and width.
        groups: convolution groups.
    """

    weight: tuple[int, ...]
    stride: Size = (1, 1)
    padding: Size = (0, 0)
    dilation: Size = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Conv2d | nn.Linear | nn.Embedding) -> LayerShape:
        """The shape of a full layer."""
        weight = tuple(module.weight.shape)
        if not isinstance(module, nn.Conv2d):
            return cls(weight)
        return cls(
            weight, pair(module.stride), kernel_padding(module, None), pair(module.dilation),
            module.groups,
        )  # fmt: skip

    @property
    def kernel(self) -> Size:
        """Height and width; (1, 1) for a linear layer."""
        return (self.weight[2], self.weight[3]) if len(self.weight) == 4 else (1, 1)

    def output_size(self, size: Size) -> Size:
        """Height and width of the output for those of the input."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        height, width = (
            (n + 2 * p - s - 1) // step + 1
            for n, p, s, step in zip(size, self.padding, spans, self.stride, strict=True)
        )
        return height, width

    def input_size(self, size: Size) -> Size:
        """The smallest input that gives an output of this size."""
        height, width = (
            (n - 1) * step + d * (k - 1) + 1 - 2 * p
            for n, step, d, k, p in zip(
                size, self.stride, self.dilation, self.kernel, self.padding, strict=True
            )
        )
        return max(1, height), max(1, width)


def macs(shapes: tuple[LayerShape, ...], size: Size) -> int:
    """Multiply-accumulates of layers in a row, for an input of this height and width.

    Linear layers count for one row. An embedding's table counts as if it were multiplied by, so
    that what is saved is weights.
    """
    total = 0
    for shape in shapes:
        size = shape.output_size(size)
        total += prod(shape.weight) * prod(size)
    return total


def factors(layer: Layer, whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...] | None:
    """What the layer becomes under the policy; None when it stays whole.

    It stays whole where no rank is asked for, and where what is left of it once it is narrowed or
    its kernel cropped would need no fewer multiplications as factors.

    Args:
        layer: the full layer.
        whole: what the candidate keeps of it.
        policy: rank and factorisation.

    Raises:
        RequestError: the full layer cannot be factorised in this way.
    """
    if policy.rank is None:
        return None
    reason = why_not(layer, policy.factorization)
    if reason is not None:
        raise RequestError(
            f"layer {layer.name!r} cannot take factorization {policy.factorization!r}: {reason}; "
            f"use {' or '.join(repr(f) for f in factorizations(layer)) or 'no rank there'}"
        )
    if not _FITS[policy.factorization](whole.kernel):
        return None
    made = (
        _table(whole, policy) if _is_table(layer) else _SHAPES[policy.factorization](whole, policy)
    )
    size = entering(layer, whole)
    return made if macs(made, size) < macs((whole,), size) else None


def factorizations(layer: Layer) -> tuple[str, ...]:
    """The ways in which a layer can be factorised, whether or not that pays."""
    return tuple(form for form in _SHAPES if why_not(layer, form) is None)


def why_not(layer: Layer, factorization: str) -> str | None:
    """Why a layer cannot be factorised in this way; None when it can."""
    if layer.groups > 1:
        return "it has groups, whose filters are small already"
    if _is_table(layer):
        return (
            None if factorization == "svd" else "its rows are looked up: only 'svd' is for tables"
        )
    kernel = (layer.kernel[0], layer.kernel[-1]) if layer.kernel else (1, 1)
    if not _FITS[factorization](kernel):
        shape = "x".join(str(k) for k in layer.kernel)
        has = f"its kernel is {shape}" if layer.kernel else "it is linear"
        return f"{has}, and that form needs a larger kernel"
    return None


def entering(layer: Layer, whole: LayerShape) -> Size:
    """Height and width of what enters the layer; of the smallest it takes, where not known."""
    if len(whole.weight) != 4:
        return (1, 1)
    if len(layer.input_shape) == 4:
        return (layer.input_shape[2], layer.input_shape[3])
    return whole.input_size((1, 1))


def part_kinds(kind: str, count: int) -> tuple[str, ...]:
    """Kinds of the parts of a layer of that kind: narrow rows are made wide by a linear layer."""
    return (kind, *(["linear" if kind == "embedding" else kind] * (count - 1)))


def _is_table(layer: Layer) -> bool:
    return layer.kind == "embedding"


def _table(whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...]:
    """Narrow rows, and a linear layer that makes them wide (Lan et al. 2020, arXiv:1909.11942)."""
    rank = policy.rank or 0
    rows, width = whole.weight
    return LayerShape((rows, rank)), LayerShape((width, rank))


def _svd(whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...]:
    rank = policy.rank or 0
    first = replace(whole, weight=(rank, *whole.weight[1:]))
    return first, _expand(whole, rank)


def _tucker(whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...]:
    out, channels, *kernel = whole.weight
    rank = min(policy.rank or 0, out)
    entering = min(policy.input_rank or policy.rank or 0, channels)
    core = replace(whole, weight=(rank, entering, *kernel))
    return LayerShape((entering, channels, 1, 1)), core, _expand(whole, rank)


def _cp(whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...]:
    rank = policy.rank or 0
    _, channels, *kernel = whole.weight
    middle = replace(whole, weight=(rank, 1, *kernel), groups=rank)
    return LayerShape((rank, channels, 1, 1)), middle, _expand(whole, rank)


def _spatial(whole: LayerShape, policy: LayerPolicy) -> tuple[LayerShape, ...]:
    rank = policy.rank or 0
    out, channels, height, width = whole.weight
    (down, right), (above, beside), (high, wide) = whole.stride, whole.padding, whole.dilation
    return (
        LayerShape((rank, channels, height, 1), (down, 1), (above, 0), (high, 1)),
        LayerShape((out, rank, 1, width), (1, right), (0, beside), (1, wide)),
    )


def _expand(whole: LayerShape, rank: int) -> LayerShape:
    """The 1x1 layer from ``rank`` channels back to all outputs."""
    return LayerShape((whole.weight[0], rank, *([1, 1] if len(whole.weight) == 4 else [])))


_SHAPES: Mapping[str, Callable[[LayerShape, LayerPolicy], tuple[LayerShape, ...]]] = {
    "svd": _svd,
    "whitened": _svd,
    "tucker": _tucker,
    "cp": _cp,
    "spatial": _spatial,
}
#: Kernels that each form is made for.
_FITS: Mapping[str, Callable[[Size], bool]] = {
    "svd": lambda kernel: True,
    "whitened": lambda kernel: True,
    "tucker": lambda kernel: prod(kernel) > 1,
    "cp": lambda kernel: prod(kernel) > 1,
    "spatial": lambda kernel: min(kernel) > 1,
}
