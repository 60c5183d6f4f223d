"""Reading what a network computes on its way to its outputs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx


class FeatureReader(fx.Interpreter):
    """Runs a graph as it is, with gradients, and hands out the values of some nodes.

    Nothing is attached to the graph or its modules: when the reader goes, so does all it held.

    Args:
        module: the graph; its training mode is respected.
        names: of the nodes to read.
    """

    def __init__(self, module: fx.GraphModule, names: Collection[str]) -> None:
        super().__init__(module)
        self._names = frozenset(names)
        self._seen: dict[str, torch.Tensor] = {}

    def read(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The outputs, and the named nodes' values."""
        try:
            return self.run(*inputs), self._seen
        finally:
            self._seen, self.env = {}, {}

    def run_node(self, n: fx.Node) -> Any:
        """Keep the value where it is wanted."""
        value = super().run_node(n)
        if n.name in self._names:
            self._seen[n.name] = value
        return value
