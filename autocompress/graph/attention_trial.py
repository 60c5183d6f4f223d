"""Whether a rewritten graph computes what it did: at other batch sizes, lengths and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from autocompress.graph.attention_form import (
    Facts,
)
from autocompress.graph.capture import free_axes
from autocompress.graph.capture_check import random_like
from autocompress.graph.watching import Watcher

#: Largest difference that rewriting may make, relative to the largest output.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Trial:
    """What the graph gives for inputs of batch sizes other than the captured one.

    Where the length of rows is free, one run has shorter rows; where inputs are integers, in one
    run each row repeats a single value, so that rows of padding alone are among them.

    Attributes:
        inputs: of each run.
        expected: output of each run.
        facts: of the first run.
    """

    inputs: tuple[Sequence[torch.Tensor], ...]
    expected: tuple[torch.Tensor, ...]
    facts: Facts

    @classmethod
    def of(cls, module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Trial:
        """Run the graph."""
        drawn: list[Sequence[torch.Tensor]] = [_drawn(module, inputs, size) for size in (3, 5)]
        facts, first = _facts(module, drawn[0])
        with torch.no_grad():
            expected: list[torch.Tensor] = [first, module(*drawn[1])]
            for other in (_shorter(module, drawn[0]), _single_values(inputs)):
                if other is None:
                    continue
                try:
                    found = module(*other)
                except Exception:  # noqa: S112 - such inputs are not for this model
                    continue
                drawn.append(other)
                expected.append(found)
        return cls(tuple(drawn), tuple(expected), facts)

    def agrees(self, module: fx.GraphModule) -> bool:
        """Whether ``module`` gives the same."""
        with torch.no_grad():
            pairs = zip(self.inputs, self.expected, strict=True)
            return all(_same(module(*inputs), expected) for inputs, expected in pairs)


def _drawn(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor], size: int
) -> Sequence[torch.Tensor]:
    many = [x[:1].expand(size, *x.shape[1:]).clone() for x in inputs]
    drawn = random_like(many)
    try:
        with torch.no_grad():
            module(*drawn)
    except Exception:  # the model may refuse random numbers
        return many
    return drawn


def free_rows(module: fx.GraphModule) -> list[bool]:
    """For each input whether the length of its rows is free."""
    return [1 in free_axes(node) for node in module.graph.nodes if node.op == "placeholder"]


def _shorter(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor] | None:
    """The inputs with less of each row, where the length of rows is free."""
    free = free_rows(module)
    if not any(free):
        return None
    return [
        x[:, : max(1, x.shape[1] * 2 // 3)] if rows else x
        for x, rows in zip(inputs, free, strict=True)
    ]


def _single_values(inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor] | None:
    """Rows that repeat one value each, of the least and largest integers in the inputs."""
    values = [torch.unique(x) for x in inputs if not x.is_floating_point()]
    if not values:
        return None
    size = min(8, max(len(v) for v in values))

    def repeated(x: torch.Tensor) -> torch.Tensor:
        if x.is_floating_point():
            return x[:1].expand(size, *x.shape[1:]).clone()
        found = torch.unique(x)
        ends = torch.cat([found[: size - size // 2], found[len(found) - size // 2 :]])
        rows = ends[torch.arange(size) % len(ends)]
        return rows.reshape(size, *[1] * (x.dim() - 1)).expand(size, *x.shape[1:]).clone()

    return [repeated(x) for x in inputs]


def _facts(module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> tuple[Facts, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, int] = {}
    booleans: set[str] = set()
    infinite: set[str] = set()
    hidden: set[str] = set()

    def see(node: fx.Node, read: list[Any], value: Any) -> None:
        if isinstance(value, torch.Tensor):
            shapes[node.name] = tuple(value.shape)
            if value.dtype == torch.bool:
                booleans.add(node.name)
                nothing = ~value
            elif value.is_floating_point() and bool((nothing := torch.isneginf(value)).any()):
                infinite.add(node.name)
            else:
                return
            if value.dim() and bool(nothing.all(-1).any()):
                hidden.add(node.name)
        elif isinstance(value, int):
            numbers[node.name] = value

    with torch.no_grad():
        output: torch.Tensor = Watcher(module, see).run(*inputs)
    masks = (frozenset(booleans), frozenset(infinite), frozenset(hidden))
    return Facts(shapes, numbers, *masks), output


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(
        found, expected, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, largest), equal_nan=True
    )
