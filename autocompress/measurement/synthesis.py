"""An ONNX file with random weights from a candidate's operations: for pricing, not for use.

It has the form that the exporter writes (QDQ around uint8 tensors, int8 weights per output
channel), so that the runtime treats it as it treats the real file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import RequestError
from autocompress.graph.ops import FUSED_TAILS, PASS_THROUGH, Op, reduced_axes
from autocompress.graph.precision import fused_tails

OPSET = 21
IR_VERSION = 10
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "gelu": "Gelu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "logical_not": "Not",
}
#: ONNX's number of 32-bit floats.
_FLOAT = 1
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "matmul": "MatMul"}


def pair(value: Any, default: int = 1) -> tuple[int, int]:
    """A spatial attribute as two numbers."""
    if value is None or value == ():
        return default, default
    if isinstance(value, int):
        return value, value
    numbers = tuple(int(v) for v in value)
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def guarded(op: Op, last: Op, quantized: Collection[str]) -> bool:
    """Whether a float layer lies between integer tensors, so that it must be kept float.

    The runtime would turn it into an integer layer when it loads the file; the exporter prevents
    that by a LeakyRelu behind it, which is fused into the layer.

    Args:
        op: the layer.
        last: the layer itself or the ReLU-like operation that follows it alone.
        quantized: names of the operations whose output tensor is stored as uint8.
    """
    return (
        op.kind in {"conv", "linear"}
        and not op.is_integer_layer
        and op.inputs[0] in quantized
        and last.name in quantized
        and (last is op or last.kind in FUSED_TAILS)
    )


def supported(op: Op) -> bool:
    """Whether :func:`synthesise` knows the operation."""
    return op.kind in KINDS or op.kind in {"input", "output"}


def _quantisation(op: Op) -> tuple[int, float]:
    """A zero point and a scale that clip as the operation does."""
    low = op.attribute("low", -1.0)
    if op.kind in {"relu", "relu6"} or (isinstance(low, int | float) and low >= 0):
        return 0, 0.02
    return 128, 1 / 128 if op.kind == "hardtanh" else 0.02


class Writer:
    """Collects nodes and constants of one graph.

    Attributes:
        nodes: ONNX nodes in order.
        constants: ONNX initialisers.
        quantized: names of the operations whose output tensor is stored as uint8.
        read: name of the value that readers of an operation's output get.
        scales: names of scale and zero point of each quantised tensor.
        steps: value of each scale.
    """

    def __init__(self, quantized: Collection[str], seed: int) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.quantized = quantized
        self.rng = np.random.default_rng(seed)
        self.read: dict[str, str] = {}
        self.scales: dict[str, tuple[str, str]] = {}
        self.steps: dict[str, float] = {}

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Store a constant; returns its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node; returns the name of its result."""
        from onnx import helper

        self.nodes.append(
            helper.make_node(
                op_type, list(inputs), [output], name=f"{output}.{op_type}", **attributes
            )
        )
        return output

    def normal(self, shape: tuple[int, ...], scale: float) -> npt.NDArray[np.float32]:
        """Normally distributed numbers."""
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def store(self, op: Op, value: str) -> None:
        """Make ``value`` the output of ``op``; quantised where the tensor is stored as uint8."""
        if op.name not in self.quantized:
            self.read[op.name] = value
            return
        start, step = _quantisation(op)
        pooled = f"{op.name}.pool"
        if pooled in self.scales:  # quantised already, in another shape
            scale, zero = self.scales[pooled]
            step = self.steps[pooled]
        elif op.kind in PASS_THROUGH and op.inputs[0] in self.scales:
            scale, zero = self.scales[op.inputs[0]]
            step = self.steps[op.inputs[0]]
        else:
            scale = self.constant(f"{op.name}.scale", np.float32(step))
            zero = self.constant(f"{op.name}.zero", np.uint8(start))
        self.scales[op.name] = (scale, zero)
        self.steps[op.name] = step
        stored = self.node("QuantizeLinear", [value, scale, zero], f"{op.name}.q")
        self.read[op.name] = self.node("DequantizeLinear", [stored, scale, zero], f"{op.name}.dq")

    def weight(self, op: Op, fan_in: int) -> list[str]:
        """The weight and bias operands of a layer."""
        weight = self.normal(op.weight_shape, fan_in**-0.5)
        bias = self.normal(op.weight_shape[:1], 0.1) if op.attribute("bias", 1) else None
        if not op.is_integer_layer:
            operands = [self.constant(f"{op.name}.weight", weight)]
            return operands + ([self.constant(f"{op.name}.bias", bias)] if bias is not None else [])
        limit = np.abs(weight).reshape(len(weight), -1).max(axis=1).clip(1e-6)
        scale = (limit / 127).astype(np.float32)
        shaped = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
        integers = np.clip(np.round(weight / shaped), -127, 127).astype(np.int8)
        zero = op.kind == "linear"  # a Gemm without a zero point stays float
        operands = [self.dequantized(f"{op.name}.weight", integers, scale, zero=zero)]
        if bias is not None:
            steps = (scale * np.float32(self.steps[op.inputs[0]])).astype(np.float32)
            operands.append(
                self.dequantized(f"{op.name}.bias", np.round(bias / steps).astype(np.int32), steps)
            )
        return operands

    def dequantized(
        self,
        name: str,
        integers: npt.NDArray[Any],
        scale: npt.NDArray[np.float32],
        *,
        zero: bool = False,
    ) -> str:
        """Constant integers, converted back to floats channel by channel."""
        operands = [self.constant(f"{name}.int", integers), self.constant(f"{name}.scale", scale)]
        if zero:
            operands.append(self.constant(f"{name}.zero", np.zeros(scale.shape, integers.dtype)))
        return self.node("DequantizeLinear", operands, f"{name}.dq", axis=0)


def _conv(writer: Writer, op: Op, inputs: list[str]) -> str:
    fan_in = int(np.prod(op.weight_shape[1:]))
    pads = pair(op.attribute("padding", 0), 0)
    return writer.node(
        "Conv",
        inputs + writer.weight(op, fan_in),
        f"{op.name}.out",
        kernel_shape=list(op.weight_shape[2:]),
        strides=list(pair(op.attribute("stride", 1))),
        dilations=list(pair(op.attribute("dilation", 1))),
        pads=[*pads, *pads],
        group=int(op.attribute("groups", 1)),  # type: ignore[arg-type]
    )


def _linear(writer: Writer, op: Op, inputs: list[str]) -> str:
    operands = writer.weight(op, op.weight_shape[1])
    if len(op.shape) == 2:
        return writer.node("Gemm", inputs + operands, f"{op.name}.out", transB=1)
    flat = writer.node("Transpose", operands[:1], f"{op.name}.wt", perm=[1, 0])
    product = writer.node("MatMul", [*inputs, flat], f"{op.name}.mm")
    if len(operands) == 1:
        return product
    return writer.node("Add", [product, operands[1]], f"{op.name}.out")


def _clip(writer: Writer, op: Op, inputs: list[str]) -> str:
    low, high = (0.0, 6.0) if op.kind == "relu6" else (-1.0, 1.0)
    bounds = (op.attribute("low", low), op.attribute("high", high))
    limits = [
        writer.constant(f"{op.name}.{name}", np.array(bound, np.float32))
        for name, bound in zip(("low", "high"), bounds, strict=True)
    ]
    return writer.node("Clip", inputs + limits, f"{op.name}.out")


def _silu(writer: Writer, op: Op, inputs: list[str]) -> str:
    gate = writer.node("Sigmoid", inputs, f"{op.name}.gate")
    return writer.node("Mul", [*inputs, gate], f"{op.name}.out")


def _pool(writer: Writer, op: Op, inputs: list[str]) -> str:
    kernel = pair(op.attribute("kernel", 2))
    pads = pair(op.attribute("padding", 0), 0)
    return writer.node(
        "MaxPool" if op.kind == "max_pool" else "AveragePool",
        inputs,
        f"{op.name}.out",
        kernel_shape=list(kernel),
        strides=list(pair(op.attribute("stride", kernel))),
        pads=[*pads, *pads],
        **({"ceil_mode": 1} if op.attribute("ceil", 0) else {}),
    )


def _global_pool(writer: Writer, op: Op, inputs: list[str]) -> str:
    pooled = writer.node("GlobalAveragePool", inputs, f"{op.name}.pool")
    if len(op.shape) == 4:
        return pooled
    if op.name in writer.quantized:  # quantised where it is pooled, not where it is flattened
        whole = replace(op, name=f"{op.name}.pool", kind="relu")
        writer.quantized = {*writer.quantized, whole.name}
        writer.store(whole, pooled)
        pooled = writer.read[whole.name]
    return writer.node("Flatten", [pooled], f"{op.name}.out")


def _reshape(writer: Writer, op: Op, inputs: list[str]) -> str:
    if len(op.shape) == 2:
        return writer.node("Flatten", inputs, f"{op.name}.out")
    shape = writer.constant(f"{op.name}.shape", np.array((-1, *op.shape[1:]), np.int64))
    return writer.node("Reshape", [*inputs, shape], f"{op.name}.out")


def _transpose(writer: Writer, op: Op, inputs: list[str]) -> str:
    perm = op.attribute("perm", ())
    if not isinstance(perm, tuple) or len(perm) != len(op.shape):
        raise RequestError(f"operation {op.name!r} transposes without saying how ({perm!r})")
    return writer.node("Transpose", inputs, f"{op.name}.out", perm=list(perm))


def _softmax(writer: Writer, op: Op, inputs: list[str]) -> str:
    return writer.node("Softmax", inputs, f"{op.name}.out", axis=op.attribute("axis", -1))


def _concat(writer: Writer, op: Op, inputs: list[str]) -> str:
    return writer.node("Concat", inputs, f"{op.name}.out", axis=op.attribute("axis", 1))


def _embedding(writer: Writer, op: Op, inputs: list[str]) -> str:
    rows, width = op.weight_shape
    if not inputs:  # places of a row
        places = np.arange(op.shape[-2], dtype=np.int64) % rows
        ids = np.broadcast_to(places, op.shape[:-1])
        inputs = [writer.constant(f"{op.name}.ids", np.ascontiguousarray(ids))]
    if op.weight_bits == 32 and not op.codebook:
        table = writer.constant(f"{op.name}.table", writer.normal(op.weight_shape, width**-0.5))
        return writer.node("Gather", [table, *inputs], f"{op.name}.out")
    codes = writer.rng.integers(-127, 128, op.weight_shape).astype(np.int8)
    table = writer.constant(f"{op.name}.codes", codes)
    steps = writer.constant(f"{op.name}.steps", np.full((rows, 1), 0.01, np.float32))
    found = writer.node("Gather", [table, *inputs], f"{op.name}.rows")
    floats = writer.node("Cast", [found], f"{op.name}.floats", to=_FLOAT)
    scales = writer.node("Gather", [steps, *inputs], f"{op.name}.scales")
    return writer.node("Mul", [floats, scales], f"{op.name}.out")


def _layer_norm(writer: Writer, op: Op, inputs: list[str]) -> str:
    width = op.shape[-1:]
    scale = writer.constant(f"{op.name}.weight", np.ones(width, np.float32))
    shift = writer.constant(f"{op.name}.bias", np.zeros(width, np.float32))
    return writer.node("LayerNormalization", [*inputs, scale, shift], f"{op.name}.out", axis=-1)


def _attention(writer: Writer, op: Op, inputs: list[str]) -> str:
    query, key, value, *mask = inputs
    rank = len(op.shape)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    factor = writer.constant(f"{op.name}.factor", np.float32(op.shape[-1] ** -0.5))
    scaled = writer.node("Mul", [query, factor], f"{op.name}.scaled")
    turned = writer.node("Transpose", [key], f"{op.name}.turned", perm=perm)
    scores = writer.node("MatMul", [scaled, turned], f"{op.name}.scores")
    if op.weight_shape and not mask:  # a bias that is learned, or held with the weights
        mask = [writer.constant(f"{op.name}.bias", writer.normal((1,), 0.1))]
    if mask:
        scores = writer.node("Add", [scores, mask[0]], f"{op.name}.masked")
    weights = writer.node("Softmax", [scores], f"{op.name}.weights", axis=rank - 1)
    return writer.node("MatMul", [weights, value], f"{op.name}.out")


def _compare(writer: Writer, op: Op, inputs: list[str]) -> str:
    operands = list(inputs)
    if len(operands) == 1:
        number = np.array(op.attribute("number"), str(op.attribute("operand", "float32")))
        operands.append(writer.constant(f"{op.name}.number", number))
    node = {"greater": "Greater", "less": "Less"}.get(op.kind, "Equal")
    found = writer.node(node, operands, f"{op.name}.found")
    return found if op.kind != "not_equal" else writer.node("Not", [found], f"{op.name}.out")


def _masked_fill(writer: Writer, op: Op, inputs: list[str]) -> str:
    value, mask = inputs
    filler = writer.constant(f"{op.name}.filler", np.float32(-1e4))
    return writer.node("Where", [mask, filler, value], f"{op.name}.out")


def _cast(writer: Writer, op: Op, inputs: list[str]) -> str:
    from onnx import helper

    to = helper.np_dtype_to_tensor_dtype(np.dtype(str(op.attribute("dtype", "float32"))))
    return writer.node("Cast", inputs, f"{op.name}.out", to=int(to))


def _clamp(writer: Writer, op: Op, inputs: list[str]) -> str:
    given, dtype = dict(op.attributes), str(op.attribute("dtype", "float32"))
    bounds = [
        writer.constant(f"{op.name}.{name}", np.array(given[name], dtype)) if name in given else ""
        for name in ("low", "high")
    ]
    return writer.node("Clip", [*inputs, *bounds], f"{op.name}.out")


def _reduce(writer: Writer, op: Op, inputs: list[str]) -> str:
    found = reduced_axes(op, len(op.shape) + (not op.attribute("keepdim", 0)))
    axes = writer.constant(f"{op.name}.axes", np.array(found, np.int64))
    keep = int(op.attribute("keepdim", 0))  # type: ignore[arg-type]
    node = "ReduceSum" if op.kind == "sum" else "ReduceMean"
    return writer.node(node, [*inputs, axes], f"{op.name}.out", keepdims=keep)


def _resize(writer: Writer, op: Op, inputs: list[str]) -> str:
    size = writer.constant(f"{op.name}.size", np.array(op.shape[2:], np.int64))
    return writer.node(
        "Resize", [*inputs, "", "", size], f"{op.name}.out",
        axes=[2, 3], mode="linear", coordinate_transformation_mode="half_pixel",
    )  # fmt: skip


def _unary(writer: Writer, op: Op, inputs: list[str]) -> str:
    return writer.node(_UNARY[op.kind], inputs, f"{op.name}.out")


def _binary(writer: Writer, op: Op, inputs: list[str]) -> str:
    operands = list(inputs)
    if len(operands) < 2 and op.weight_shape:  # such as a table of positions
        held = writer.normal(op.shape[1:], 0.1)
        operands.append(writer.constant(f"{op.name}.held", held))
    if len(operands) < 2:
        number = np.array(1.5, str(op.attribute("dtype", "float32")))
        operands.append(writer.constant(f"{op.name}.scalar", number))
    if len(inputs) == 1 and op.attribute("reversed"):
        operands.reverse()
    return writer.node(_BINARY[op.kind], operands, f"{op.name}.out")


#: How each kind of operation is written, given its operands; returns the name of its result.
KINDS = {
    "conv": _conv,
    "linear": _linear,
    "relu6": _clip,
    "hardtanh": _clip,
    "silu": _silu,
    "max_pool": _pool,
    "avg_pool": _pool,
    "global_avg_pool": _global_pool,
    "flatten": _reshape,
    "reshape": _reshape,
    "transpose": _transpose,
    "softmax": _softmax,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "attention": _attention,
    "equal": _compare,
    "not_equal": _compare,
    "greater": _compare,
    "less": _compare,
    "masked_fill": _masked_fill,
    "cast": _cast,
    "clamp": _clamp,
    "sum": _reduce,
    "mean": _reduce,
    "concat": _concat,
    "resize": _resize,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
}


def synthesise(ops: Sequence[Op], quantized: Collection[str], *, seed: int = 0) -> bytes:
    """A serialised ONNX model that computes ``ops`` with random weights.

    Args:
        ops: a candidate's operations in execution order.
        quantized: names of the operations whose output tensor is stored as uint8.
        seed: of the weights.

    Raises:
        RequestError: an operation has no ONNX form here.
    """
    import onnx
    from onnx import TensorProto, helper

    by_name = {op.name: op for op in ops}
    tails = {name: by_name[end] for name, end in fused_tails(ops).items()}
    guards = {op.name for op in ops if guarded(op, tails[op.name], quantized)}
    writer = Writer(quantized, seed)
    shapes = {op.name: op.shape for op in ops}
    inputs: list[Any] = []
    outputs: list[Any] = []
    for op in ops:
        if op.is_folded:
            continue
        if not supported(op):
            raise RequestError(f"operation {op.name!r} of kind {op.kind!r} cannot be synthesised")
        if op.kind == "input":
            shape: list[str | int | None] = ["batch", *op.shape[1:]]
            dtype = np.dtype(str(op.attribute("dtype", "float32")))
            kind = helper.np_dtype_to_tensor_dtype(dtype)
            inputs.append(helper.make_tensor_value_info(op.name, kind, shape))
            writer.store(op, op.name)
        elif op.kind == "output":
            outputs.extend(
                helper.make_tensor_value_info(
                    writer.read[name], TensorProto.FLOAT, ["batch", *shapes[name][1:]]
                )
                for name in op.inputs
            )
        else:
            value = KINDS[op.kind](writer, op, [writer.read[name] for name in op.inputs])
            if op.name in guards:
                slope = 0.0 if tails[op.name].kind == "relu" else 1.0
                value = writer.node("LeakyRelu", [value], f"{op.name}.guard", alpha=slope)
            writer.store(op, value)
    graph = helper.make_graph(writer.nodes, "synthetic", inputs, outputs, writer.constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
