"""The results of a graph at a place that moves forward: what everything behind it needs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import fx

from autocompress.evaluation.sensitivity.suffix import Values, last_uses
from autocompress.graph.inspect import node_shapes

#: Bytes of an element of a result.
_BYTES = 4


class Frontier:
    """Keeps the results of ``module``'s first nodes that later nodes still read, for all batches.

    Asking for places in ascending order costs one run over the graph in all; going back starts
    from the inputs again.

    Args:
        module: in the mode that it is to be run in.
        batches: inputs, one tensor each.
        limit_bytes: where more would have to be kept, an earlier place is kept instead.
    """

    def __init__(
        self, module: fx.GraphModule, batches: Sequence[torch.Tensor], limit_bytes: int
    ) -> None:
        self.module = module
        self.examples = sum(len(batch) for batch in batches)
        self._nodes = list(module.graph.nodes)
        self._last = last_uses(module)
        self._inputs = [n for n in self._nodes if n.op == "placeholder"]
        self._batches = batches
        self._costs = self._live_bytes(batches[0][:2])
        self._limit = limit_bytes
        self._interpreter = fx.Interpreter(module, garbage_collect_values=False)
        self._place = 0
        self._restart()

    def affordable(self, cut: int) -> int:
        """The latest place up to ``cut`` whose results are within the limit of memory."""
        first = len(self._inputs)
        fitting = (c for c in range(cut, first, -1) if self._costs[c] <= self._limit)
        return next(fitting, first)

    @torch.no_grad()
    def at(self, cut: int) -> list[Values]:
        """Results by name at a place, for each batch; only read them.

        Args:
            cut: how many of the first nodes have been run; at least the inputs.
        """
        if cut < self._place:
            self._restart()
        for env in self._envs:
            self._interpreter.env = env
            for place in range(self._place, cut):
                node = self._nodes[place]
                env[node] = self._interpreter.run_node(node)
                for source in (node, *node.all_input_nodes):
                    if self._last[source.name] <= place:
                        env.pop(source, None)
        self._place = cut
        return [{node.name: value for node, value in env.items()} for env in self._envs]

    def _restart(self) -> None:
        self._envs = [dict(zip(self._inputs, [batch], strict=True)) for batch in self._batches]
        self._place = len(self._inputs)

    def _live_bytes(self, sample: torch.Tensor) -> list[int]:
        """Bytes of what is kept at each place, over all batches."""
        shapes = node_shapes(self.module, (sample,))
        sizes = {
            node.name: _BYTES * prod(shapes[node.name]) * self.examples // len(sample)
            for node in self._nodes
            if node.op not in ("get_attr", "output") and shapes.get(node.name)
        }
        costs = [0] * (len(self._nodes) + 1)
        for place, node in enumerate(self._nodes):
            for cut in range(place + 1, self._last[node.name] + 1):
                costs[cut] += sizes.get(node.name, 0)
        return costs
