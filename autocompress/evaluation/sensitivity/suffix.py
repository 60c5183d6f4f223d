"""Run only what a change can reach: the part of a graph behind its first difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import fx, nn

#: Results by node name.
Values: TypeAlias = Mapping[str, Any]


def first_difference(base: fx.GraphModule, other: fx.GraphModule) -> int:
    """How many of the first nodes of ``base`` are found in ``other`` with the same results.

    Two nodes are the same when they have one name, do the same with the same inputs, and hold
    equal weights: whatever a technique did to ``other``, nothing before that place can tell. The
    last node, the output, never counts.
    """
    theirs = {node.name: node for node in other.graph.nodes}
    nodes = list(base.graph.nodes)
    for place, node in enumerate(nodes):
        twin = theirs.get(node.name)
        if twin is None or not _same(base, node, other, twin):
            return place
    return len(nodes) - 1


def _same(base: fx.GraphModule, node: fx.Node, other: fx.GraphModule, twin: fx.Node) -> bool:
    if node.op != twin.op or node.target != twin.target:
        return False
    if _by_name((node.args, node.kwargs)) != _by_name((twin.args, twin.kwargs)):
        return False
    target = str(node.target)
    if node.op == "call_module":
        return _equal_modules(base.get_submodule(target), other.get_submodule(target))
    if node.op == "get_attr":
        return torch.equal(attribute(base, target), attribute(other, target))
    return True


def _by_name(arguments: Any) -> Any:
    return fx.map_arg(arguments, lambda node: ("node", node.name))


def _equal_modules(one: nn.Module, other: nn.Module) -> bool:
    if type(one) is not type(other) or one.extra_repr() != other.extra_repr():
        return False
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def attribute(root: nn.Module, target: str) -> torch.Tensor:
    """The tensor at a dotted path."""
    owner: Any = root
    for part in target.split("."):
        owner = getattr(owner, part)
    return owner  # type: ignore[no-any-return]


def last_uses(module: fx.GraphModule) -> dict[str, int]:
    """For each node, the place of the last one that reads it (its own when none does)."""
    found = {}
    for place, node in enumerate(module.graph.nodes):
        found[node.name] = place
        for source in node.all_input_nodes:
            found[source.name] = place
    return found


class Suffix:
    """The nodes of ``module`` that are not among the first ``cut`` nodes of ``base``.

    Args:
        base: a graph whose first nodes ``module`` shares (see :func:`first_difference`).
        module: run from there on.
        cut: how many nodes of ``base`` are taken as known.

    Attributes:
        cut: as given, or smaller where ``module`` reads what ``base`` has dropped by then.
    """

    def __init__(self, base: fx.GraphModule, module: fx.GraphModule, cut: int) -> None:
        places = {node.name: place for place, node in enumerate(base.graph.nodes)}
        until = last_uses(base)
        while True:
            nodes = [n for n in module.graph.nodes if places.get(n.name, cut) >= cut]
            inside = {node.name for node in nodes}
            needed = {
                source.name
                for node in nodes
                for source in node.all_input_nodes
                if source.name not in inside
            }
            dropped = [places[name] for name in needed if until[name] < cut]
            if not dropped:
                break
            cut = min(dropped)
        self.cut = cut
        self.needed = needed
        self.module = module
        self._nodes = nodes
        self._last: dict[str, int] = {}
        for place, node in enumerate(nodes):
            for source in node.all_input_nodes:
                self._last[source.name] = place
        self._interpreter = fx.Interpreter(module, garbage_collect_values=False)

    def norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        """The batch norms that it runs."""
        found = (
            self.module.get_submodule(str(node.target))
            for node in self._nodes
            if node.op == "call_module"
        )
        return [m for m in found if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def run(self, values: Values, watch: Callable[[str, Any], bool] | None = None) -> Any:
        """The module's output, given the results of the base's nodes that it reads.

        Args:
            values: results by node name; more than :attr:`needed` does no harm.
            watch: told of every result, those in ``needed`` first; ends the run by returning True.

        Returns:
            The output; None when ``watch`` ended the run.
        """
        by_name = {node.name: node for node in self.module.graph.nodes}
        env = {by_name[name]: values[name] for name in self.needed}
        self._interpreter.env = env
        if watch is not None:
            ended = [watch(name, values[name]) for name in self.needed]
            if any(ended):
                return None
        for place, node in enumerate(self._nodes):
            if node.op == "output":
                return env[node.all_input_nodes[0]]
            env[node] = self._interpreter.run_node(node)
            if watch is not None and watch(node.name, env[node]):
                return None
            for source in node.all_input_nodes:
                if self._last[source.name] == place:
                    env.pop(source, None)
        raise RuntimeError("the graph has no output")
