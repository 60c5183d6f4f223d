"""A model of one plain kernel, in the form in which the exporter writes it, and its copies.

Integers go in and come out as they are, so that no conversion is timed that the kernel does not
do. Images whose channels lie last go in and come out that way: the transposes around the kernel
only tell a runtime that works on such images what lies where, and leave nothing to execute there.
Kernels that would still run otherwise alone than in a network (pools, residual additions, changes
of type or layout) have *carriers* beside them, small depthwise convolutions whose time, measured
in the same way, is taken off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autocompress.errors import DeviceError
from autocompress.graph.ops import Attribute, Op
from autocompress.measurement.kernels import PLAIN, KernelSignature, TensorType, domain_of
from autocompress.measurement.synthesis import IR_VERSION, KINDS, OPSET, Writer

#: Operators by kind of operation; any other kind keeps its name.
OPERATORS = {
    "conv": "Conv",
    "linear": "Gemm",
    "embedding": "Gather",
    "matmul": "MatMul",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "concat": "Concat",
    "max_pool": "MaxPool",
    "avg_pool": "AveragePool",
    "global_avg_pool": "GlobalAveragePool",
    "mean": "ReduceMean",
    "flatten": "Flatten",
    "reshape": "Reshape",
    "transpose": "Transpose",
    "resize": "Resize",
    "relu": "Relu",
    "relu6": "Clip",
    "hardtanh": "Clip",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "silu": "Silu",
    "gelu": "Gelu",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "softmax": "Softmax",
    "layer_norm": "LayerNormalization",
    "group_norm": "GroupNormalization",
    "batch_norm": "BatchNormalization",
}
_KINDS = {operator: kind for kind, operator in reversed(OPERATORS.items())}
#: How signatures and operations name the same attribute.
_ATTRIBUTES = {
    "strides": "stride",
    "pads": "padding",
    "dilations": "dilation",
    "group": "groups",
    "kernel_shape": "kernel",
    "axis": "axis",
    "perm": "perm",
}
_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)
_STEP = 0.02
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})


def plain_model(signature: KernelSignature, *, copies: int = 1, seed: int = 0) -> bytes:
    """A serialised model of ``copies`` independent kernels with random constants.

    Raises:
        DeviceError: there is no way to write such a kernel.
    """
    from onnx import helper

    writer = Writer(set(), seed)
    inputs: list[Any] = []
    outputs: list[Any] = []
    for copy in range(copies):
        one = _Kernel(signature, writer, f"k{copy}")
        outputs.append(one.write())
        inputs += one.inputs
    graph = helper.make_graph(writer.nodes, "kernel", inputs, outputs, writer.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def carriers(signature: KernelSignature) -> tuple[KernelSignature, ...]:
    """Kernels that :func:`plain_model` runs besides ``signature``, to be taken off its time."""
    before, after = _carried(signature)
    read = [t for t in signature.inputs if t is not None and not t.constant]
    found = [_carrier(read[place]) for place in before]
    return (*found, *(_carrier(t) for t in signature.outputs if after))


def _carried(signature: KernelSignature) -> tuple[tuple[int, ...], bool]:
    """Which operands come out of a carrier, and whether the result goes into one."""
    operator, attributes = domain_of(signature.op)[1], dict(signature.attributes)
    read = [t for t in signature.inputs if t is not None and not t.constant]
    (result,) = signature.outputs
    image = len(result.shape) == 4
    if operator == "Transpose":
        perm = attributes.get("perm")
        return (0,) if perm == _TO_FIRST else (), perm == _TO_LAST
    if not attributes.get("channels_last"):
        return (), False
    if operator == "Conv":
        residual = len(read) == 2
        return (1,) if residual else (), residual or read[0].dtype != result.dtype
    if operator in _POOLS:
        return (0,), image
    # an integer carrier would take in the operation on two operands
    floats = [p for p, t in enumerate(read) if t.dtype == "float32" and len(t.shape) == 4]
    return tuple(floats) if len(read) > 1 else (0,), image


def _carrier(tensor: TensorType) -> KernelSignature:
    """A depthwise convolution of one pixel on images with their channels last."""
    channels = tensor.shape[-1]
    integer = tensor.dtype == "uint8"
    weight = TensorType("int8" if integer else "float32", (channels, 1, 1, 1), constant=True)
    bias = TensorType("int32" if integer else "float32", (channels,), constant=True)
    group = (("group", channels),) if channels > 1 else ()
    attributes = (("activation", "relu"), ("channels_last", 1), *group)
    return KernelSignature(f"{PLAIN}:Conv", (tensor, weight, bias), (tensor,), attributes)


class _Kernel:
    """Writes one copy of a kernel, with names that begin with ``prefix``."""

    def __init__(self, signature: KernelSignature, writer: Writer, prefix: str) -> None:
        self.signature = signature
        self.writer = writer
        self.prefix = prefix
        self.operator = domain_of(signature.op)[1]
        self.attributes = dict(signature.attributes)
        self.last = bool(self.attributes.get("channels_last"))
        self.operands = [t for t in signature.inputs if t is not None and not t.constant]
        self.before, self.after = _carried(signature)
        self.inputs: list[Any] = []

    def write(self) -> Any:
        """Write it; returns its output."""
        (result,) = self.signature.outputs
        names = [f"{self.prefix}.x{place}" for place in range(len(self.operands))]
        self.inputs = [_info(n, t) for n, t in zip(names, self.operands, strict=True)]
        if self.operator == "Quantize":
            return _info(self._quantize(names[0]), result)
        if self.operator == "Transpose":
            return self._transpose(names[0], result)
        for place, (name, tensor) in enumerate(zip(names, self.operands, strict=True)):
            image = self.last and len(tensor.shape) == 4
            self._enter(name, tensor, image=image)
            if place in self.before:
                self.writer.read[name] = self._carry(name, tensor)
        if self.operator == "Dequantize":
            return _info(self.writer.read[names[0]], result)
        ops = self._ops(result)
        for op in ops:
            write = KINDS.get(op.kind)
            if write is None:
                raise DeviceError(f"no model of one kernel is known for {self.signature.key!r}")
            value = write(self.writer, op, [self.writer.read[name] for name in op.inputs])
            self.writer.store(op, value)
        end = ops[-1].name
        if self.after:
            self._carry(end, result)
            end = f"{end}.carrier"
        return self._leave(end, result, image=self.last and len(result.shape) == 4)

    def _transpose(self, name: str, result: TensorType) -> Any:
        """A change of layout: what enters or leaves a carrier the other way round."""
        tensor = self.operands[0]
        if not (self.before or self.after):
            perm = self.attributes.get("perm")
            if not isinstance(perm, tuple):
                raise DeviceError(f"{self.signature.key!r} transposes without saying how")
            value = self.writer.node("Transpose", [name], f"{name}.out", perm=list(perm))
            return _info(value, result)
        self._enter(name, tensor, image=bool(self.before))
        self._carry(name, tensor if self.before else result)
        return self._leave(f"{name}.carrier", result, image=self.after)

    def _enter(self, name: str, tensor: TensorType, *, image: bool) -> None:
        """Make an input readable: as floats, with channels before the image."""
        value = name
        if tensor.dtype == "uint8":
            shifted = name.endswith(".x0") and "zero_point" in self.attributes
            value = self._dequantize(name, zero=128 if shifted else 0)
            if self.operator == "Gemm":  # integers only count where something is quantised
                scale, zero = self.writer.scales[name]
                stored = self.writer.node("QuantizeLinear", [value, scale, zero], f"{name}.q")
                operands = [stored, scale, zero]
                value = self.writer.node("DequantizeLinear", operands, f"{name}.again")
        if image:
            value = self.writer.node("Transpose", [value], f"{name}.nchw", perm=list(_TO_FIRST))
        self.writer.read[name] = value

    def _carry(self, name: str, tensor: TensorType) -> str:
        """Put a carrier behind the operation ``name``, whose result is of type ``tensor``."""
        carrier = f"{name}.carrier"
        channels = tensor.shape[-1]
        bits = 8 if tensor.dtype == "uint8" else 32
        shape = tuple(tensor.shape[axis] for axis in _TO_FIRST)
        ops = [
            Op(
                f"{carrier}.conv",
                "conv",
                (name,),
                shape,
                attributes=(("bias", 1), ("groups", channels)),
                weight_shape=(channels, 1, 1, 1),
                weight_bits=bits,
                activation_bits=bits,
            ),
            Op(carrier, "relu", (f"{carrier}.conv",), shape),
        ]
        if bits == 8:
            self._mark(carrier)
        for op in ops:
            value = KINDS[op.kind](self.writer, op, [self.writer.read[n] for n in op.inputs])
            self.writer.store(op, value)
        if carrier in self.writer.scales:
            self.writer.scales[name] = self.writer.scales[carrier]
            self.writer.steps[name] = self.writer.steps[carrier]
        return self.writer.read[carrier]

    def _leave(self, name: str, result: TensorType, *, image: bool) -> Any:
        """The output: the integers themselves rather than what they stand for."""
        value = self.writer.read[name]
        if result.dtype == "uint8":
            value = self.writer.nodes.pop().input[0]
        if image:
            value = self.writer.node("Transpose", [value], f"{value}.nhwc", perm=list(_TO_LAST))
        return _info(value, result)

    def _mark(self, name: str) -> None:
        self.writer.quantized = {*self.writer.quantized, name}

    def _quantize(self, value: str) -> str:
        scale = self.writer.constant(f"{value}.scale", np.float32(_STEP))
        zero = self.writer.constant(f"{value}.zero", np.uint8(128))
        return self.writer.node("QuantizeLinear", [value, scale, zero], f"{value}.q")

    def _dequantize(self, value: str, *, zero: int) -> str:
        scale = self.writer.constant(f"{value}.scale", np.float32(_STEP))
        start = self.writer.constant(f"{value}.zero", np.uint8(zero))
        self.writer.scales[value] = (scale, start)
        self.writer.steps[value] = _STEP
        return self.writer.node("DequantizeLinear", [value, scale, start], f"{value}.dq")

    def _ops(self, result: TensorType) -> list[Op]:
        """The kernel's operation, the addition it takes in, and its activations."""
        shape = result.shape
        if self.last and len(shape) == 4:
            shape = tuple(shape[axis] for axis in _TO_FIRST)
        weight = self.signature.weight
        names = [f"{self.prefix}.x{place}" for place in range(len(self.operands))]
        residual = names.pop() if self.operator == "Conv" and len(names) == 2 else None
        bits = 8 if weight is not None and weight.dtype == "int8" else 32
        biased = sum(t is not None and t.constant for t in self.signature.inputs) == 2
        found: dict[str, Attribute] = {"bias": int(biased)}
        for name, value in self.signature.attributes:
            if name == "axis" and self.last and isinstance(value, int):
                found["axis"] = _TO_LAST[value]
            elif name in _ATTRIBUTES:
                found[_ATTRIBUTES[name]] = _attribute(name, value)
        ops = [
            Op(
                self.prefix,
                _KINDS.get(self.operator, self.operator),
                tuple(names),
                shape,
                attributes=tuple(sorted(found.items())),
                weight_shape=() if weight is None else weight.shape,
                weight_bits=bits,
                activation_bits=bits,
            )
        ]
        if residual is not None:
            if bits == 8:
                self._mark(self.prefix)
            ops.append(Op(f"{self.prefix}.add", "add", (self.prefix, residual), shape))
        for kind in str(self.attributes.get("activation", "")).split("+"):
            if kind:
                ops.append(Op(f"{self.prefix}.{kind}", kind, (ops[-1].name,), shape))
        alike = all(t.dtype == "uint8" for t in self.operands)
        if result.dtype == "uint8" or (self.after and bits == 8 and alike):
            self._mark(ops[-1].name)  # rounded as integers even where it is left as floats
        return ops


def _attribute(name: str, value: Any) -> Attribute:
    return tuple(value[:2]) if name == "pads" else value


def _info(name: str, tensor: TensorType) -> Any:
    from onnx import helper

    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(name, dtype, tensor.shape)
