"""How each tensor's shape depends on the batch size, and on the length of rows if that is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from autocompress.errors import RequestError
from autocompress.graph.capture import free_axes


@dataclass(frozen=True, slots=True)
class Extent:
    """A tensor's shape for a batch of ``n`` rows of ``m``: ``n * slopes + m * rates + constants``.

    Attributes:
        slopes: per dimension; 0 where the batch does not matter.
        constants: per dimension.
        dtype: element type.
        rates: per dimension; 0 where the length does not matter, as in every model whose rows have
            one length.
    """

    slopes: tuple[int, ...]
    constants: tuple[int, ...]
    dtype: torch.dtype
    rates: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.slopes)

    @property
    def is_float(self) -> bool:
        """Whether it holds float32."""
        return self.dtype == torch.float32

    def is_free(self, axis: int) -> bool:
        """Whether the size along an axis depends on the batch or on the length."""
        return self.slopes[axis] != 0 or self.rates[axis] != 0

    def is_batch(self, axis: int) -> bool:
        """Whether the size along an axis is that of the batch."""
        return self._terms(axis) == (1, 0, 0)

    def is_length(self, axis: int) -> bool:
        """Whether the size along an axis is the length of a row."""
        return self._terms(axis) == (0, 1, 0)

    def _terms(self, axis: int) -> tuple[int, int, int]:
        return self.slopes[axis], self.rates[axis], self.constants[axis]

    def same(self, axis: int, other: Extent) -> bool:
        """Whether another tensor has the same size along an axis."""
        return axis < other.rank and self._terms(axis) == other._terms(axis)

    @property
    def pattern(self) -> tuple[int, ...] | None:
        """The shape with -1 for its only free dimension; None when there are more."""
        free = [self.is_free(axis) for axis in range(self.rank)]
        if sum(free) > 1:
            return None
        return tuple(-1 if f else c for f, c in zip(free, self.constants, strict=True))


Found = dict[str, tuple[tuple[int, ...], torch.dtype]]


class _Run(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: Found = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.found[n.name] = (tuple(value.shape), value.dtype)
        return value


@torch.no_grad()
def extents(module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> dict[str, Extent]:
    """The extent of every tensor-valued node, found by running batches and lengths that differ.

    Args:
        module: a graph with a free batch dimension.
        inputs: example inputs, batch first.

    Raises:
        RequestError: a size depends on the batch times the length or on a part of the length, or
            the graph does not run on shorter rows.
    """
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    rows = [1 in free_axes(node) for node in places]

    def run(batch: int, shorter: int) -> Found:
        made = _Run(module)
        given = [
            (x[:1, : x.shape[1] - shorter] if row else x[:1])
            for x, row in zip(inputs, rows, strict=True)
        ]
        try:
            made.run(*(x.expand(batch, *x.shape[1:]).contiguous() for x in given))
        except Exception as error:
            if not shorter:
                raise
            first = str(error).strip().partition("\n")[0]
            raise RequestError(
                f"the graph does not run on rows {shorter} shorter than the example's "
                f"({type(error).__name__}: {first}); keep their length"
            ) from error
        return made.found

    one, two = run(1, 0), run(2, 0)
    less = run(1, 1) if any(rows) else one
    lengths = [x.shape[1] for x, row in zip(inputs, rows, strict=True) if row]
    length = lengths[0] if lengths else 0
    found = {name: _extent(one[name], two[name], less[name], length) for name in one}
    if lengths:
        half = min(lengths) - max(2, min(lengths) // 2)
        mixed = "mixes the batch with the length of rows; keep them in dimensions of their own"
        _check(found, run(2, 1), 2, length - 1, mixed)
        _check(found, run(1, half), 1, length - half, "changes unevenly with the length of rows")
    return found


def _check(found: Mapping[str, Extent], seen: Found, batch: int, length: int, fault: str) -> None:
    for name, (shape, _) in seen.items():
        e = found[name]
        terms = zip(e.slopes, e.rates, e.constants, strict=True)
        if shape != tuple(batch * s + length * r + c for s, r, c in terms):
            raise RequestError(f"the shape of {name!r} {fault}")


def _extent(
    one: tuple[tuple[int, ...], torch.dtype],
    two: tuple[tuple[int, ...], torch.dtype],
    less: tuple[tuple[int, ...], torch.dtype],
    length: int,
) -> Extent:
    slopes = tuple(b - a for a, b in zip(one[0], two[0], strict=True))
    rates = tuple(a - b for a, b in zip(one[0], less[0], strict=True))
    terms = zip(one[0], slopes, rates, strict=True)
    return Extent(slopes, tuple(n - s - length * r for n, s, r in terms), one[1], rates)
