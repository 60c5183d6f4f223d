"""Folds tensors that a model makes out of constants and overwrites piece by piece.

Such as the mask of shifted windows (Liu et al. 2021, arXiv:2103.14030), built anew in each forward
pass by ``mask[rows, columns] = number``. A graph of functions has no form for writing into a view
of a tensor; but what depends on no input is the same in every pass, so it is computed once here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

import torch
from torch import fx, nn

from autocompress.graph.layers import LAYER_BUILDERS

#: Operators that read nothing of their first argument but its type and shape.
_BY_SHAPE = frozenset({"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"})
#: Operators that may hand on their argument though their schema does not say so.
_HANDED_ON = frozenset({"dropout", "feature_dropout", "alpha_dropout"})


class _Source(IntEnum):
    """What a value depends on."""

    NOTHING = 0
    PARAMETERS = 1
    INPUTS = 2


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that takes the place of what was folded.

    Attributes:
        name: a qualified one, made of the module's and the node's; equal constants share it.
        value: a parameter where it was computed from parameters.
    """

    name: str
    value: torch.Tensor


@dataclass(frozen=True, slots=True)
class Folding:
    """What was folded.

    Attributes:
        nodes: those that are not needed any more.
        read: for each of the others, the tensors that it now reads in place of arguments.
    """

    nodes: frozenset[fx.Node]
    read: Mapping[fx.Node, Mapping[fx.Node, Held]]


def fold_overwritten(graph: fx.Graph, tensors: Mapping[str, torch.Tensor]) -> Folding:
    """Compute what a flat graph overwrites without looking at its inputs.

    Folded are tensors, with all that shares their memory, that are overwritten and depend on
    constants and buffers alone, and everything that is computed from these alone; sizes that
    depend on the batch count as inputs. A tensor made of parameters, such as a bias a part of
    which is set to zero, is folded where it is overwritten in part and no layer has a share in it:
    it becomes a parameter of its own, in all its elements. Buffers that the model itself overwrites
    are no constants. Each reader gets the values of its time, before later overwriting.

    Args:
        graph: of an exported program; its nodes know their results' shapes ("val"). Left as it is.
        tensors: parameters, buffers and lifted constants, by the name of their placeholder.
    """
    memory = _Memory(graph)
    if not memory.written:
        return Folding(frozenset(), {})
    sources = _sources(graph, tensors, memory)
    folded = _folded(graph, memory, sources)
    if not folded:
        return Folding(frozenset(), {})
    return Folding(frozenset(folded), _Run(graph, tensors, memory, sources, folded).read())


class _Memory:
    """Which nodes may share memory, and which of them are written to."""

    def __init__(self, graph: fx.Graph) -> None:
        self._parent: dict[fx.Node, fx.Node] = {}
        #: each node that writes -> the nodes that it overwrites
        self.writes: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            shared, overwritten = _shared(node)
            for other in shared:
                self._parent[self.root(other)] = self.root(node)
            if overwritten:
                self.writes[node] = overwritten
        self.members: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            self.members.setdefault(self.root(node), []).append(node)
        self.written = {self.root(node) for node in self.writes}

    def root(self, node: fx.Node) -> fx.Node:
        """The node that stands for all that share its memory."""
        while node in self._parent and self._parent[node] is not node:
            node = self._parent[node]
        return node

    def shared_with(self, node: fx.Node) -> list[fx.Node]:
        """All nodes with the memory of ``node``, in execution order."""
        return self.members[self.root(node)]

    def in_part(self, root: fx.Node) -> bool:
        """Whether only a part is overwritten somewhere."""
        size = max(_numel(node) for node in self.members[root])
        return any(
            _numel(target) < size
            for node in self.members[root]
            for target in self.writes.get(node, ())
        )


def _shared(node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """The arguments whose memory a call's result may share, and those that it overwrites."""
    if node.op != "call_function":
        return [], []
    if node.target is operator.getitem:
        return node.all_input_nodes[:1], []
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.all_input_nodes, []
    schema = node.target._schema
    views = any(result.alias_info is not None for result in schema.returns)
    views |= _base(node) in _HANDED_ON
    shared: list[fx.Node] = []
    overwritten: list[fx.Node] = []
    for i, argument in enumerate(schema.arguments):
        given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
        info = argument.alias_info
        writes = info is not None and info.is_write
        if writes or (views and (info is not None or (i == 0 and _base(node) in _HANDED_ON))):
            shared.extend(_nodes(given))
        if writes:
            overwritten.extend(_nodes(given))
    return shared, overwritten


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found


def _base(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _numel(node: fx.Node) -> int:
    """Elements of a node's tensor; 0 where their number is free."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, torch.Tensor) else ()
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else 0


# -- what depends on what -------------------------------------------------------------------------


def _sources(
    graph: fx.Graph, tensors: Mapping[str, torch.Tensor], memory: _Memory
) -> dict[fx.Node, _Source]:
    """What each node depends on, writes to its memory at any time included."""
    found = dict.fromkeys(graph.nodes, _Source.NOTHING)
    changed = True
    while changed:
        changed = False
        for node in graph.nodes:
            source = max(_source(node, found, tensors, memory), found[node])
            for member in memory.shared_with(node):
                if found[member] < source:
                    found[member] = source
                    changed = True
    return found


def _source(
    node: fx.Node,
    found: Mapping[fx.Node, _Source],
    tensors: Mapping[str, torch.Tensor],
    memory: _Memory,
) -> _Source:
    if node.op == "placeholder":
        held = tensors.get(node.name)
        if held is None or memory.root(node) in memory.written:
            return _Source.INPUTS
        return _Source.PARAMETERS if isinstance(held, nn.Parameter) else _Source.NOTHING
    if node.op != "call_function":
        return _Source.INPUTS
    if node.target is not operator.getitem:
        if not isinstance(node.target, torch._ops.OpOverload):
            return _Source.INPUTS  # numbers of Python, and calls that hold graphs
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            return _Source.INPUTS
    read = node.all_input_nodes
    if _base(node) in _BY_SHAPE and _numel(node):
        read = read[1:] if read and read[0] is node.args[0] else read
    return max((found[argument] for argument in read), default=_Source.NOTHING)


def _folded(graph: fx.Graph, memory: _Memory, sources: Mapping[fx.Node, _Source]) -> set[fx.Node]:
    folded: set[fx.Node] = set()
    for root in memory.written:
        members = memory.members[root]
        if sources[root] is _Source.NOTHING or (
            sources[root] is _Source.PARAMETERS
            and memory.in_part(root)
            and not any(str(n.target) in LAYER_BUILDERS for n in _behind(members))
        ):
            folded.update(members)
    for node in graph.nodes:
        constant = node.op == "call_function" and sources[node] is _Source.NOTHING
        if constant and any(argument in folded for argument in node.all_input_nodes):
            folded.update(memory.shared_with(node))
    return folded


def _behind(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """Nodes, and all that they are computed from."""
    open_, seen = list(nodes), set(nodes)
    while open_:
        node = open_.pop()
        yield node
        new = [argument for argument in node.all_input_nodes if argument not in seen]
        seen.update(new)
        open_.extend(new)


# -- values ---------------------------------------------------------------------------------------


class _Run:
    """Runs what is folded, with all that it needs, in the graph's order."""

    def __init__(
        self,
        graph: fx.Graph,
        tensors: Mapping[str, torch.Tensor],
        memory: _Memory,
        sources: Mapping[fx.Node, _Source],
        folded: set[fx.Node],
    ) -> None:
        self.graph = graph
        self.tensors = tensors
        self.memory = memory
        self.sources = sources
        self.folded = folded
        self.needed = self._needed()
        self.values: dict[fx.Node, Any] = {}
        self.held: list[tuple[fx.Node, Held]] = []

    def _needed(self) -> set[fx.Node]:
        """What is folded and what it is computed from, with everything that writes to it."""
        needed: set[fx.Node] = set()
        open_ = list(self.folded)
        while open_:
            node = open_.pop()
            if node in needed:
                continue
            needed.add(node)
            open_.extend(_read(node))
            open_.extend(n for n in self.memory.shared_with(node) if n in self.memory.writes)
        return needed

    @torch.no_grad()
    def read(self) -> dict[fx.Node, dict[fx.Node, Held]]:
        """What each of the other nodes reads of what is folded, at its time."""
        found: dict[fx.Node, dict[fx.Node, Held]] = {}
        for node in self.graph.nodes:
            if node in self.needed:
                self.values[node] = self._value(node)
            if node in self.folded:
                continue
            arguments = [argument for argument in node.all_input_nodes if argument in self.folded]
            if arguments and _base(node) not in _BY_SHAPE:
                found[node] = {argument: self._held(argument) for argument in arguments}
        return found

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.tensors[node.name].detach().clone()
        known: Callable[[fx.Node], Any] = self.values.__getitem__
        arguments = list(node.args)
        by_shape = _base(node) in _BY_SHAPE
        first = arguments.pop(0) if by_shape else None
        given = [*fx.map_arg(tuple(arguments), known)]
        if isinstance(first, fx.Node):
            given.insert(0, _alike(first, node))
        return node.target(*given, **fx.map_arg(node.kwargs, known))  # type: ignore[operator]

    def _held(self, node: fx.Node) -> Held:
        """The node's tensor as it is now."""
        value = self.values[node].clone(memory_format=torch.contiguous_format)
        trained = self.sources[node] is _Source.PARAMETERS and value.is_floating_point()
        for origin, held in self.held:
            # parameters that happen to be equal are not one
            same = origin is node if trained else not isinstance(held.value, nn.Parameter)
            if same and _equal(held.value, value):
                return held
        name = f"{_path(node)}{node.name}"
        taken = sum(origin is node for origin, _ in self.held)
        name = f"{name}_at_{taken}" if taken else name
        held = Held(name, nn.Parameter(value) if trained else value)
        self.held.append((node, held))
        return held


def _read(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values are needed to run ``node``."""
    read = node.all_input_nodes
    return read[1:] if _base(node) in _BY_SHAPE and read and read[0] is node.args[0] else read


def _alike(node: fx.Node, result: fx.Node) -> torch.Tensor:
    """A tensor of the type and shape that a call reads of its first argument."""
    value: torch.Tensor = node.meta["val"]
    like = _base(result).endswith("_like")
    return torch.empty(tuple(result.meta["val"].shape) if like else (), dtype=value.dtype)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return f"{paths[-1]}." if paths else ""
