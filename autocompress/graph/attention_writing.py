"""Writes attention as it is with heads that are channels, into a copy of a captured graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autocompress.graph.attention_form import (
    Attention,
    Facts,
    Heads,
    Joined,
    NotFollowedError,
    causal_mask,
    may_hide_all,
    turned_behind,
)
from autocompress.graph.attention_trial import free_rows
from autocompress.graph.modules import put_module
from autocompress.graph.movement import base_name, remove_unread

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class HeadCore:
    """A rewritten attention, by the names of its nodes.

    Attributes:
        query: ``(n, length, heads * head_dim)``, from a linear layer of its own.
        key: the same for keys.
        value: the same for values.
        output: what the attention gives, in the same shape.
        layers: the linear layers that project queries, keys and values.
        head_dim: channels of a head.
        lengths_differ: whether there are more or fewer keys than queries.
    """

    query: str
    key: str
    value: str
    output: str
    layers: tuple[str, str, str]
    head_dim: int
    lengths_differ: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """An attention that was followed from end to end."""

    attention: Attention
    operands: tuple[Heads, Heads, Heads]
    joined: Joined


def rewritten(
    module: fx.GraphModule, plans: Sequence[Plan], facts: Facts
) -> tuple[fx.GraphModule, list[HeadCore]]:
    """A copy of the graph in which these attentions have heads that are channels.

    Raises:
        NotFollowedError: a layer that would be split is read by others too.
    """
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(module.graph, made)
    if result is not None:
        graph.output(result)
    copied = fx.GraphModule(module, graph, class_name="CapturedModel")
    writer = _Writer(copied, made, facts)
    cores = [writer.write(plan) for plan in plans]
    remove_unread(copied.graph)
    copied.graph.lint()
    for node in copied.graph.nodes:
        if node.op == "call_module" and type(copied.get_submodule(str(node.target))) is nn.Module:
            raise NotFollowedError(f"{node.target} is read by others too")
    copied.delete_all_unused_submodules()
    copied.recompile()
    return copied.eval(), cores


class _Writer:
    """Writes attentions into a copy of the graph that they were found in."""

    def __init__(
        self, module: fx.GraphModule, made: Mapping[fx.Node, fx.Node], facts: Facts
    ) -> None:
        self.module = module
        self.graph = module.graph
        self.made = made
        self.facts = facts
        self.meta: dict[str, Any] = {}
        self.free_length = any(free_rows(module))

    def write(self, plan: Plan) -> HeadCore:
        """Replace one attention."""
        attention = plan.attention
        path = {"module_path": attention.end.meta.get("module_path", ())}
        last = self.made[plan.joined.node]
        with self.graph.inserting_before(last):
            self.meta = path
            names = [self._layer(one, role) for one, role in zip(plan.operands, "qkv", strict=True)]
            rows = [self._rows(one, name) for one, name in zip(plan.operands, names, strict=True)]
            self.meta = path
            output = self._core(plan, rows)
        self._replace(plan, output)
        query, key, value = (node.name for node in rows)
        return HeadCore(
            query, key, value, output.name, (names[0], names[1], names[2]),
            plan.operands[2].channels.shape[1],
            plan.operands[0].length != plan.operands[1].length,
        )  # fmt: skip

    def _call(self, target: Any, *arguments: Any, rank: int) -> fx.Node:
        node = self.graph.call_function(target, arguments)
        node.meta = {**self.meta, "rank": rank}
        return node

    # -- projections ------------------------------------------------------------------------------

    def _layer(self, heads: Heads, role: str) -> str:
        """The name of a linear layer that gives these heads, one after the other."""
        name = str(heads.layer.target)
        layer = self.module.get_submodule(name) if _has(self.module, name) else None
        order = heads.channels.flatten()
        if isinstance(layer, nn.Linear) and torch.equal(order, torch.arange(layer.out_features)):
            return name
        part = f"{name}.{role}"
        if not _has(self.module, part):
            source: Any = heads.layer.graph.owning_module
            packed: nn.Linear = source.get_submodule(name)
            if isinstance(layer, nn.Linear):
                put_module(self.module, name, nn.Module())
            put_module(self.module, part, _part(packed, order))
        return part

    def _rows(self, heads: Heads, name: str) -> fx.Node:
        """``(n, length, channels)`` of a layer, whatever order its rows had."""
        source = heads.layer.all_input_nodes[0]
        rank = len(self.facts.shapes[source.name])
        entering = self.made[source]
        self.meta = {"module_path": heads.layer.meta.get("module_path", ())}
        if rank == 3 and not heads.batch_first:
            entering = self._swapped(source)
        node = self.graph.create_node("call_module", name, (entering,))
        node.meta = {**self.meta, "rank": rank}
        if rank == 3:
            return node
        if self.free_length:
            raise NotFollowedError("rows of any length lie one after the other in a linear layer")
        if rank > 3:
            node = self._call(_aten.flatten.using_ints, node, 0, rank - 2, rank=2)
        if heads.batch_first:
            return self._call(_aten.unflatten.int, node, 0, [-1, heads.length], rank=3)
        node = self._call(_aten.unflatten.int, node, 0, [heads.length, -1], rank=3)
        return self._call(_aten.transpose.int, node, 0, 1, rank=3)

    def _swapped(self, source: fx.Node) -> fx.Node:
        """A tensor with its examples first that has its positions first."""
        turns = base_name(source) == "transpose"
        if turns and {int(str(axis)) % 3 for axis in source.args[1:]} == {0, 1}:
            return self.made[source.all_input_nodes[0]]
        return self._call(_aten.transpose.int, self.made[source], 0, 1, rank=3)

    # -- the core ---------------------------------------------------------------------------------

    def _core(self, plan: Plan, rows: Sequence[fx.Node]) -> fx.Node:
        width = plan.operands[2].channels.shape[1]
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        query, key, value = (
            self._call(
                _aten.permute.default,
                self._call(_aten.unflatten.int, one, -1, [-1, width], rank=4),
                order,
                rank=4,
            )
            for one, order in zip(rows, orders, strict=True)
        )
        factor = plan.attention.scale * plan.operands[0].factor * plan.operands[1].factor
        if not math.isclose(factor, 1.0):
            query = self._call(_aten.mul.Tensor, query, factor, rank=4)
        scores = self._call(_aten.matmul.default, query, key, rank=4)
        scores = self._causal(plan, rows, self._as_before(plan.attention, scores))
        scores, hidden = self._masked(plan, scores)
        weights = self._call(_aten.softmax.int, scores, -1, rank=4)
        if hidden is not None:  # where nothing is left to look at, the one call gives zeros
            weights = self._call(_aten.masked_fill.Scalar, weights, hidden, 0.0, rank=4)
        for dropout in plan.attention.dropouts:
            weights = self.graph.create_node("call_module", str(dropout.target), (weights,))
            weights.meta = {**dropout.meta, "rank": 4}
        heads = self._call(_aten.matmul.default, weights, value, rank=4)
        heads = self._call(_aten.permute.default, heads, [0, 2, 1, 3], rank=4)
        return self._call(_aten.flatten.using_ints, heads, 2, 3, rank=3)

    def _as_before(self, attention: Attention, scores: fx.Node) -> fx.Node:
        """What the graph does to scores before the softmax."""
        for node, place in attention.scores:
            read = {id(a): self.made[a] for a in node.all_input_nodes}
            arguments = [read.get(id(a), a) for a in node.args]
            arguments[place] = scores
            for i, (old, new) in enumerate(zip(node.args, arguments, strict=True)):
                if i != place and isinstance(old, fx.Node):
                    arguments[i] = self._for_all_heads(old, new)
            scores = self._call(node.target, *arguments, rank=4)
        return scores

    def _for_all_heads(self, old: fx.Node, mask: Any) -> Any:
        """A mask with one entry along the heads."""
        shape = self.facts.shapes.get(old.name, ())
        if len(shape) == 4 and shape[1] > 1:
            return self._call(_aten.slice.Tensor, mask, 1, 0, 1, rank=4)
        if len(shape) == 3:  # scores had examples and heads in one dimension
            return self._call(_aten.unsqueeze.default, mask, 1, rank=4)
        return mask

    def _causal(self, plan: Plan, rows: Sequence[fx.Node], scores: fx.Node) -> fx.Node:
        """Scores without later positions, where a single call was told to hide them."""
        if not plan.attention.causal:
            return scores
        shape = (plan.operands[0].length, plan.operands[1].length)
        name = "constants_causal_{}_{}".format(*shape)
        if not hasattr(self.module, name):
            self.module.register_buffer(name, causal_mask(*shape))
        mask = self.graph.get_attr(name)
        if self.free_length:
            for axis, one in enumerate(rows[:2]):
                size = self._call(_aten.sym_size.int, one, 1, rank=0)
                mask = self._call(_aten.slice.Tensor, mask, axis, 0, size, rank=2)
        return self._call(_aten.add.Tensor, scores, mask, rank=4)

    def _masked(self, plan: Plan, scores: fx.Node) -> tuple[fx.Node, fx.Node | None]:
        """Scores with what a single call was told to leave out, and where it may be everything."""
        attention = plan.attention
        if attention.mask is None:
            return scores, None
        mask = self.made[attention.mask]
        shape = self.facts.shapes[attention.mask.name]
        empties = may_hide_all(attention.mask, self.facts)
        if len(shape) == 4:
            mask = self._for_all_heads(attention.mask, mask)
        if attention.mask.name not in self.facts.booleans:
            total = self._call(_aten.add.Tensor, scores, mask, rank=4)
            if not empties:
                return total, None
            return total, self._call(_aten.eq.Scalar, mask, -math.inf, rank=len(shape))
        hidden = self._call(_aten.logical_not.default, mask, rank=len(shape))
        scores = self._call(_aten.masked_fill.Scalar, scores, hidden, -math.inf, rank=4)
        return scores, hidden if empties else None

    # -- what reads it ----------------------------------------------------------------------------

    def _replace(self, plan: Plan, output: fx.Node) -> None:
        last, joined = self.made[plan.joined.node], plan.joined
        rank = len(self.facts.shapes[joined.node.name])
        if rank == 3 and joined.batch_first:
            last.replace_all_uses_with(output)
            return
        if self._project(plan, output):
            return
        with self.graph.inserting_before(last):
            if not joined.batch_first:
                output = self._call(_aten.transpose.int, output, 0, 1, rank=3)
            if rank != 3:
                output = self._call(_aten.flatten.using_ints, output, 0, 1, rank=2)
            if rank > 3:
                sizes = list(self.facts.shapes[joined.node.name][1:-1])
                output = self._call(_aten.unflatten.int, output, 0, [-1, *sizes], rank=rank)
        last.replace_all_uses_with(output)

    def _project(self, plan: Plan, output: fx.Node) -> bool:
        """Let a projection behind it read examples first, if what follows turns rows round."""
        users = list(plan.joined.node.users)
        if len(users) != 1 or users[0].op != "call_module":
            return False
        old = users[0]
        layer = self.module.get_submodule(str(old.target))
        if not isinstance(layer, nn.Linear):
            return False
        turned = turned_behind(old, plan.joined, plan.operands[0], self.facts)
        if turned is None:
            return False
        with self.graph.inserting_before(self.made[turned]):
            node = self.graph.create_node(
                "call_module", str(old.target), (output,), name=f"{old.name}_rows"
            )
            node.meta = {**old.meta, "rank": 3}
        self.made[turned].replace_all_uses_with(node)
        return True


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True


def _part(packed: nn.Linear, rows: torch.Tensor) -> nn.Linear:
    """A linear layer of some of another's outputs."""
    part = nn.Linear(packed.in_features, len(rows), bias=packed.bias is not None, device="meta")
    part.weight = nn.Parameter(packed.weight.detach()[rows].clone())
    if packed.bias is not None:
        part.bias = nn.Parameter(packed.bias.detach()[rows].clone())
    return part.train(packed.training)
