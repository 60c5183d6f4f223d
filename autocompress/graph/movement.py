"""Where elements go on a path of operators that only move them: views, transposes, pieces.

The path is run once on the numbers of the elements in place of their values, so that any sequence
of such operators is followed, in whatever order and form it is written.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn

#: aten operators whose result holds elements of their first argument and nothing else.
_MOVES = frozenset({
    "view", "reshape", "_unsafe_view", "unflatten", "flatten", "permute", "transpose", "t",
    "movedim", "squeeze", "unsqueeze", "contiguous", "clone", "alias", "detach", "select", "slice",
    "narrow", "expand", "chunk", "split", "split_with_sizes", "unbind",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Path:
    """A way back from a tensor to where its elements come from.

    Attributes:
        origin: the first node that does more than move elements.
        nodes: from behind the origin to the tensor, in execution order.
        factor: what the elements are multiplied with on the way.
    """

    origin: fx.Node
    nodes: tuple[fx.Node, ...]
    factor: float


def base_name(node: fx.Node) -> str:
    """An aten call's operator without its overload, such as "add"; else the target as text."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


def moves(node: fx.Node) -> bool:
    """Whether a call only moves elements of its first argument."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    return node.target is operator.getitem or base_name(node) in _MOVES


def passes(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node hands on its input in evaluation mode."""
    return node.op == "call_module" and isinstance(
        module.get_submodule(str(node.target)), nn.Dropout | nn.Identity
    )


def path_to(module: fx.GraphModule, node: fx.Node) -> Path:
    """The longest way back from ``node`` along moves, plain factors and dropouts."""
    found: list[fx.Node] = []
    factor = 1.0
    while True:
        times = factor_of(module, node)
        if times is not None:
            factor *= times
            node = node.args[0]  # type: ignore[assignment]
        elif moves(node):
            found.append(node)
            node = node.args[0]  # type: ignore[assignment]
        elif passes(module, node):
            node = node.all_input_nodes[0]
        else:
            return Path(node, tuple(reversed(found)), factor)


def factor_of(module: fx.GraphModule, node: fx.Node) -> float | None:
    """The number that a call multiplies its first argument with; None for any other node."""
    if node.op != "call_function" or base_name(node) not in {"mul", "div"} or len(node.args) != 2:
        return None
    if node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    number = _number(module, node.args[1])
    if number is None or not number:
        return None
    return number if base_name(node) == "mul" else 1.0 / number


def _number(module: fx.GraphModule, value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        held = operator.attrgetter(str(value.target))(module)
        if isinstance(held, torch.Tensor) and not isinstance(held, nn.Parameter):
            return float(held) if held.numel() == 1 else None
    return None


def places(nodes: Sequence[fx.Node], shape: Sequence[int], numbers: Mapping[str, int]) -> list[Any]:
    """Where the elements of a tensor lie behind each node of a path.

    Args:
        nodes: each moves elements of the one before it, the first those of the tensor.
        shape: the tensor's shape.
        numbers: sizes that the graph computes, by node.

    Returns:
        For each node the numbers of the tensor's elements (row by row) in the node's shape; a list
        of such for one that divides.
    """
    value: Any = torch.arange(prod(shape)).reshape(*shape)
    found = []
    for node in nodes:
        held = value

        def known(read: fx.Node, held: Any = held) -> Any:
            return numbers.get(read.name, held)

        arguments, keywords = fx.map_arg(node.args, known), fx.map_arg(node.kwargs, known)
        # numbers may lie in memory otherwise than the elements, where no view of them exists
        view = base_name(node) in {"view", "_unsafe_view"} and len(arguments) == 2
        target = torch.ops.aten.reshape.default if view else node.target
        value = target(*arguments, **keywords)  # type: ignore[operator]
        found.append(value)
    return found


def remove_unread(graph: fx.Graph) -> None:
    """Take out all nodes that nothing reads, those that draw random numbers in training too."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
