"""Channel groups found from layer to layer, for models that defeat the general analysis.

Channels are followed from the layers that produce them through operators that leave each channel
on its own (activations, norms, pools, depthwise convolutions, sums and products of tensors with the
same channels, permutations of axes) to the layers that read them. Such are the widths inside
feed-forward and inverted bottleneck blocks. Everything else, a reshape with the number of channels
in it first of all, keeps the width of what enters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from autocompress.graph.model_graph import ChannelGroup, GroupMember, Role
from autocompress.graph.movement import base_name, passes
from autocompress.graph.watching import Watcher

#: aten operators that compute each element from the same element of their one tensor.
_ELEMENTWISE = frozenset({
    "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "tanh",
    "leaky_relu", "elu", "selu", "mish", "softplus", "exp", "sqrt", "abs", "neg", "erf", "square",
    "clamp", "clamp_min", "clamp_max", "pow", "contiguous", "clone", "detach", "alias", "dropout",
    "feature_dropout", "to", "_to_copy", "rsub",
})  # fmt: skip
_ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
#: Pools over the height and width of ``(n, channels, height, width)``.
_POOLS = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def local_groups(
    module: fx.GraphModule, example_inputs: Sequence[torch.Tensor]
) -> dict[str, ChannelGroup]:
    """The channel groups that can be followed locally; those that cannot are rigid and say why.

    Args:
        module: a normalised graph.
        example_inputs: one tensor per input, batch first.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def see(node: fx.Node, given: list[Any], value: Any) -> None:
        if isinstance(value, torch.Tensor):
            shapes[node.name] = tuple(value.shape)

    with torch.no_grad():
        Watcher(module, see).run(*example_inputs)
    follower = _Follower(module, shapes)
    for node in module.graph.nodes:
        follower.visit(node)
    return follower.groups()


@dataclass
class _Channels:
    """Channels that go together.

    Attributes:
        count: how many.
        members: module and role, in the order found.
        rigid: why they cannot be narrowed.
        same: the channels that these turned out to be.
    """

    count: int
    members: dict[tuple[str, Role], None] = field(default_factory=dict)
    rigid: str | None = None
    same: _Channels | None = None

    def real(self) -> _Channels:
        """Those that stand for all that turned out to be the same."""
        found = self
        while found.same is not None:
            found = found.same
        return found

    def keep(self, reason: str) -> None:
        """They cannot be narrowed; the first reason stays."""
        found = self.real()
        found.rigid = found.rigid or reason

    def join(self, other: _Channels) -> None:
        """These are the same as others."""
        one, two = self.real(), other.real()
        if one is two:
            return
        one.members.update(two.members)
        one.rigid = one.rigid or two.rigid
        two.same = one


@dataclass(frozen=True)
class _Place:
    """Where a tensor has its channels."""

    channels: _Channels
    axis: int


class _Follower:
    def __init__(self, module: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> None:
        self.module = module
        self.shapes = shapes
        self.places: dict[fx.Node, _Place] = {}
        self.produced: dict[str, _Channels] = {}
        self.read: dict[str, _Channels] = {}
        self.found: list[_Channels] = []

    def visit(self, node: fx.Node) -> None:
        """Follow the channels of what ``node`` reads; nodes come in execution order."""
        if node.op == "call_module":
            place = self._module(node)
        elif node.op == "call_function":
            place = self._function(node)
        else:
            if node.op == "output":
                self._keep(node, "it is the model's output")
            return
        if place is not None:
            self.places[node] = place

    def groups(self) -> dict[str, ChannelGroup]:
        """What was found, by name: the first layer, in the model's order, that mixes channels."""
        order = [name for name, _ in self.module.named_modules()]
        groups = {}
        for channels in self.found:
            if channels.same is not None:
                continue
            producers = [n for n in order if (n, "out") in channels.members]
            mixing = [n for n in producers if self._groups_of(n) == 1]
            if not any(role == "in" for _, role in channels.members):
                channels.keep("no layer that can be followed reads its channels")
            straight = np.arange(channels.count)[:, None]
            members = tuple(GroupMember(n, role, straight) for n, role in channels.members)
            name = (mixing or producers)[0]
            groups[name] = ChannelGroup(name, channels.count, members, channels.rigid)
        return groups

    def _groups_of(self, name: str) -> int:
        return int(getattr(self.module.get_submodule(name), "groups", 1))

    def _keep(self, node: fx.Node, reason: str) -> None:
        """What enters ``node`` keeps its width."""
        for argument in node.all_input_nodes:
            if argument in self.places:
                self.places[argument].channels.keep(reason)

    # -- layers and norms -------------------------------------------------------------------------

    def _module(self, node: fx.Node) -> _Place | None:
        name = str(node.target)
        module = self.module.get_submodule(name)
        source = self.places.get(node.all_input_nodes[0])
        rank = len(self.shapes[node.all_input_nodes[0].name])
        if isinstance(module, nn.Linear):
            self._reads(node, name, source, rank - 1)
            return _Place(self._produces(name, module.out_features), rank - 1)
        if isinstance(module, nn.Conv2d):
            return self._convolution(node, name, module, source)
        if source is None or passes(self.module, node) or isinstance(module, nn.Dropout):
            return source
        if isinstance(module, _NORMS) and self._is_over_channels(module, source, rank):
            source.channels.real().members[name, "norm"] = None
            return source
        self._keep(node, f"its channels are not followed through {name}")
        return None

    def _is_over_channels(self, norm: nn.Module, source: _Place, rank: int) -> bool:
        """Whether a norm has parameters for each channel, and for nothing else."""
        if isinstance(norm, nn.LayerNorm):
            return len(norm.normalized_shape) == 1 and source.axis == rank - 1
        return isinstance(norm, nn.modules.batchnorm._BatchNorm) and source.axis == 1

    def _convolution(
        self, node: fx.Node, name: str, conv: nn.Conv2d, source: _Place | None
    ) -> _Place:
        depthwise = 1 < conv.groups == conv.in_channels == conv.out_channels
        if depthwise and source is not None and source.axis == 1:
            source.channels.real().members[name, "out"] = None
            if name in self.produced:  # called twice
                self.produced[name].join(source.channels)
            self.produced[name] = source.channels
            return source
        self._reads(node, name, source, 1)
        channels = self._produces(name, conv.out_channels)
        if conv.groups > 1:
            reason = f"{name} is a grouped convolution"
            self._keep(node, reason)
            channels.keep(reason)
        return _Place(channels, 1)

    def _reads(self, node: fx.Node, name: str, source: _Place | None, axis: int) -> None:
        if source is None:
            return
        if source.axis != axis:
            self._keep(node, f"{name} mixes positions in place of channels")
            return
        source.channels.real().members[name, "in"] = None
        if name in self.read:
            self.read[name].join(source.channels)
        self.read[name] = source.channels

    def _produces(self, name: str, count: int) -> _Channels:
        if name not in self.produced:
            self.produced[name] = _Channels(count, {(name, "out"): None})
            self.found.append(self.produced[name])
        return self.produced[name]

    # -- functions --------------------------------------------------------------------------------

    def _function(self, node: fx.Node) -> _Place | None:
        base = base_name(node)
        known = [a for a in node.all_input_nodes if a in self.places]
        if not known or base == "sym_size":
            return None
        if base in _ARITHMETIC and node.name in self.shapes:
            return self._arithmetic(node)
        place = self.places[known[0]] if len(known) == 1 and known[0] is node.args[0] else None
        axis = None if place is None else self._axis_behind(node, base, place.axis)
        if place is None or axis is None:
            self._keep(node, _through(node))
            return None
        return _Place(place.channels, axis)

    def _axis_behind(self, node: fx.Node, base: str, axis: int) -> int | None:
        """Where the channels are in the result; None where they are not followed."""
        if base in _ELEMENTWISE:
            return axis if len(node.all_input_nodes) == 1 else None
        if base in _POOLS:
            return axis if axis == 1 and len(self.shapes[node.name]) == 4 else None
        rank = len(self._shape(node.args[0]))
        if base == "permute":
            return [a % rank for a in _ints(node.args[1])].index(axis)
        if base == "transpose":
            one, two = (a % rank for a in _ints(node.args[1:3]))
            return {one: two, two: one}.get(axis, axis)
        if base == "mean":
            return self._behind_mean(node, axis, rank)
        if base == "flatten":
            return self._behind_flatten(node, axis)
        return None

    def _behind_mean(self, node: fx.Node, axis: int, rank: int) -> int | None:
        gone = {a % rank for a in _ints(node.args[1] if len(node.args) > 1 else ())}
        if axis in gone or not gone:
            return None
        keeps = len(self.shapes[node.name]) == rank
        return axis if keeps else axis - sum(a < axis for a in gone)

    def _behind_flatten(self, node: fx.Node, axis: int) -> int | None:
        """``(n, channels, 1, 1)`` to ``(n, channels)``, and what lies behind the channels."""
        before, after = self._shape(node.args[0]), self.shapes[node.name]
        whole = before[axis]
        kept = axis < len(after) and after[: axis + 1] == before[: axis + 1]
        return axis if kept and after[axis] == whole else None

    def _shape(self, value: Any) -> tuple[int, ...]:
        return self.shapes[value.name] if isinstance(value, fx.Node) else ()

    def _arithmetic(self, node: fx.Node) -> _Place | None:
        """Operands with the same channels, or without any."""
        rank = len(self.shapes[node.name])
        operands = [a for a in node.args[:2] if isinstance(a, fx.Node)]
        # from the end, as shapes are aligned
        found = {a: self.places[a].axis - len(self._shape(a)) for a in operands if a in self.places}
        behind = set(found.values())
        if len(behind) != 1:
            self._keep(node, _through(node))
            return None
        axis = behind.pop()
        channels = self.places[next(iter(found))].channels
        for operand in operands:
            shape = self._shape(operand)
            if operand in found:
                if self.places[operand].channels.real().count != channels.real().count:
                    self._keep(node, _through(node))
                    return None
                channels.join(self.places[operand].channels)
            elif len(shape) >= -axis and shape[axis] != 1:
                self._keep(node, self._with_others(node, operand))
                return None
        return _Place(channels, rank + axis)

    def _with_others(self, node: fx.Node, operand: fx.Node) -> str:
        if operand.op == "get_attr":
            return "a free parameter of the model has this many channels"
        return f"{base_name(node)} combines its channels with others that are not followed"


def _ints(values: Any) -> list[int]:
    return [int(value) for value in (values if isinstance(values, list | tuple) else (values,))]


def _through(node: fx.Node) -> str:
    return f"its channels are not followed through {base_name(node)}"
