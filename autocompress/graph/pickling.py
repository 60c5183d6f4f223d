"""Captured graphs as plain values, so that they can be sent to worker processes.

``fx.GraphModule`` pickles itself as source code and traces that again, which gives its nodes other
names and loses what is known of them. Blocks, branches and operations are found by node name, so
this module keeps the nodes as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn


@dataclass(frozen=True, slots=True)
class _Reference:
    """A node, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Operator:
    """A torch operator such as ``aten.relu.default``."""

    namespace: str
    name: str
    overload: str

    def find(self) -> Any:
        packet = getattr(getattr(torch.ops, self.namespace), self.name)
        return getattr(packet, self.overload)


@dataclass(frozen=True, slots=True)
class PlainNode:
    """What one node is."""

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlainGraph:
    """A captured module: its nodes, and a plain module that holds its tensors."""

    nodes: tuple[PlainNode, ...]
    root: nn.Module


def to_plain(module: fx.GraphModule) -> PlainGraph:
    """``module`` as values that pickle; shares its tensors."""
    nodes = tuple(
        PlainNode(
            node.name,
            node.op,
            _plain_target(node.target),
            _mapped(node.args, _reference),
            _mapped(node.kwargs, _reference),
            dict(node.meta),
        )
        for node in module.graph.nodes
    )
    return PlainGraph(nodes, without_graph(module))


def from_plain(plain: PlainGraph) -> fx.GraphModule:
    """Inverse of :func:`to_plain`: the same nodes under the same names."""
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def resolve(value: Any) -> Any:
        return made[value.name] if isinstance(value, _Reference) else value

    for node in plain.nodes:
        target = node.target.find() if isinstance(node.target, _Operator) else node.target
        args, kwargs = _mapped(node.args, resolve), _mapped(node.kwargs, resolve)
        created = graph.create_node(node.op, target, args, kwargs, name=node.name)
        created.name = node.name
        created.meta = dict(node.meta)
        made[node.name] = created
    module = fx.GraphModule(plain.root, graph, class_name="CapturedModel")
    return module.train(plain.root.training)


def without_graph(module: nn.Module) -> nn.Module:
    """A plain module with the same parameters, buffers and submodules (shared, not copied)."""
    plain = nn.Module()
    plain._parameters.update(module._parameters)
    plain._buffers.update(module._buffers)
    plain._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    plain._modules.update(module._modules)
    plain.training = module.training
    return plain


def _plain_target(target: Any) -> Any:
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target._schema.name.partition("::")
        return _Operator(namespace, name, target._overloadname)
    return target


def _reference(value: Any) -> Any:
    return _Reference(value.name) if isinstance(value, fx.Node) else value


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with every leaf of its lists, tuples, dicts and slices changed."""
    if isinstance(value, slice):
        return slice(*(_mapped(v, change) for v in (value.start, value.stop, value.step)))
    if isinstance(value, list):
        return [_mapped(v, change) for v in value]
    if isinstance(value, tuple):
        return tuple(_mapped(v, change) for v in value)
    if isinstance(value, dict):
        return {key: _mapped(v, change) for key, v in value.items()}
    return change(value)
