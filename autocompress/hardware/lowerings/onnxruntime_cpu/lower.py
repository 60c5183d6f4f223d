"""From a candidate's operations to the kernels that ONNX Runtime's CPU provider executes.

Emulates what happens when the exported QDQ or float file is loaded: Q/DQ pairs become integer
kernels, activations and residual additions move into convolutions, layouts change to blocked
channels (float) or channels last (integer) and are changed back at the borders. Written after
ONNX Runtime 1.31's graph optimisers and checked against its loaded graphs; where the two differ
in kernels, the estimate's band has to cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import prod

from autocompress.graph.ops import FUSED_TAILS, Op, reduced_axes
from autocompress.graph.precision import fused_tails
from autocompress.hardware.lowerings.onnxruntime_cpu.blocked_layout import use_blocked_channels
from autocompress.hardware.lowerings.onnxruntime_cpu.channels_last import use_channels_last
from autocompress.hardware.lowerings.onnxruntime_cpu.kernel_graph import (
    SCALE,
    ZERO_U8,
    Graph,
    Operand,
)
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.synthesis import guarded, pair
from autocompress.runtimes.base import AttributeValue

_CONV_ACTIVATIONS = {
    "relu": "Relu",
    "relu6": "Clip",
    "hardtanh": "Clip",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "hardsigmoid": "HardSigmoid",
}
_GEMM_ACTIVATIONS = {k: v for k, v in _CONV_ACTIVATIONS.items() if v != "Clip"} | {"elu": "Elu"}
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardsigmoid": "HardSigmoid",
    "gelu": "Gelu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
}
#: ONNX's numbers of element types.
_FLOAT, _INT32 = 1, 6
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
_COMPARISONS = {"equal": "Equal", "greater": "Greater", "less": "Less"}
_INTEGER_UNARY = {
    "sigmoid": "ms:QLinearSigmoid",
    "leaky_relu": "ms:QLinearLeakyRelu",
    "softmax": "ms:QLinearSoftmax",
    "avg_pool": "ms:QLinearAveragePool",
}
_MOVES = frozenset({"max_pool", "flatten", "reshape", "transpose"})


def lower(ops: Sequence[Op], quantized: Collection[str]) -> tuple[KernelSignature, ...]:
    """The kernels of a candidate, in execution order.

    Args:
        ops: its operations in execution order.
        quantized: names of the operations whose output tensor is stored as uint8.
    """
    return tuple(signature for _, signature in lower_by_op(ops, quantized))


def lower_by_op(
    ops: Sequence[Op], quantized: Collection[str]
) -> tuple[tuple[str, KernelSignature], ...]:
    """As :func:`lower`, each kernel with the name of the operation that it belongs to."""
    graph = _Builder(ops, quantized).build()
    use_blocked_channels(graph)
    _expand_hardswish(graph)
    use_channels_last(graph)
    return tuple((node.owner, graph.signature(node)) for node in graph.nodes)


def _expand_hardswish(graph: Graph) -> None:
    """What no convolution took in runs as two kernels."""
    for node in [n for n in graph.nodes if n.op == "ms:FusedConv"]:
        if node.attributes.get("activation") == "HardSwish":  # only blocked convolutions know it
            raw = graph.name(f"{node.output}.raw")
            kind, output = graph.types[node.output], node.output
            graph.types[raw] = kind
            graph.rename_output(node, raw)
            node.op = "Conv"
            del node.attributes["activation"]
            graph.add("HardSwish", [raw], output, kind, node.owner)
            last = graph.nodes.pop()
            graph.nodes.insert(graph.nodes.index(node) + 1, last)
    for node in [n for n in graph.nodes if n.op == "HardSwish"]:
        source = node.inputs[0]
        gate = f"{node.output}.gate"
        graph.add("HardSigmoid", [source], gate, graph.types[node.output], node.owner)
        first = graph.nodes.pop()
        graph.nodes.insert(graph.nodes.index(node), first)
        node.op = "Mul"
        node.inputs.append(None)
        graph.connect(node, 1, gate)


def _f32(shape: Sequence[int], *, constant: bool = False) -> TensorType:
    return TensorType("float32", tuple(shape), constant)


class _Builder:
    """Builds the graph as it is after fusion and before any change of layout."""

    def __init__(self, ops: Sequence[Op], quantized: Collection[str]) -> None:
        self.ops = ops
        self.by_name = {op.name: op for op in ops}
        self.quantized = quantized
        self.graph = Graph()
        self.tails = fused_tails(ops)
        self.readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)
        self.done: set[str] = set()
        self.makers: dict[str, Callable[[Op], None]] = {
            "conv": self._conv,
            "linear": self._linear,
            "add": self._binary,
            "sub": self._binary,
            "mul": self._binary,
            "div": self._binary,
            "matmul": self._matmul,
            "batch_norm": self._batch_norm,
            "concat": self._concat,
            "max_pool": self._pool,
            "avg_pool": self._pool,
            "global_avg_pool": self._global_pool,
            "mean": self._mean,
            "flatten": self._view,
            "reshape": self._view,
            "transpose": self._transpose,
            "resize": self._resize,
            "relu6": self._clip,
            "hardtanh": self._clip,
            "hardswish": self._hardswish,
            "silu": self._silu,
            "softmax": self._softmax,
            "layer_norm": self._layer_norm,
            "select": self._select,
            "embedding": self._embedding,
            "attention": self._attention,
            "equal": self._compare,
            "not_equal": self._compare,
            "greater": self._compare,
            "less": self._compare,
            "logical_not": self._logical_not,
            "masked_fill": self._masked_fill,
            "cast": self._cast,
            "clamp": self._clamp,
            "sum": self._sum,
            **dict.fromkeys(_UNARY, self._unary),
        }

    def build(self) -> Graph:
        for op in self.ops:
            if op.name in self.done or op.kind == "output" or op.is_folded:
                continue
            if op.kind == "input":
                self.graph.types[op.name] = _kind_of(op)
                self._store(op, op.name)
            else:
                self.makers.get(op.kind, self._other)(op)
        for op in self.ops:
            if op.kind == "output":
                self.graph.outputs.update(self._float(name, op) for name in op.inputs)
        return self.graph

    # -- reading and storing activations ----------------------------------------------------------

    def _integer(self, name: str) -> str:
        return f"{name}.q"

    def _float(self, name: str, reader: Op) -> str:
        """The float value of a tensor; each reader of an integer one has its own conversion."""
        if name not in self.quantized:
            return name
        kind = _f32(self.by_name[name].shape)
        value = self.graph.name(f"{name}.dq")
        self.graph.add(
            "DequantizeLinear", [self._integer(name), SCALE, ZERO_U8], value, kind, reader.name
        )
        return value

    def _store(self, op: Op, value: str) -> None:
        """Quantise ``value`` into the output of ``op`` where it is stored as uint8."""
        if op.name in self.quantized:
            kind = TensorType("uint8", op.shape)
            operands: list[Operand] = [value, SCALE, ZERO_U8]
            self.graph.add("QuantizeLinear", operands, self._integer(op.name), kind, op.name)

    def _result(self, op: Op) -> str:
        """Name of a float result: quantised tensors keep theirs for the integer value."""
        return f"{op.name}.f" if op.name in self.quantized else op.name

    def _all_integer(self, op: Op) -> bool:
        return bool(op.inputs) and all(name in self.quantized for name in op.inputs)

    def _tail(self, op: Op, kinds: Collection[str]) -> Op | None:
        """The only reader of ``op``, if it is one of ``kinds`` and ``op`` itself stays float."""
        readers = self.readers.get(op.name, [])
        alone = len(readers) == 1 and readers[0].inputs == (op.name,)
        if alone and readers[0].kind in kinds and op.name not in self.quantized:
            return readers[0]
        return None

    def _finish(
        self, op: Op, node_op: str, inputs: list[Operand], **attributes: AttributeValue
    ) -> None:
        """A float kernel for ``op``, followed by its quantisation if that is asked for."""
        value = self._result(op)
        self.graph.add(node_op, inputs, value, _kind_of(op), op.name, **attributes)
        self._store(op, value)

    def _absorbed(self, op: Op) -> Op:
        """The operation whose tensor is stored: ``op`` itself or the ReLU-like one after it."""
        tail = self.by_name[self.tails[op.name]]
        if tail is not op:
            self.done.add(tail.name)
        return tail

    # -- layers -----------------------------------------------------------------------------------

    def _conv(self, op: Op) -> None:
        attributes = _conv_attributes(op)
        bias = bool(op.attribute("bias", 1))
        end = self.by_name[self.tails[op.name]]
        if op.is_integer_layer and end.name in self.quantized:
            self._absorbed(op)
            channels = op.weight_shape[0]
            operands: list[Operand] = [self._integer(op.inputs[0]), SCALE, ZERO_U8]
            operands += [
                TensorType("int8", op.weight_shape, constant=True),
                _f32((channels,), constant=True),
                TensorType("int8", (), constant=True),
                SCALE,
                ZERO_U8,
            ]
            if bias:
                operands.append(TensorType("int32", (channels,), constant=True))
            kind = TensorType("uint8", end.shape)
            self.graph.add(
                "ms:QLinearConv", operands, self._integer(end.name), kind, op.name, **attributes
            )
            return
        source = self._float(op.inputs[0], op)
        if op.is_integer_layer:
            weight: list[Operand] = list(self._converted_weight(op, bias))
        else:
            weight = [_f32(op.weight_shape, constant=True)]
            if bias:
                weight.append(_f32(op.weight_shape[:1], constant=True))
        tail = self._tail(op, {*_CONV_ACTIVATIONS, "hardswish"})
        last = op
        if self._guard(op, last=tail or op, node="Conv", operands=[source, *weight], **attributes):
            return
        if tail is not None and not (tail.name in self.quantized and tail.kind in FUSED_TAILS):
            attributes["activation"] = _CONV_ACTIVATIONS.get(tail.kind, "HardSwish")
            last = tail
            self.done.add(tail.name)
        elif tail is not None:  # dropped: the quantisation behind it clips as well
            last = tail
            self.done.add(tail.name)
        node = "ms:FusedConv" if "activation" in attributes else "Conv"
        value = self._result(last)
        self.graph.add(node, [source, *weight], value, _f32(last.shape), op.name, **attributes)
        self._store(last, value)

    def _guard(
        self, op: Op, *, last: Op, node: str, operands: list[Operand], **attributes: AttributeValue
    ) -> bool:
        """A float layer between integer tensors carries a LeakyRelu that keeps it float."""
        if not guarded(op, last, self.quantized):
            return False
        self.done.add(last.name)
        value = self._result(last)
        self.graph.add(
            f"ms:Fused{node}",
            operands,
            value,
            _f32(last.shape),
            op.name,
            activation="LeakyRelu",
            **attributes,
        )
        self._store(last, value)
        return True

    def _converted_weight(self, op: Op, bias: bool) -> list[str]:
        """Weights of an integer layer that runs in float: converted back at every run."""
        channels = op.weight_shape[0]
        scale = _f32((channels,), constant=True)
        names = []
        stored = [TensorType("int8", op.weight_shape, constant=True)]
        if bias:
            stored.append(TensorType("int32", (channels,), constant=True))
        for tensor in stored:
            name = self.graph.name(f"{op.name}.weight")
            kind = _f32(tensor.shape)
            self.graph.add("DequantizeLinear", [tensor, scale], name, kind, op.name)
            names.append(name)
        return names

    def _linear(self, op: Op) -> None:
        bias = bool(op.attribute("bias", 1))
        if len(op.shape) != 2:
            self._linear_matmul(op, bias)
            return
        features = op.weight_shape[0]
        end = self.by_name[self.tails[op.name]]
        if op.is_integer_layer:
            operands: list[Operand] = [self._integer(op.inputs[0]), SCALE, ZERO_U8]
            operands += _integer_weight(op.weight_shape)
            operands.append(TensorType("int32", (features,), constant=True) if bias else None)
            if end.name in self.quantized:
                self._absorbed(op)
                operands += [SCALE, ZERO_U8]
                kind = TensorType("uint8", end.shape)
                target = self._integer(end.name)
            else:
                kind, target = _f32(op.shape), self._result(op)
            self.graph.add("ms:QGemm", operands, target, kind, op.name, transB=1)
            return
        operands = [self._float(op.inputs[0], op), _f32(op.weight_shape, constant=True)]
        if bias:
            operands.append(_f32((features,), constant=True))
        tail = self._tail(op, _GEMM_ACTIVATIONS)
        if self._guard(op, last=tail or op, node="Gemm", operands=operands, transB=1):
            return
        if tail is not None and not (tail.name in self.quantized and tail.kind in FUSED_TAILS):
            self.done.add(tail.name)
            activation = _GEMM_ACTIVATIONS[tail.kind]
            self._finish(tail, "ms:FusedGemm", operands, transB=1, activation=activation)
            self._own(tail, op)
        elif tail is not None:
            self.done.add(tail.name)
            self._finish(tail, "Gemm", operands, transB=1)
            self._own(tail, op)
        else:
            self._finish(op, "Gemm", operands, transB=1)

    def _own(self, tail: Op, op: Op) -> None:
        """Charge the fused kernel to the layer rather than to its activation."""
        self.graph.maker[self._result(tail)].owner = op.name

    def _linear_matmul(self, op: Op, bias: bool) -> None:
        if op.is_integer_layer:
            self._linear_rows(op, bias)
            return
        weight = op.weight_shape[::-1]
        source = self._float(op.inputs[0], op)
        product = f"{op.name}.mm" if bias else self._result(op)
        self.graph.add(
            "MatMul", [source, _f32(weight, constant=True)], product, _f32(op.shape), op.name
        )
        tail = self._tail(op, {"gelu"})
        if bias and tail is not None and not tail.attribute("approximate"):
            self.done.add(tail.name)
            self._finish(tail, "ms:BiasGelu", [product, _f32(weight[-1:], constant=True)])
            self._own(tail, op)
        elif bias:
            self._finish(op, "Add", [product, _f32(weight[-1:], constant=True)])
        else:
            self._store(op, product)

    def _linear_rows(self, op: Op, bias: bool) -> None:
        """An integer linear layer of higher rank: rows, an integer product, and back."""
        features, columns = op.weight_shape
        count = prod(op.shape[:-1])
        end = self._absorbed(op)
        rows, made = self.graph.name(f"{op.name}.rows"), self.graph.name(f"{op.name}.made")
        flat = TensorType("int64", (2,), True, (-1, columns))
        kind = TensorType("uint8", (count, columns))
        self.graph.add("Reshape", [self._integer(op.inputs[0]), flat], rows, kind, op.name)
        operands: list[Operand] = [rows, SCALE, ZERO_U8, *_integer_weight(op.weight_shape)]
        operands.append(TensorType("int32", (features,), constant=True) if bias else None)
        dtype = "float32"
        if end.name in self.quantized:
            operands += [SCALE, ZERO_U8]
            dtype = "uint8"
        result = TensorType(dtype, (count, features))
        self.graph.add("ms:QGemm", operands, made, result, op.name, transB=1)
        shape = TensorType("int64", (len(end.shape),), True, (-1, *end.shape[1:]))
        target = self._integer(end.name) if end.name in self.quantized else end.name
        self.graph.add("Reshape", [made, shape], target, TensorType(dtype, end.shape), op.name)

    def _batch_norm(self, op: Op) -> None:
        """One that no convolution before it took in."""
        statistics = [_f32(op.shape[1:2], constant=True)] * 4
        source = self._float(op.inputs[0], op)
        self._finish(op, "BatchNormalization", [source, *statistics])

    # -- element by element -----------------------------------------------------------------------

    def _embedding(self, op: Op) -> None:
        """Rows of a table, made floats once they have been looked up."""
        ids, shape = next(iter(op.inputs), ""), op.weight_shape
        if not ids:  # places of a row that may have any length
            ids = self.graph.name(f"{op.name}.ids")
            self.graph.types[ids] = TensorType("int64", op.shape[:-1])
        stored = "float32"
        if op.codebook:
            stored = "uint8"
        elif op.weight_bits < 32:
            stored = "float16" if op.weight_bits == 16 else "int8"
        table = TensorType(stored, shape, constant=True)
        if stored == "float32":
            self._finish(op, "Gather", [table, ids], axis=0)
            return
        codes, value = self.graph.name(f"{op.name}.codes"), self._result(op)
        self.graph.add("Gather", [table, ids], codes, TensorType(stored, op.shape), op.name, axis=0)
        if op.codebook:
            places = self.graph.name(f"{op.name}.places")
            kind = TensorType("int32", op.shape)
            self.graph.add("Cast", [codes], places, kind, op.name, to=_INT32)
            values = _f32((op.codebook,), constant=True)
            self.graph.add("Gather", [values, places], value, _f32(op.shape), op.name, axis=0)
        elif stored == "float16":
            self.graph.add("Cast", [codes], value, _f32(op.shape), op.name, to=_FLOAT)
        else:
            floats, steps = (self.graph.name(f"{op.name}.{part}") for part in ("floats", "steps"))
            self.graph.add("Cast", [codes], floats, _f32(op.shape), op.name, to=_FLOAT)
            scales, kind = _f32((shape[0], 1), constant=True), _f32((*op.shape[:-1], 1))
            self.graph.add("Gather", [scales, ids], steps, kind, op.name, axis=0)
            self.graph.add("Mul", [floats, steps], value, _f32(op.shape), op.name)
        self._store(op, value)

    def _attention(self, op: Op) -> None:
        """Scores, softmax and the product with the values, as they are written out."""
        query, key, value, *mask = (self._float(name, op) for name in op.inputs)
        *heads, length, _ = op.shape
        *_, others, width = self.graph.types[key].shape
        scores = _f32((*heads, length, others))
        turned = self._turned(op, key, (*heads, width, others))
        made = self.graph.name(f"{op.name}.scores")
        self.graph.add(
            "ms:FusedMatMul", [query, turned], made, scores, op.name, transBatchA=0, transBatchB=0
        )
        added: list[Operand] = [*mask[:1]]
        if not added and op.weight_shape:  # a bias that is learned, or held with the weights
            added.append(_held(op, scores.shape[1:]))
        for operand in added:
            masked = self.graph.name(f"{op.name}.masked")
            self.graph.add("Add", [made, operand], masked, scores, op.name)
            made = masked
        weights = self.graph.name(f"{op.name}.weights")
        self.graph.add("Softmax", [made], weights, scores, op.name, axis=len(op.shape) - 1)
        self._finish(op, "MatMul", [weights, value])

    def _turned(self, op: Op, key: str, shape: tuple[int, ...]) -> str:
        """The keys with features before positions; a transpose that made them does it at once."""
        rank = len(shape)
        last = (*range(rank - 2), rank - 1, rank - 2)
        conversion = self.graph.maker.get(key)
        reads = conversion is not None and conversion.op == "DequantizeLinear"
        moved = str(conversion.inputs[0]) if conversion is not None and reads else key
        maker = self.graph.maker.get(moved)
        if maker is None or maker.op != "Transpose" or self.graph.uses(moved) > int(reads):
            name = self.graph.name(f"{op.name}.keys")
            self.graph.add("Transpose", [key], name, _f32(shape), op.name, perm=last)
            return name
        perm = maker.attributes["perm"]
        if isinstance(perm, tuple):
            maker.attributes["perm"] = tuple(int(perm[axis]) for axis in last)
        for name in {moved, key}:
            self.graph.types[name] = TensorType(self.graph.types[name].dtype, shape)
        return key

    def _compare(self, op: Op) -> None:
        operands: list[Operand] = [self._float(name, op) for name in op.inputs]
        if len(operands) == 1:
            dtype, number = str(op.attribute("operand", "float32")), op.attribute("number")
            values = (int(number),) if dtype == "int64" and isinstance(number, int | float) else ()
            operands.append(TensorType(dtype, (), True, values))
        if op.kind != "not_equal":
            self._finish(op, _COMPARISONS[op.kind], operands)
            return
        same = self.graph.name(f"{op.name}.same")
        self.graph.add("Equal", operands, same, _kind_of(op), op.name)
        self._finish(op, "Not", [same])

    def _logical_not(self, op: Op) -> None:
        self._finish(op, "Not", [op.inputs[0]])

    def _masked_fill(self, op: Op) -> None:
        """A number where the mask, which comes second, is true."""
        value, mask = op.inputs
        self._finish(op, "Where", [mask, SCALE, self._float(value, op)])

    def _cast(self, op: Op) -> None:
        import numpy as np
        from onnx import helper

        to = helper.np_dtype_to_tensor_dtype(np.dtype(_kind_of(op).dtype))
        self._finish(op, "Cast", [op.inputs[0]], to=int(to))

    def _clamp(self, op: Op) -> None:
        number = TensorType(_kind_of(op).dtype, (), constant=True)
        given = dict(op.attributes)
        low, high = (number if bound in given else None for bound in ("low", "high"))
        self._finish(op, "Clip", [self._float(op.inputs[0], op), low, high])

    def _sum(self, op: Op) -> None:
        self._reduce(op, "ReduceSum")

    def _reduce(self, op: Op, node: str) -> None:
        rank = len(self.by_name[op.inputs[0]].shape)
        axes = reduced_axes(op, rank)
        constant = TensorType("int64", (len(axes),), constant=True, values=axes)
        source = self._float(op.inputs[0], op)
        self._finish(op, node, [source, constant], keepdims=int(len(op.shape) == rank))

    def _binary(self, op: Op) -> None:
        readers = self.readers.get(op.name, [])
        if _is_factor(op) and len(readers) == 1 and readers[0].kind == "matmul":
            return  # see _matmul
        end = self.by_name[self.tails[op.name]]
        integer = op.kind in {"add", "mul"} and len(op.inputs) == 2 and self._all_integer(op)
        if integer and end.name in self.quantized:
            self._absorbed(op)
            operands: list[Operand] = []
            for name in op.inputs:
                operands += [self._integer(name), SCALE, ZERO_U8]
            kind = TensorType("uint8", end.shape)
            self.graph.add(
                f"ms:QLinear{_BINARY[op.kind]}",
                [*operands, SCALE, ZERO_U8],
                self._integer(end.name),
                kind,
                op.name,
            )
            return
        operands = [self._float(name, op) for name in op.inputs]
        if len(operands) == 1:
            operands.insert(0 if op.attribute("reversed") else 1, _held(op, op.shape))
        self._finish(op, _BINARY[op.kind], operands)

    def _unary(self, op: Op) -> None:
        if op.name in self.quantized and self._all_integer(op) and op.kind in _INTEGER_UNARY:
            self._integer_unary(op)
            return
        source = self._float(op.inputs[0], op)
        if op.kind == "relu" and op.name in self.quantized:
            self._store(op, source)  # the quantisation's zero point of 0 clips as well
            return
        attributes: dict[str, AttributeValue] = {}
        if op.kind == "gelu":
            attributes["approximate"] = str(op.attribute("approximate", "none"))
        self._finish(op, _UNARY[op.kind], [source], **attributes)

    def _integer_unary(self, op: Op, **attributes: AttributeValue) -> None:
        operands: list[Operand] = [self._integer(op.inputs[0]), SCALE, ZERO_U8, SCALE, ZERO_U8]
        kind = TensorType("uint8", op.shape)
        node = _INTEGER_UNARY[op.kind]
        self.graph.add(node, operands, self._integer(op.name), kind, op.name, **attributes)

    def _clip(self, op: Op) -> None:
        source = self._float(op.inputs[0], op)
        if op.name in self.quantized:
            self._store(op, source)
        else:
            self._finish(op, "Clip", [source, SCALE, SCALE])

    def _hardswish(self, op: Op) -> None:
        self._finish(op, "HardSwish", [self._float(op.inputs[0], op)])

    def _silu(self, op: Op) -> None:
        if op.inputs[0] not in self.quantized:
            self._finish(op, "ms:QuickGelu", [op.inputs[0]])
            return
        gate = f"{op.name}.gate"
        source = self._float(op.inputs[0], op)
        self.graph.add("Sigmoid", [source], gate, _f32(op.shape), op.name)
        self._finish(op, "Mul", [self._float(op.inputs[0], op), gate])

    def _softmax(self, op: Op) -> None:
        axis = op.attribute("axis", -1)
        if op.name in self.quantized and self._all_integer(op):
            self._integer_unary(op, axis=axis)
        else:
            self._finish(op, "Softmax", [self._float(op.inputs[0], op)], axis=axis)

    # -- shapes and pools -------------------------------------------------------------------------

    def _moves_integers(self, op: Op) -> bool:
        return op.name in self.quantized and self._all_integer(op) and op.kind in _MOVES

    def _moved(
        self, op: Op, node: str, constants: list[Operand], **attributes: AttributeValue
    ) -> None:
        """A kernel that only moves values, so it works on whatever type they have."""
        if self._moves_integers(op):
            kind = TensorType("uint8", op.shape)
            operands = [self._integer(op.inputs[0]), *constants]
            self.graph.add(node, operands, self._integer(op.name), kind, op.name, **attributes)
        else:
            self._finish(op, node, [self._float(op.inputs[0], op), *constants], **attributes)

    def _pool(self, op: Op) -> None:
        attributes = _pool_attributes(op)
        if op.kind == "max_pool":
            self._moved(op, "MaxPool", [], **attributes)
        elif op.name in self.quantized and self._all_integer(op):
            self._integer_unary(op, **attributes)
        else:
            self._finish(op, "AveragePool", [self._float(op.inputs[0], op)], **attributes)

    def _global_pool(self, op: Op) -> None:
        flat = len(op.shape) == 2
        shape = (*op.shape, 1, 1) if flat else op.shape
        pooled = f"{op.name}.pool"
        if op.name in self.quantized and self._all_integer(op):
            operands: list[Operand] = [self._integer(op.inputs[0]), SCALE, ZERO_U8, SCALE, ZERO_U8]
            kind = TensorType("uint8", shape)
            target = pooled if flat else self._integer(op.name)
            self.graph.add("ms:QLinearGlobalAveragePool", operands, target, kind, op.name)
        elif not flat:
            self._finish(op, "GlobalAveragePool", [self._float(op.inputs[0], op)])
        else:
            source, kind = self._float(op.inputs[0], op), _f32(shape)
            self.graph.add("GlobalAveragePool", [source], pooled, kind, op.name)
            if op.name in self.quantized:
                pooled, kind = f"{pooled}.q", TensorType("uint8", shape)
                operands = [f"{op.name}.pool", SCALE, ZERO_U8]
                self.graph.add("QuantizeLinear", operands, pooled, kind, op.name)
        if flat:
            dtype = "uint8" if op.name in self.quantized else "float32"
            target = self._integer(op.name) if op.name in self.quantized else op.name
            self.graph.add("Flatten", [pooled], target, TensorType(dtype, op.shape), op.name)

    def _mean(self, op: Op) -> None:
        self._reduce(op, "ReduceMean")

    def _view(self, op: Op) -> None:
        if len(op.shape) == 2:
            self._moved(op, "Flatten", [])
            return
        values = (-1, *op.shape[1:])
        self._moved(op, "Reshape", [TensorType("int64", (len(values),), True, values)])

    def _transpose(self, op: Op) -> None:
        perm = op.attribute("perm", ())
        attributes = {"perm": perm} if isinstance(perm, tuple) and perm else {}
        self._moved(op, "Transpose", [], **attributes)

    def _concat(self, op: Op) -> None:
        axis = op.attribute("axis", 1)
        token = self._token(op, axis) if isinstance(axis, int) else None
        if token is not None:
            floats = [self._float(name, op) for name in op.inputs]
            self._finish(op, "Concat", [token, *floats], axis=axis)
        elif op.name in self.quantized and self._all_integer(op):
            operands: list[Operand] = [SCALE, ZERO_U8]
            for name in op.inputs:
                operands += [self._integer(name), SCALE, ZERO_U8]
            kind = TensorType("uint8", op.shape)
            self.graph.add(
                "ms:QLinearConcat", operands, self._integer(op.name), kind, op.name, axis=axis
            )
        else:
            self._finish(op, "Concat", [self._float(name, op) for name in op.inputs], axis=axis)

    def _token(self, op: Op, axis: int) -> str | None:
        """What a concatenation reads besides activations: a parameter, repeated for the batch."""
        axis %= len(op.shape)
        missing = op.shape[axis] - sum(self.by_name[name].shape[axis] for name in op.inputs)
        if axis == 0 or missing <= 0:
            return None
        shape = (*op.shape[:axis], missing, *op.shape[axis + 1 :])
        batch, sizes, token = (self.graph.name(f"{op.name}.{n}") for n in ("n", "sizes", "token"))
        image = next(one.name for one in self.ops if one.kind == "input")
        self.graph.add("Shape", [image], batch, TensorType("int64", (1,)), op.name, end=1, start=0)
        rest: list[Operand] = [TensorType("int64", (1,), True, (size,)) for size in shape[1:]]
        kind = TensorType("int64", (len(shape),))
        self.graph.add("Concat", [batch, *rest], sizes, kind, op.name, axis=0)
        self.graph.add("Expand", [_f32(shape, constant=True), sizes], token, _f32(shape), op.name)
        return token

    def _matmul(self, op: Op) -> None:
        """A product of two activations; numbers that multiply it run inside it."""
        sources = [self._unscaled(name) for name in op.inputs]
        scaled = any(name != source for name, source in zip(op.inputs, sources, strict=True))
        if not scaled and self._all_integer(op):
            integers: list[Operand] = [self._integer(name) for name in op.inputs]
            integers += [SCALE, SCALE, ZERO_U8, ZERO_U8]
            self._finish(op, "ms:MatMulIntegerToFloat", integers)
            return
        operands: list[Operand] = [self._float(name, op) for name in sources]
        tail = self._tail(op, {"mul", "div"})
        end = op
        if tail is not None and _is_factor(tail):
            self.done.add(tail.name)
            end, scaled = tail, True
        if scaled:
            self._finish(end, "ms:FusedMatMul", operands, transBatchA=0, transBatchB=0)
            self._own(end, op)
        else:
            self._finish(op, "MatMul", operands)

    def _unscaled(self, name: str) -> str:
        """What a number is multiplied with that runs inside the product that reads the result."""
        op = self.by_name[name]
        return op.inputs[0] if _is_factor(op) and len(self.readers[name]) == 1 else name

    def _layer_norm(self, op: Op) -> None:
        constant = _f32(op.shape[-1:], constant=True)
        operands: list[Operand] = [self._float(op.inputs[0], op), constant, constant]
        self._finish(op, "LayerNormalization", operands, axis=-1, stash_type=1)

    def _select(self, op: Op) -> None:
        index = op.attribute("index")
        place = TensorType("int64", (), True, (index if isinstance(index, int) else 0,))
        source = self._float(op.inputs[0], op)
        self._finish(op, "Gather", [source, place], axis=op.attribute("axis"))

    def _resize(self, op: Op) -> None:
        size = TensorType("int64", (2,), True, op.shape[2:])
        inputs: list[Operand] = [self._float(op.inputs[0], op), None, None, size]
        self._finish(
            op, "Resize", inputs,
            axes=(2, 3), mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def _other(self, op: Op) -> None:
        """An operation without a known kernel keeps its name; only a fallback can price it."""
        self._finish(op, op.kind, [self._float(name, op) for name in op.inputs])


def _is_factor(op: Op) -> bool:
    """Whether an operation multiplies with, or divides by, one number."""
    alone = len(op.inputs) == 1 and not op.weight_shape and not op.attribute("reversed")
    return op.kind in {"mul", "div"} and alone


def _held(op: Op, result: tuple[int, ...]) -> TensorType:
    """What an operation of two operands reads besides an activation, to give ``result``."""
    held = prod(op.weight_shape) if op.weight_shape else 1
    shapes = [result[start:] for start in range(len(result))]
    shape = next((shape for shape in shapes if prod(shape) == held), ())
    return TensorType(_kind_of(op).dtype, shape, constant=True)


def _kind_of(op: Op) -> TensorType:
    """The type of an operation's output where it is not quantised."""
    return TensorType(str(op.attribute("dtype", "float32")), op.shape)


def _integer_weight(shape: tuple[int, ...]) -> list[Operand]:
    return [
        TensorType("int8", shape, constant=True),
        TensorType("float32", shape[:1], constant=True),
        TensorType("int8", shape[:1], constant=True),
    ]


def _conv_attributes(op: Op) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    groups = op.attribute("groups", 1)
    if isinstance(groups, int) and groups != 1:
        attributes["group"] = groups
    pads = pair(op.attribute("padding", 0), 0)
    if any(pads):
        attributes["pads"] = (*pads, *pads)
    for name, key in (("stride", "strides"), ("dilation", "dilations")):
        value = pair(op.attribute(name, 1))
        if value != (1, 1):
            attributes[key] = value
    return attributes


def _pool_attributes(op: Op) -> dict[str, AttributeValue]:
    kernel = pair(op.attribute("kernel", 2))
    attributes: dict[str, AttributeValue] = {"kernel_shape": kernel}
    pads = pair(op.attribute("padding", 0), 0)
    if any(pads):
        attributes["pads"] = (*pads, *pads)
    stride = pair(op.attribute("stride", kernel))
    if stride != (1, 1):
        attributes["strides"] = stride
    if op.attribute("ceil", 0):
        attributes["ceil_mode"] = 1
    return attributes
