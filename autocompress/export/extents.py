"""How each tensor's shape depends on the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx


@dataclass(frozen=True, slots=True)
class Extent:
    """A tensor's shape at any batch size ``n``: ``n * slopes + constants``.

    Attributes:
        slopes: per dimension; 0 where the batch does not matter.
        constants: per dimension.
        dtype: element type.
    """

    slopes: tuple[int, ...]
    constants: tuple[int, ...]
    dtype: torch.dtype

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.slopes)

    @property
    def is_float(self) -> bool:
        """Whether it holds float32."""
        return self.dtype == torch.float32

    def at(self, batch: int) -> tuple[int, ...]:
        """The shape for a batch of that size."""
        return tuple(batch * s + c for s, c in zip(self.slopes, self.constants, strict=True))

    @property
    def pattern(self) -> tuple[int, ...] | None:
        """The shape with -1 for its only batch-dependent dimension; None when there are more."""
        if sum(s != 0 for s in self.slopes) > 1:
            return None
        return tuple(-1 if s else c for s, c in zip(self.slopes, self.constants, strict=True))


class _Run(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.found[n.name] = (tuple(value.shape), value.dtype)
        return value


@torch.no_grad()
def extents(module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> dict[str, Extent]:
    """The extent of every tensor-valued node, found by running batches of one and two.

    Args:
        module: a graph with a free batch dimension.
        inputs: example inputs, batch first.
    """
    runs = []
    for batch in (1, 2):
        run = _Run(module)
        run.run(*(x[:1].expand(batch, *x.shape[1:]).contiguous() for x in inputs))
        runs.append(run.found)
    one, two = runs
    return {name: _extent(one[name], two[name]) for name in one}


def _extent(
    one: tuple[tuple[int, ...], torch.dtype], two: tuple[tuple[int, ...], torch.dtype]
) -> Extent:
    slopes = tuple(b - a for a, b in zip(one[0], two[0], strict=True))
    constants = tuple(a - s for a, s in zip(one[0], slopes, strict=True))
    return Extent(slopes, constants, one[1])
