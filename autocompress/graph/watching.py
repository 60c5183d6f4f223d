"""Runs a captured graph and shows what passes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import fx

#: Told of each node, the values that it reads, and its result.
See: TypeAlias = Callable[[fx.Node, list[Any], Any], None]


class Watcher(fx.Interpreter):
    """An interpreter that shows every node once it has run.

    Args:
        module: run as it is.
        see: told of each node in order of execution.
    """

    def __init__(self, module: fx.GraphModule, see: See) -> None:
        super().__init__(module)
        self.see = see

    def run_node(self, n: fx.Node) -> Any:
        """The node's result, as usual."""
        value = super().run_node(n)
        self.see(n, [self.env[source] for source in n.all_input_nodes], value)
        return value
