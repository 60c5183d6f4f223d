"""From a candidate to its operations, without building it or touching a weight.

Shapes are found by running the graph on torch's meta device, so any operator that torch knows is
covered; layers are computed from the candidate's kept channels, kernel sizes and ranks.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from autocompress.core.candidate import UNSTRUCTURED, Candidate, LayerPolicy
from autocompress.graph.factors import LayerShape, factors, part_kinds
from autocompress.graph.layers import kernel_padding, pair
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.ops import Attribute, Op
from autocompress.graph.selection import Selection, select

_KINDS: Mapping[str, str] = {
    "relu": "relu", "relu6": "relu6", "hardtanh": "hardtanh", "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid", "sigmoid": "sigmoid", "silu": "silu", "gelu": "gelu",
    "tanh": "tanh", "leaky_relu": "leaky_relu", "elu": "elu", "add": "add", "sub": "sub",
    "mul": "mul", "div": "div", "matmul": "matmul", "bmm": "matmul", "softmax": "softmax",
    "layer_norm": "layer_norm", "to": "cast", "_to_copy": "cast", "ne": "not_equal",
    "eq": "equal", "gt": "greater", "lt": "less", "logical_not": "logical_not",
    "bitwise_not": "logical_not", "masked_fill": "masked_fill", "sum": "sum", "rsub": "sub",
    "clamp": "clamp", "clamp_min": "clamp",
    "scaled_dot_product_attention": "attention", "max_pool2d": "max_pool", "avg_pool2d": "avg_pool",
    "adaptive_avg_pool2d": "avg_pool", "mean": "mean", "cat": "concat", "flatten": "flatten",
    "view": "reshape", "reshape": "reshape", "unflatten": "reshape", "squeeze": "reshape",
    "unsqueeze": "reshape", "permute": "transpose", "transpose": "transpose", "select": "select",
    "upsample_bilinear2d": "resize",
}  # fmt: skip

#: Modules whose weights a policy compresses.
FullLayer: TypeAlias = nn.Conv2d | nn.Linear | nn.Embedding

#: Calls that read a tensor as often as it is given, though it be the same one.
_OPERANDS = frozenset({
    "add", "sub", "rsub", "mul", "div", "matmul", "bmm", "cat", "scaled_dot_product_attention",
})  # fmt: skip
#: Calls that leave nothing in the deployed graph.
_NOTHING = frozenset({"dropout", "contiguous", "clone", "detach", "alias"})


def operations(graph: ModelGraph, candidate: Candidate) -> tuple[Op, ...]:
    """The operations of ``candidate``, in execution order, batch norm folded away.

    Raises:
        RequestError: the candidate does not fit the model.
    """
    return _Walk(graph, candidate, select(graph, candidate)).run()


class _Walk:
    def __init__(self, graph: ModelGraph, candidate: Candidate, selection: Selection) -> None:
        self.graph = graph
        self.candidate = candidate
        self.selection = selection
        self.values: dict[str, Any] = {}
        self.producer: dict[str, str] = {}  # node -> the op that provides its value
        self.ops: list[Op] = []
        self.held: set[str] = set()  # free tensors that are counted already
        self.owed: dict[str, int] = {}  # weights of a node whose results are operations
        self.looked_up: dict[str, int] = {}  # the same of what fixed ids find in a table
        self.stored: set[str] = set()  # layers whose weights are counted already
        self.calls = Counter(
            str(graph.nodes[name].target)
            for name in selection.nodes
            if graph.nodes[name].op == "call_module"
        )
        self.uses = Counter(
            selection.resolve(argument.name)
            for name in selection.nodes
            for argument in graph.nodes[name].all_input_nodes
        )

    def run(self) -> tuple[Op, ...]:
        inputs = iter(self.graph.example_inputs)
        with torch.no_grad():
            for name in self.selection.nodes:
                node = self.graph.nodes[name]
                if node.op == "placeholder":
                    value = next(inputs)
                    self.values[name] = torch.empty(value.shape, dtype=value.dtype, device="meta")
                    self._emit(node, "input", ())
                elif node.op == "get_attr":
                    held = self._attribute(str(node.target))
                    self.values[name] = torch.empty_like(held, device="meta")
                elif node.op == "output":
                    result = self.selection.resolve(node.all_input_nodes[0].name)
                    self.values[name] = self.values[result]
                    self._emit(node, "output", (self.producer[result],))
                elif node.op == "call_module":
                    self._module(node)
                else:
                    self._function(node)
        return tuple(self.ops)

    def _attribute(self, target: str) -> torch.Tensor:
        owner: Any = self.graph.module
        for part in target.split("."):
            owner = getattr(owner, part)
        return owner  # type: ignore[no-any-return]

    def _value(self, node: fx.Node) -> Any:
        return self.values[self.selection.resolve(node.name)]

    def _inputs(self, node: fx.Node) -> tuple[str, ...]:
        read: list[fx.Node] = []
        fx.map_arg((node.args, node.kwargs), read.append)
        found = (self.producer.get(self.selection.resolve(argument.name)) for argument in read)
        names = tuple(name for name in found if name is not None)
        if _base(node) == "rsub":
            return names[::-1]
        return names if _base(node) in _OPERANDS else tuple(dict.fromkeys(names))

    def _emit(
        self, node: fx.Node, kind: str, inputs: tuple[str, ...], name: str = "", **more: Any
    ) -> None:
        value = self.values[node.name]
        shape = tuple(int(n) for n in value.shape) if isinstance(value, torch.Tensor) else ()
        if isinstance(value, torch.Tensor) and value.dtype != torch.float32:
            dtype = str(value.dtype).removeprefix("torch.")
            given = dict(more.get("attributes", ()))
            more["attributes"] = tuple(sorted({**given, "dtype": dtype}.items()))
        self.producer[node.name] = node.name
        self.ops.append(Op(name or node.name, kind, inputs, shape, **more))

    def _forward(self, node: fx.Node, source: str) -> None:
        """``node`` leaves nothing behind: its value is its input's."""
        self.producer[node.name] = self.producer[source]

    # -- layers ---------------------------------------------------------------------------------

    def _module(self, node: fx.Node) -> None:
        name = str(node.target)
        module = self.graph.submodule(name)
        source = self.selection.resolve(node.all_input_nodes[0].name)
        value = self.values[source]
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            self._layer(node, name, module, value)
            return
        self.values[node.name] = value
        if not self._inputs(node):
            self._fold(node)
        elif isinstance(module, nn.Dropout):
            self._forward(node, source)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and self._folds(source, value):
            self._forward(node, source)
            self._give_bias(self.producer[source])
        else:
            kinds = {nn.LayerNorm: "layer_norm", nn.GroupNorm: "group_norm"}
            kind = kinds.get(type(module), "batch_norm")
            self._emit(node, kind, self._inputs(node))

    def _folds(self, source: str, value: torch.Tensor) -> bool:
        """The rule of :func:`autocompress.graph.folding.fold_batch_norm`."""
        producer = self.graph.nodes[source]
        layer = self.graph.layers.get(str(producer.target))
        return (
            producer.op == "call_module"
            and layer is not None
            and (layer.kind == "conv" or value.dim() == 2)
            and self.calls[layer.name] == 1
            and self.uses[source] == 1
        )

    def _give_bias(self, name: str) -> None:
        for i in range(len(self.ops) - 1, -1, -1):
            op = self.ops[i]
            if op.name == name:
                attributes = tuple(sorted({**dict(op.attributes), "bias": 1}.items()))
                self.ops[i] = replace(op, attributes=attributes)
                return

    def _layer(self, node: fx.Node, name: str, module: FullLayer, value: torch.Tensor) -> None:
        policy, layer = self.candidate.policy(name), self.graph.layers[name]
        whole = self._kept(name, module)
        more: dict[str, Attribute] = {}
        if name in self.stored:
            more["again"] = 1
        if policy.codebook is not None and layer.normed:
            more["scaled"] = 1
        self.stored.add(name)
        shapes = factors(layer, whole, policy) or (whole,)
        inputs = self._inputs(node)
        folded = layer.kind == "embedding" and not inputs and not self._follows_input(node)
        if folded:  # the table is stored all the same
            more["folded"] = 1
        names, labels = part_names(node.name, len(shapes)), part_layers(name, len(shapes))
        kinds = part_kinds(layer.kind, len(shapes))
        for part, label, shape, kind in zip(names, labels, shapes, kinds, strict=True):
            bias = int(getattr(module, "bias", None) is not None and part == node.name)
            attributes = {**more, "bias": bias, **_conv_attributes(shape)}
            if kind == "embedding":
                value = self.graph.shapes.rows(value, shape.weight)
            else:
                value = self.graph.shapes.layer(value, shape.weight, attributes)
            self.values[node.name] = value
            self._emit(
                node, kind, inputs, name=part, layer=label,
                **_coded(kind, policy, shape.weight, attributes),
            )  # fmt: skip
            inputs = (part,)
        if folded:
            del self.producer[node.name]
            self.looked_up[node.name] = value.numel()

    def _follows_input(self, node: fx.Node) -> bool:
        """Whether anything about ``node`` depends on an input, its sizes included."""
        open_, seen = [node], {node}
        while open_:
            for argument in open_.pop().all_input_nodes:
                if argument.op == "placeholder":
                    return True
                if argument not in seen:
                    seen.add(argument)
                    open_.append(argument)
        return False

    def _fold(self, node: fx.Node) -> None:
        """``node`` is made of constants: runtimes compute it when they load the model."""
        sources = [self.selection.resolve(argument.name) for argument in node.all_input_nodes]
        self.owed[node.name] = self._held_weights(node) + self._owed(sources)
        found = sum(self.looked_up.pop(source, 0) for source in sources)
        if found:
            self.looked_up[node.name] = found

    def _owed(self, sources: Sequence[str]) -> int:
        return sum(self.owed.pop(source, 0) for source in sources)

    def _kept(self, name: str, module: FullLayer) -> LayerShape:
        """What the candidate keeps of a layer, before its weight is factorised."""
        if isinstance(module, nn.Embedding):
            return LayerShape(tuple(module.weight.shape))
        out = self.selection.out_indices.get(name)
        kept_in = self.selection.in_indices.get(name)
        weight = list(module.weight.shape)
        if out is not None:
            weight[0] = len(out)
        if kept_in is not None and weight[1] > 1:
            weight[1] = len(kept_in)
        if isinstance(module, nn.Linear):
            return LayerShape(tuple(weight))
        kernel = self.selection.kernels.get(name)
        if kernel is not None:
            weight[2:] = [kernel, kernel]
        return LayerShape(
            tuple(weight), pair(module.stride), kernel_padding(module, kernel),
            pair(module.dilation),
            weight[0] if module.groups == module.out_channels > 1 else module.groups,
        )  # fmt: skip

    # -- everything else ------------------------------------------------------------------------

    def _function(self, node: fx.Node) -> None:
        arguments = fx.map_arg(self.selection.arguments(node), self._value)
        keywords = {**fx.map_arg(node.kwargs, self._value)}
        if "device" in keywords:
            keywords["device"] = torch.device("meta")
        value = self.graph.shapes.call(node, arguments, keywords)
        self.values[node.name] = value
        inputs = self._inputs(node)
        if not inputs:
            self._fold(node)
            return
        base = _base(node)
        if (
            isinstance(value, list | tuple)
            or base in _NOTHING
            or _changes_nothing(base, arguments, value)
        ):
            # a tuple of tensors is an operation for each of those that are used
            self.producer[node.name] = inputs[0]
            self.owed[node.name] = self._held_weights(node)
        elif isinstance(value, torch.Tensor):
            if node.target is operator.getitem:
                base = _base(node.all_input_nodes[0])
            sources = [self.selection.resolve(argument.name) for argument in node.all_input_nodes]
            held = self._held_weights(node) + self._owed(sources)
            attributes = dict(_attributes(base, arguments, value)) | ({"bias": 0} if held else {})
            found = sum(self.looked_up.get(source, 0) for source in sources)
            if found and not held:  # stored as the table that it was found in
                held, attributes = found, {**attributes, "bias": 0, "again": 1}
            if len(inputs) == 1 and self._comes_second(node, base):
                attributes["reversed"] = 1
            if base in {"clamp", "clamp_min"}:
                attributes |= _bounds(arguments, keywords)
            if base == "gelu" and keywords.get("approximate", "none") != "none":
                attributes["approximate"] = str(keywords["approximate"])
            self._emit(
                node,
                _kind(base, arguments, value),
                inputs,
                attributes=tuple(sorted(attributes.items())),
                weight_shape=(held,) if held else (),
            )

    def _comes_second(self, node: fx.Node, base: str) -> bool:
        """Whether the one tensor that an operation reads is taken from, or divides, a constant."""
        first = node.args[0] if node.args else None
        made = isinstance(first, fx.Node) and self.selection.resolve(first.name) in self.producer
        return made if base == "rsub" else base in {"sub", "div"} and not made

    def _held_weights(self, node: fx.Node) -> int:
        """Weights that the operation reads and no layer owns, such as an embedding's table."""
        found = 0
        for argument in node.all_input_nodes:
            target = str(argument.target)
            if argument.op == "get_attr" and target not in self.held:
                self.held.add(target)
                found += self._attribute(target).numel()
        return found


def _changes_nothing(base: str, arguments: Any, value: Any) -> bool:
    """Whether a slice leaves out nothing, or a conversion gives a tensor as it is."""
    if base == "slice":
        return bool(value.shape == arguments[0].shape)
    return base in {"to", "_to_copy"} and value.dtype == arguments[0].dtype


def _base(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def part_names(node: str, count: int) -> tuple[str, ...]:
    """Names of the operations that a layer's node becomes, the last of which has the node's own."""
    return (*(f"{node}_part{i}" for i in range(count - 1)), node)


def part_layers(layer: str, count: int) -> tuple[str, ...]:
    """Names of a layer's parts: "<layer>.0", "<layer>.1" and so on; one part has the layer's."""
    return tuple(f"{layer}.{i}" for i in range(count)) if count > 1 else (layer,)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in (values if isinstance(values, list | tuple) else (values,)))


def whole_layer(part: str, layers: Container[str]) -> str:
    """The layer that a name of :func:`part_layers` belongs to, among the names of all layers."""
    return part if part in layers else part.rpartition(".")[0]


def _conv_attributes(shape: LayerShape) -> dict[str, Attribute]:
    if len(shape.weight) != 4:
        return {}
    return {
        "kernel": shape.kernel,
        "stride": shape.stride,
        "padding": shape.padding,
        "dilation": shape.dilation,
        "groups": shape.groups,
    }


def _coded(
    kind: str, policy: LayerPolicy, weight: tuple[int, ...], attributes: dict[str, Attribute]
) -> Any:
    return {
        "attributes": tuple(sorted(attributes.items())),
        "weight_shape": weight,
        "weight_bits": policy.weight_bits,
        "activation_bits": 32 if kind == "embedding" else policy.activation_bits,
        "sparsity": policy.sparsity_of(weight),
        "pattern": policy.pattern if policy.sparsity_of(weight) else UNSTRUCTURED,
        "codebook": policy.codebook or 0,
    }


def _kind(base: str, arguments: Any, value: torch.Tensor) -> str:
    if base == "mean" and len(arguments) > 1 and isinstance(arguments[0], torch.Tensor):
        axes = {a % arguments[0].dim() for a in (arguments[1] or [])}
        return "global_avg_pool" if arguments[0].dim() == 4 and axes == {2, 3} else "mean"
    if base == "adaptive_avg_pool2d":
        if tuple(value.shape[-2:]) == (1, 1):
            return "global_avg_pool"
        if not _adaptive_attributes(arguments[0], value):
            return "adaptive_avg_pool"  # windows of different sizes: no runtime has one kernel
    if base == "bitwise_not" and value.dtype != torch.bool:
        return "aten.bitwise_not"
    return _KINDS.get(base, f"aten.{base}")


def _attributes(
    base: str, arguments: Any, value: torch.Tensor
) -> tuple[tuple[str, Attribute], ...]:
    if base in {"max_pool2d", "avg_pool2d"}:
        return _pool_attributes(base, arguments)
    if base == "adaptive_avg_pool2d":
        return _adaptive_attributes(arguments[0], value)
    if base in {"permute", "transpose"}:
        return (("perm", _permutation(base, arguments)),)
    if base == "cat":
        return (("axis", int(arguments[1]) if len(arguments) > 1 else 0),)
    if base == "softmax":
        return (("axis", int(arguments[1]) % value.dim()),)
    if base == "select":
        return (("axis", int(arguments[1]) % arguments[0].dim()), ("index", int(arguments[2])))
    if base == "hardtanh":
        low, high = (arguments[1], arguments[2]) if len(arguments) > 2 else (-1.0, 1.0)
        return (("high", float(high)), ("low", float(low)))
    if base in {"eq", "ne", "gt", "lt"}:
        return _comparison(arguments)
    if base in {"mean", "sum"}:
        keep = bool(arguments[2]) if len(arguments) > 2 else False
        return (("axes", _axes(arguments)), ("keepdim", int(keep)))
    return ()


def _pool_attributes(base: str, arguments: Any) -> tuple[tuple[str, Attribute], ...]:
    kernel = _ints(arguments[1])
    stride = _ints(arguments[2]) if len(arguments) > 2 and arguments[2] else kernel
    padding = _ints(arguments[3]) if len(arguments) > 3 else (0,)
    ceil_at = 5 if base == "max_pool2d" else 4  # max pooling has a dilation before it
    found: dict[str, Attribute] = {
        "kernel": pair(kernel),
        "stride": pair(stride),
        "padding": pair(padding),
    }
    if len(arguments) > ceil_at and arguments[ceil_at]:
        found["ceil"] = 1
    return tuple(sorted(found.items()))


def _adaptive_attributes(
    source: torch.Tensor, value: torch.Tensor
) -> tuple[tuple[str, Attribute], ...]:
    """Those of the average pool that it is, where all its windows have one size, none global."""
    spans = list(zip(source.shape[-2:], value.shape[-2:], strict=True))
    if any(before % after for before, after in spans) or tuple(value.shape[-2:]) == (1, 1):
        return ()
    kernel = pair([before // after for before, after in spans])
    return (("kernel", kernel), ("padding", (0, 0)), ("stride", kernel))


def _comparison(arguments: Any) -> tuple[tuple[str, Attribute], ...]:
    """What is compared, and the number that it is compared with, if it is one."""
    one, other = arguments[:2]
    operand = str(one.dtype).removeprefix("torch.")
    number = () if isinstance(other, torch.Tensor) else (("number", other),)
    return (*number, ("operand", operand))


def _bounds(arguments: Any, keywords: Mapping[str, Any]) -> dict[str, Attribute]:
    """The numbers between which values are kept, as far as there are any."""
    places = {"low": ("min", 1), "high": ("max", 2)}
    given = {
        key: arguments[at] if len(arguments) > at else keywords.get(name)
        for key, (name, at) in places.items()
    }
    return {key: float(bound) for key, bound in given.items() if isinstance(bound, int | float)}


def _axes(arguments: Any) -> tuple[int, ...]:
    """Dimensions that a reduction does away with."""
    rank = arguments[0].dim()
    given = arguments[1] if len(arguments) > 1 else None
    wanted = range(rank) if given is None or given == [] else _ints(given)
    return tuple(sorted(axis % rank for axis in wanted))


def _permutation(base: str, arguments: Any) -> tuple[int, ...]:
    rank = arguments[0].dim()
    if base == "permute":
        return tuple(int(axis) % rank for axis in arguments[1])
    order = list(range(rank))
    first, second = int(arguments[1]) % rank, int(arguments[2]) % rank
    order[first], order[second] = order[second], order[first]
    return tuple(order)
