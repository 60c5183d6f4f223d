"""The operations of an ONNX file, as plainly as a device without a runtime of ours needs them.

Shapes come from ONNX's own shape inference; the graph is read as it is stored, apart from what no
runtime executes by itself: QuantizeLinear and DequantizeLinear say in which bits the layer between
them computes, batch norm and bias additions belong to the layer before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.errors import RequestError
from autocompress.graph.ops import Attribute, Op
from autocompress.runtimes.base import TensorSpec
from autocompress.runtimes.common import example_shape

if TYPE_CHECKING:
    import onnx

_SAME = {
    "Relu": "relu", "Clip": "relu6", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid",
    "Sigmoid": "sigmoid", "QuickGelu": "silu", "Swish": "silu", "Gelu": "gelu", "Tanh": "tanh",
    "LeakyRelu": "leaky_relu", "Elu": "elu", "Softmax": "softmax", "Sub": "sub", "Mul": "mul",
    "Div": "div", "Concat": "concat", "MaxPool": "max_pool", "AveragePool": "avg_pool",
    "GlobalAveragePool": "global_avg_pool", "Flatten": "flatten", "Reshape": "reshape",
    "Squeeze": "reshape", "Unsqueeze": "reshape", "Transpose": "transpose",
    "LayerNormalization": "layer_norm", "ReduceMean": "mean", "Add": "add", "Sum": "add",
    "Resize": "resize",
}  # fmt: skip
#: Operators whose result is their first input, as far as time is concerned.
_PASSING = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Dropout"})
#: Operators through which a stored weight is followed: also scales and look-ups in a codebook.
_CONVERTING = _PASSING | {"Transpose", "Mul", "Gather"}
#: Operators that compute shapes.
_SHAPES = frozenset({"Shape", "Constant", "ConstantOfShape", "Size", "Range"})
_CONVS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger"})
_LINEAR = frozenset({"Gemm", "FusedGemm", "QGemm"})
_MATMULS = frozenset({"MatMul", "QLinearMatMul", "MatMulInteger"})
#: Where the weight stands among the inputs of an operator, where that is not second.
_WEIGHT_AT = {"QLinearConv": 3, "QGemm": 3, "QLinearMatMul": 3}
#: Name of the operation that ends the graph; no tensor can be called like it.
_OUTPUT = "<output>"
_BITS = {"INT8": 8, "UINT8": 8, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2, "FLOAT16": 32}


def read_operations(path: str | Path) -> tuple[Op, ...]:
    """The operations of an ONNX file, batch 1, in execution order.

    Args:
        path: the file; weights outside it are not opened, their shapes are enough.

    Raises:
        RequestError: it is no ONNX file, its shapes are not fixed, or a weight has no known shape.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
        _fix_sizes(model.graph, {prop.key: prop.value for prop in model.metadata_props})
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the parser's own errors share no base
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"cannot read {path} as ONNX: {error}") from error
    return _Reader(model.graph, str(path)).read()


def _fix_sizes(graph: onnx.GraphProto, metadata: Mapping[str, str]) -> None:
    """Give every input the shape of the file's example, or else a first dimension of 1.

    What is open then is refused.
    """
    stored = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in stored or not dims:
            continue
        spec = TensorSpec(value.name, "", tuple(d.dim_value or None for d in dims))
        for dim, size in zip(dims, example_shape(metadata, spec) or (1,), strict=False):
            dim.ClearField("dim_param")
            dim.dim_value = size
        if any(d.dim_value < 1 for d in dims):
            raise RequestError(
                f"input {value.name!r} has dimensions that are not fixed; export it with fixed "
                "shapes (only the batch may be left open)"
            )
    for value in (*graph.output, *graph.value_info):
        value.type.tensor_type.ClearField("shape")


class _Reader:
    def __init__(self, graph: onnx.GraphProto, where: str) -> None:
        import onnx

        self.graph = graph
        self.where = where
        self.stored = {t.name: t for t in graph.initializer}
        self.dtype = {
            t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in graph.initializer
        }
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        self.shapes: dict[str, tuple[int, ...]] = {}
        for value in (*graph.input, *graph.output, *graph.value_info):
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(d.dim_value for d in dims)
        self.made: dict[str, str] = {}  # tensor -> operation
        self.integer: set[str] = set()  # tensors that came out of a DequantizeLinear
        self.steps: set[str] = set()  # tensors of the steps of rows that were looked up
        self.ops: dict[str, Op] = {}

    def read(self) -> tuple[Op, ...]:
        for value in self.graph.input:
            if value.name not in self.stored:
                self._add(value.name, "input", (), value.name)
        for node in self.graph.node:
            self._node(node)
        last = tuple(self.made[o.name] for o in self.graph.output if o.name in self.made)
        if not last:
            raise RequestError(f"{self.where}: no output of the graph depends on its inputs")
        final = self.ops[last[0]]
        return (*self.ops.values(), Op(_OUTPUT, "output", last, final.shape))

    def _node(self, node: onnx.NodeProto) -> None:
        sources = [name for name in node.input if name in self.made]
        if node.op_type in _SHAPES or not sources:
            return
        weight = self._weight(node)
        if node.op_type == "Gather" and node.input[1] in self.made:
            self._look_up(node)
        elif node.op_type in _PASSING or self._belongs(node, sources):
            self.made[node.output[0]] = self.made[sources[0]]
            if node.op_type == "DequantizeLinear":
                self.integer.add(node.output[0])
        elif node.op_type in _CONVS and weight:
            self._layer(node, "conv", sources[:1], weight, _conv_attributes(node))
        elif node.op_type in _LINEAR and weight:
            shape = self._stored_shape(weight)
            turned = shape if _attribute(node, "transB", 0) else shape[::-1]
            self._layer(node, "linear", sources[:1], weight, {}, turned)
        elif node.op_type in _MATMULS and weight:
            shape = self._stored_shape(weight)
            self._layer(node, "linear", sources[:1], weight, {}, shape[::-1])
        else:
            kind = _SAME.get(node.op_type.removeprefix("QLinear"), f"onnx.{node.op_type}")
            kind = "matmul" if node.op_type in _MATMULS else kind
            if kind == "mean" and len(self._shape(node.input[0])) == 4:
                kind = "global_avg_pool"
            names = tuple(self.made[name] for name in sources)
            self._add(node.output[0], kind, names, node.output[0], _pool_attributes(node, kind))

    def _look_up(self, node: onnx.NodeProto) -> None:
        """Rows of a stored table are an embedding; a codebook and steps belong to it."""
        source, table = self.made[node.input[1]], self._weight_of(str(node.input[0]))
        shape = () if table is None else self._stored_shape(table)
        if table is None or len(shape) != 2 or shape[1] == 1:
            self.made[node.output[0]] = source
            self.steps.update(node.output if len(shape) == 2 else ())
            return
        bits = {"FLOAT16": 16} | {name: b for name, b in _BITS.items() if b < 32}
        self._add(
            node.output[0], "embedding", (source,), node.output[0], {"bias": 0},
            layer=node.name or node.output[0], weight_shape=shape,
            weight_bits=bits.get(self.dtype[table], 32),
        )  # fmt: skip

    def _belongs(self, node: onnx.NodeProto, sources: Sequence[str]) -> bool:
        """Whether it runs inside the layer before it: batch norm, a bias, or the steps of rows."""
        before = self.ops[self.made[sources[0]]]
        if node.op_type == "Mul" and before.kind == "embedding":
            return node.input[1] in self.steps
        if node.op_type == "BatchNormalization":
            return before.kind == "conv"
        biased = node.op_type == "Add" and len(sources) == 1 and before.kind == "linear"
        return biased and self.readers.get(sources[0], 0) == 1

    def _weight(self, node: onnx.NodeProto) -> str | None:
        """The stored tensor behind the weight of a layer, through what converts it."""
        place = _WEIGHT_AT.get(node.op_type, 1)
        if len(node.input) <= place:
            return None
        return self._weight_of(str(node.input[place]))

    def _weight_of(self, name: str) -> str | None:
        while name not in self.stored:
            maker = self.maker.get(name)
            if maker is None or not maker.input or maker.op_type not in _CONVERTING:
                return None
            name = _converted(maker)
        return name

    def _layer(
        self,
        node: onnx.NodeProto,
        kind: str,
        sources: Sequence[str],
        weight: str,
        attributes: Mapping[str, Attribute],
        shape: tuple[int, ...] = (),
    ) -> None:
        integer = sources[0] in self.integer or node.op_type.startswith("Q")
        integer = integer or node.op_type.endswith("Integer")
        place = _WEIGHT_AT.get(node.op_type, 1)
        name = node.input[place]
        bits = _BITS.get(self.dtype[weight], 32)
        quantized = name != weight and any(
            maker.op_type == "QuantizeLinear" for maker in self._chain(name)
        )
        biased = len(node.input) > {"QLinearConv": 8, "QGemm": 6}.get(node.op_type, 2)
        self._add(
            node.output[0],
            kind,
            tuple(self.made[s] for s in sources),
            node.output[0],
            {**attributes, "bias": int(biased)},
            layer=node.name or node.output[0],
            weight_shape=shape or self._stored_shape(weight),
            weight_bits=8 if quantized else bits,
            activation_bits=8 if integer else 32,
        )

    def _chain(self, name: str) -> list[onnx.NodeProto]:
        found = []
        while name not in self.stored and name in self.maker:
            found.append(self.maker[name])
            name = _converted(self.maker[name])
        return found

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.stored[name].dims)

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name, ())
        return shape if all(n > 0 for n in shape) else ()

    def _add(
        self,
        name: str,
        kind: str,
        inputs: tuple[str, ...],
        tensor: str,
        attributes: Mapping[str, Attribute] | None = None,
        **more: Any,
    ) -> None:
        shape = self._shape(tensor)
        if not shape:
            raise RequestError(
                f"{self.where}: the shape of {tensor!r} does not follow from the inputs' shapes; "
                "export the model with fixed shapes"
            )
        pairs = tuple(sorted((attributes or {}).items()))
        self.ops[name] = Op(name, kind, inputs, shape, attributes=pairs, **more)
        self.made[tensor] = name


def _converted(maker: onnx.NodeProto) -> str:
    """What a node converts: of a look-up in a codebook, the indices."""
    return str(maker.input[1 if maker.op_type == "Gather" else 0])


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _window(node: onnx.NodeProto) -> dict[str, Attribute]:
    pads = tuple(_attribute(node, "pads", (0, 0, 0, 0)))
    return {
        "stride": tuple(_attribute(node, "strides", (1, 1))),
        "padding": pads[: len(pads) // 2],
    }


def _conv_attributes(node: onnx.NodeProto) -> dict[str, Attribute]:
    return {
        **_window(node),
        "dilation": tuple(_attribute(node, "dilations", (1, 1))),
        "groups": int(_attribute(node, "group", 1)),
    }


def _pool_attributes(node: onnx.NodeProto, kind: str) -> dict[str, Attribute]:
    if kind in {"max_pool", "avg_pool"}:
        return {**_window(node), "kernel": tuple(_attribute(node, "kernel_shape", (1, 1)))}
    if kind in {"concat", "softmax"}:
        return {"axis": int(_attribute(node, "axis", 1 if kind == "concat" else -1))}
    perm = _attribute(node, "perm", ())
    return {"dims": tuple(perm)} if kind == "transpose" and perm else {}
