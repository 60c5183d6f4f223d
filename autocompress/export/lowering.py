"""From the nodes of a graph to ONNX nodes, one at a time."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.stored_layers import StoredLayer
from autocompress.errors import RequestError
from autocompress.export.call import Call
from autocompress.export.layers import LayerCall, LayerWriter
from autocompress.export.operators import emit_norm, emitter, is_global_mean
from autocompress.export.shape_operators import DIVIDING, piece, piece_sizes
from autocompress.export.writer import OnnxWriter
from autocompress.graph.extents import Extent
from autocompress.graph.ops import FUSED_TAILS, PASS_THROUGH, Op
from autocompress.graph.precision import fused_tails, quantized_tensors, scale_roots

Values = Mapping[str, str]


class Lowering:
    """Writes a graph's nodes with one writer.

    Integer tensors are written as QuantizeLinear + DequantizeLinear, those of fewer than 8 bits
    with a Clip of the uint8 codes in between, which leaves the layers around it integer ones. Every
    reader of a quantised tensor reads the de-quantised value, and the runtime fuses what lies
    between.

    Args:
        module: a float or simulated graph.
        ops: the candidate's operations, with the graph's node names.
        extents: of every tensor-valued node.

    Attributes:
        integers: name of each quantised tensor's node -> name of its uint8 value.
    """

    def __init__(
        self, module: fx.GraphModule, ops: Sequence[Op], extents: Mapping[str, Extent]
    ) -> None:
        self.module = module
        self.extents = extents
        self.writer = OnnxWriter()
        self.layers = LayerWriter(self.writer)
        self.ops = {op.name: op for op in ops}
        self.tails = fused_tails(ops)
        self.quantizers = _quantizers(module)
        self.roots = scale_roots(ops) if self.quantizers else {}
        missing = set(self.roots.values()) - set(self.quantizers)
        if missing or (not self.quantizers and quantized_tensors(ops)):
            raise RequestError(
                f"tensors {sorted(missing) or sorted(quantized_tensors(ops))} should be integers "
                "but the graph does not quantise them; give the graph that simulate_quantization "
                "made from the same operations"
            )
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.writer.take(node.name)
                extent = extents[node.name]
                if self.writer.batch_source is None and extent.slopes[:1] == (1,):
                    self.writer.batch_source = node.name
                if self.writer.length_source is None and extent.rates[1:2] == (1,):
                    self.writer.length_source = node.name
        self.writer.take("output")
        self.integers: dict[str, str] = {}

    def writes(self, node: fx.Node) -> bool:
        """Whether this class knows how to write ``node``, which gives a tensor."""
        if node.name not in self.extents:
            return False
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding | ActivationQuantizer):
                return True
            return emit_norm(OnnxWriter(), module, "x", "x") is not None
        if node.op != "call_function":
            return False
        names = {argument.name: "x" for argument in (*node.all_input_nodes, *_divided(node))}
        scratch = OnnxWriter()
        scratch.batch_source = self.writer.batch_source
        scratch.length_source = self.writer.length_source
        return self._function(scratch, node, names) is not None

    def stands_alone(self, node: fx.Node) -> bool:
        """Whether :meth:`writes` holds, and ``node`` gives floats and reads nothing else but ids.

        Only such nodes can be left out of what the general exporter sees.
        """
        looks_up = node.op == "call_module" and isinstance(
            self.module.get_submodule(str(node.target)), nn.Embedding
        )
        return (looks_up or self._all_float(node)) and self.writes(node)

    def write(self, node: fx.Node, values: Values) -> str:
        """Write ``node``; the name of its (de-quantised) output value.

        Args:
            node: a node that :meth:`writes` accepts.
            values: names of the values of the nodes it reads.
        """
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            source = node.all_input_nodes[0]
            if isinstance(module, ActivationQuantizer):
                result = self.quantize(values[source.name], module)
                self.integers.setdefault(source.name, self.writer.nodes[-2].output[0])
                return result
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                return self._layer(node, module, values[source.name])
            made = emit_norm(self.writer, module, values[source.name], node.name)
        elif self._is_absorbed(node):
            made = values[node.all_input_nodes[0].name]
        elif self._is_integer_mean(node):
            return self._integer_mean(node, values)
        else:
            made = self._function(self.writer, node, values)
        if made is None:
            raise RequestError(f"node {node.name!r} ({node.target}) has no ONNX form")
        op = self.ops.get(node.name)
        if op is not None and op.kind in PASS_THROUGH and node.name in self.roots:
            return self.quantize(made, self._quantizer(node.name), again=True)
        return made

    def quantize(self, value: str, quantizer: ActivationQuantizer, *, again: bool = False) -> str:
        """``value`` as uint8 and back; ``again`` when its values are codes of that scale."""
        operands = [*self._scale(quantizer)]
        stored = self.writer.node("QuantizeLinear", [value, *operands])
        if quantizer.bits < 8 and not again:
            last = self.writer.constant(np.uint8(quantizer.last))
            stored = self.writer.node("Clip", [stored, "", last])
        return self.writer.node("DequantizeLinear", [stored, *operands])

    # -- tensors ----------------------------------------------------------------------------------

    def _scale(self, quantizer: ActivationQuantizer) -> tuple[str, str]:
        scale = self.writer.constant(np.float32(quantizer.scale.item()))
        return scale, self.writer.constant(np.uint8(quantizer.zero_point.item()))

    def _quantizer(self, tensor: str) -> ActivationQuantizer:
        return self.quantizers[self.roots[tensor]]

    def _all_float(self, node: fx.Node) -> bool:
        if node.name not in self.extents:
            return False
        read = [self.extents[n.name] for n in node.all_input_nodes if n.name in self.extents]
        return all(extent.is_float for extent in (*read, self.extents[node.name]))

    # -- layers -----------------------------------------------------------------------------------

    def _layer(
        self, node: fx.Node, module: nn.Conv2d | nn.Linear | nn.Embedding, value: str
    ) -> str:
        op = self.ops.get(node.name)
        inputs, output = self._source_extent(node), self.extents[node.name]
        integer = op is not None and op.is_integer_layer and isinstance(module, StoredLayer)
        quantizer = self._quantizer(op.inputs[0]) if op is not None and integer else None
        columns = module.in_features if isinstance(module, nn.Linear) and inputs.rank != 2 else 0
        if columns and quantizer is not None:
            value = self.quantize(self._reshape(value, (-1, columns)), quantizer, again=True)
        made = self.layers.write(
            LayerCall(
                name=op.layer if op is not None and op.layer else str(node.target),
                module=module,
                value=value,
                index=len(self.layers.written),
                inputs=inputs,
                output=output,
                input_scale=None if quantizer is None else self._scale(quantizer)[0],
                step=None if quantizer is None else quantizer.scale,
            )
        )
        if columns and quantizer is not None:
            return self._ranked(node, made)
        return self._guarded(op, made) if op is not None else made

    def _ranked(self, node: fx.Node, value: str) -> str:
        """The rows of an integer linear layer in the shape of its output."""
        tail = self.tails[node.name]
        if tail in self.roots:
            value = self.quantize(value, self._quantizer(tail))
        extent = self.extents[node.name]
        if extent.pattern is not None:
            return self._reshape(value, extent.pattern)
        shape = self.writer.shape(extent)
        if shape is None:
            raise RequestError(f"layer {node.target!r} has an output with two free dimensions")
        return self.writer.node("Reshape", [value, shape])

    def _source_extent(self, node: fx.Node) -> Extent:
        return self.extents[node.all_input_nodes[0].name]

    def _reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.writer.node("Reshape", [value, self.writer.constant(np.array(shape, np.int64))])

    def _guarded(self, op: Op, value: str) -> str:
        """Keep a float layer between integer tensors a float layer.

        ONNX Runtime turns a float Conv or Gemm that lies between DequantizeLinear and
        QuantizeLinear into an integer one when it loads the file. A LeakyRelu behind it, with
        slope 0 (a ReLU) or 1 (nothing), prevents that and is fused into the layer.
        """
        tail = self.tails[op.name]
        between = bool(op.inputs) and op.inputs[0] in self.roots and tail in self.roots
        if op.is_integer_layer or not between:
            return value
        slope = 0.0 if self.ops[tail].kind == "relu" else 1.0
        return self.writer.node("LeakyRelu", [value], alpha=slope)

    # -- functions --------------------------------------------------------------------------------

    def _function(self, writer: OnnxWriter, node: fx.Node, values: Values) -> str | None:
        if node.target is operator.getitem:
            return self._piece(writer, node, values)
        emit = emitter(node.target)
        if emit is None or not isinstance(node.target, torch._ops.OpOverload):
            return None
        arguments = {
            key: self._argument(writer, value, values) for key, value in _bind(node).items()
        }
        return emit(writer, self._call(node, arguments))

    def _piece(self, writer: OnnxWriter, node: fx.Node, values: Values) -> str | None:
        """One of the outputs of a chunk, split or unbind."""
        source, index = node.args
        for whole in _divided(node):
            if not isinstance(source, fx.Node) or not isinstance(index, int):
                return None
            extent, arguments = self.extents[whole.name], dict(_bind(source))
            axis = int(arguments["dim"]) % extent.rank
            kind = _division(source)
            sizes = piece_sizes(kind, arguments, extent.constants[axis])
            if extent.is_free(axis) or sizes is None or not 0 <= index < len(sizes):
                return None
            arguments["self"] = values[whole.name]
            call = Call(node.name, arguments, (extent,), self.extents[node.name])
            return piece(writer, call, kind, index, sizes)
        return None

    def _call(self, node: fx.Node, arguments: Mapping[str, Any]) -> Call:
        inputs = tuple(self.extents[n.name] for n in node.all_input_nodes if n.name in self.extents)
        return Call(node.name, arguments, inputs, self.extents[node.name])

    def _argument(self, writer: OnnxWriter, value: Any, values: Values) -> Any:
        if isinstance(value, list | tuple):
            return [self._argument(writer, item, values) for item in value]
        if not isinstance(value, fx.Node):
            return value
        if value.op == "get_attr":
            tensor: torch.Tensor = operator.attrgetter(str(value.target))(self.module)
            return writer.constant(tensor.detach().cpu().numpy())
        return values.get(value.name, value)

    def _user_quantizer(self, node: fx.Node) -> ActivationQuantizer | None:
        """The quantiser that reads ``node``, when nothing else does."""
        return self.quantizers.get(node.name) if len(node.users) == 1 else None

    def _is_absorbed(self, node: fx.Node) -> bool:
        """Whether ``node`` clips only to what the quantiser behind it saturates at anyway."""
        op, quantizer = self.ops.get(node.name), self._user_quantizer(node)
        if op is None or op.kind not in FUSED_TAILS or quantizer is None:
            return False
        low, high = 0.0, float("inf")
        if op.kind == "relu6":
            high = 6.0
        elif op.kind == "hardtanh":
            low, high = (float(op.attribute(k, d)) for k, d in (("low", -1.0), ("high", 1.0)))  # type: ignore[arg-type]
        bounds = torch.tensor([low, high]) / quantizer.scale
        first, last = torch.round(bounds) + quantizer.zero_point
        return bool(first <= 0) and bool(last >= quantizer.last)

    def _is_integer_mean(self, node: fx.Node) -> bool:
        if str(node.target) != "aten.mean.dim" or self._user_quantizer(node) is None:
            return False
        call = self._call(node, _bind(node))
        return is_global_mean(call) and not call.arguments["keepdim"]

    def _integer_mean(self, node: fx.Node, values: Values) -> str:
        """A global average pool has an integer kernel, a mean has not."""
        quantizer = self.quantizers[node.name]
        source = values[node.all_input_nodes[0].name]
        pooled = self.writer.node("GlobalAveragePool", [source], name=node.name)
        return self.writer.node("Flatten", [self.quantize(pooled, quantizer)])


def _division(node: fx.Node) -> str:
    """The kind of a dividing call, or nothing."""
    base = str(node.target).removeprefix("aten.").partition(".")[0]
    return base if base in DIVIDING else ""


def _divided(node: fx.Node) -> list[fx.Node]:
    """The tensor that ``node`` is a piece of, when it is one."""
    source = node.args[0] if node.args else None
    if node.target is not operator.getitem or not isinstance(source, fx.Node):
        return []
    return source.all_input_nodes[:1] if _division(source) else []


def read_by(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values are needed to write ``node``."""
    return _divided(node) or node.all_input_nodes


def _bind(node: fx.Node) -> dict[str, Any]:
    """All of a call's arguments by name, defaults included."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return {}
    bound: dict[str, Any] = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(node.args) and not argument.kwarg_only:
            bound[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


def _quantizers(module: fx.GraphModule) -> dict[str, ActivationQuantizer]:
    """Name of each quantised tensor's node -> its quantiser."""
    found: dict[str, ActivationQuantizer] = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            quantizer = module.get_submodule(str(node.target))
            if isinstance(quantizer, ActivationQuantizer):
                found[node.all_input_nodes[0].name] = quantizer
    return found
