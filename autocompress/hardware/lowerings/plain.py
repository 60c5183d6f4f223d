"""One kernel per operation, with what fuses into it: for runtimes without a layout of their own.

Each kernel is an operation of the deployed graph with the activation (and, by some rules, the
residual addition) behind it, on float32 tensors or on uint8 tensors with int8 weights. Values are
converted where an integer kernel reads a float tensor and the other way round. Layouts are left
out: a kernel's time includes whatever reordering the runtime does inside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autocompress.graph.ops import FUSED_TAILS, LAYER_KINDS, Op
from autocompress.hardware.lowerings.registry import Lowering
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.synthesis import pair
from autocompress.runtimes.base import AttributeValue

#: In front of every operator of these kernels.
PREFIX = "plain:"
#: Operators by kind of operation; any other kind keeps its name.
OPERATORS = {
    "conv": "Conv",
    "linear": "Gemm",
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
#: Kinds of activations, element by element.
ACTIVATIONS = FUSED_TAILS | {
    "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "tanh", "leaky_relu", "elu",
}  # fmt: skip
#: Kinds that can work on integers when all their inputs and their result are stored as such.
_INTEGER_FORMS = ACTIVATIONS | {
    "add", "sub", "mul", "concat", "max_pool", "avg_pool", "global_avg_pool",
    "flatten", "reshape", "transpose",
}  # fmt: skip
_VIEWS = frozenset({"flatten", "reshape"})


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a runtime runs inside a kernel.

    Attributes:
        float_tails: kinds of activations that float convolutions and linear layers take in.
        residual: whether a convolution takes in the addition behind it.
        converts: whether a kernel converts its result by itself to the type that it is stored in,
            or that all its readers want; otherwise a kernel of its own does.
    """

    float_tails: frozenset[str] = FUSED_TAILS
    residual: bool = False
    converts: bool = False


#: Only what every runtime fuses: activations like ReLU.
PLAIN = Fusion()


def lowering(fusion: Fusion) -> Lowering:
    """The rules as a function of operations and of the names of the quantised ones."""

    def lower_by_op(
        ops: Sequence[Op], quantized: Collection[str]
    ) -> tuple[tuple[str, KernelSignature], ...]:
        return _Walk(ops, quantized, fusion).run()

    return lower_by_op


@dataclass(slots=True)
class _Fused:
    """An operation with what runs inside its kernel.

    Attributes:
        first: the operation itself.
        last: the operation whose tensor the kernel writes.
        place: the operation at whose turn it runs.
        activations: kinds taken in, in order.
        residual: name of the tensor that is added, or empty.
    """

    first: Op
    last: Op
    place: Op
    activations: list[str]
    residual: str = ""


class _Walk:
    def __init__(self, ops: Sequence[Op], quantized: Collection[str], fusion: Fusion) -> None:
        self.ops = ops
        self.quantized = frozenset(quantized)
        self.fusion = fusion
        self.by_name = {op.name: op for op in ops}
        self.order = {op.name: number for number, op in enumerate(ops)}
        self.readers: dict[str, list[Op]] = {op.name: [] for op in ops}
        for op in ops:
            for name in op.inputs:
                self.readers[name].append(op)
        self.inside: dict[str, _Fused] = {}  # operation -> the kernel that takes it in
        self.kernels: list[tuple[str, KernelSignature]] = []

    def run(self) -> tuple[tuple[str, KernelSignature], ...]:
        fused: dict[str, list[_Fused]] = {}
        for op in self.ops:
            if op.name not in self.inside:
                one = self._fuse(op)
                fused.setdefault(one.place.name, []).append(one)
        for op in self.ops:
            for one in fused.get(op.name, ()):
                self._emit(one)
        return tuple(self.kernels)

    # -- what runs inside one kernel --------------------------------------------------------------

    def _fuse(self, op: Op) -> _Fused:
        one = _Fused(op, op, op, [])
        self.inside[op.name] = one
        while (reader := self._alone(one.last)) is not None:
            if reader.kind in self._tails(one) and one.last.name not in self.quantized:
                one.activations.append(reader.kind)
            elif self._adds(one, reader):
                one.residual = next(n for n in reader.inputs if n != one.last.name)
                one.place = reader
            else:
                break
            one.last = reader
            self.inside[reader.name] = one
        return one

    def _alone(self, op: Op) -> Op | None:
        """The only reader of a tensor."""
        readers = self.readers[op.name]
        return readers[0] if len(readers) == 1 else None

    def _tails(self, one: _Fused) -> frozenset[str]:
        if one.activations:
            return frozenset()
        if one.first.kind in LAYER_KINDS and not one.first.is_integer_layer:
            return self.fusion.float_tails
        fusable = one.first.kind in LAYER_KINDS or one.first.kind in {"add", "avg_pool", "concat"}
        return FUSED_TAILS if fusable or one.first.kind == "global_avg_pool" else frozenset()

    def _adds(self, one: _Fused, add: Op) -> bool:
        """Whether ``add`` runs inside a convolution, as the second operand's own kernel."""
        if not self.fusion.residual or add.kind != "add" or one.first.kind != "conv":
            return False
        if one.activations or one.residual or len(add.inputs) != 2 or add.name in self.inside:
            return False
        if any(self.by_name[name].shape != add.shape for name in add.inputs):
            return False
        stored = [name in self.quantized for name in add.inputs]
        if all(stored):
            end = self._alone(add)
            ended = end is not None and end.kind in FUSED_TAILS and end.name in self.quantized
            return one.first.is_integer_layer and (ended or add.name in self.quantized)
        return not any(stored) and not one.first.is_integer_layer

    # -- one kernel -------------------------------------------------------------------------------

    def _emit(self, one: _Fused) -> None:
        op = one.first
        if op.kind == "output":
            for name in op.inputs:
                self._read(name, op, integer=False)
            return
        if op.kind == "input":
            self._store(op, op)
            return
        integer = self._integer(one)
        inputs = [self._read(name, op, integer=integer) for name in op.inputs]
        inputs += self._constants(op, integer)
        if one.residual:
            inputs.append(self._read(one.residual, op, integer=integer))
        attributes = _attributes(op)
        if one.activations:
            attributes["activation"] = "+".join(one.activations)
        stored = self._type(one.last) == "uint8"
        made = "uint8" if stored and (integer or self.fusion.converts) else "float32"
        self._add(op, OPERATORS.get(op.kind, op.kind), inputs, made, one.last.shape, attributes)
        if stored and made == "float32":
            self._store(one.last, op)

    def _integer(self, one: _Fused) -> bool:
        op = one.first
        if op.is_integer_layer:
            return True
        stored = one.last.name in self.quantized and op.kind in _INTEGER_FORMS
        return stored and bool(op.inputs) and all(name in self.quantized for name in op.inputs)

    def _type(self, op: Op) -> str:
        """The type in which a tensor exists: a kernel that converts may leave out the integers."""
        if op.name not in self.quantized:
            return "float32"
        first = self.inside[op.name].first
        if self.fusion.converts and first.kind not in _VIEWS | {"input"}:
            wanted = any(self._reads_integers(reader) for reader in self.readers[op.name])
            return "uint8" if wanted else "float32"
        return "uint8"

    def _reads_integers(self, reader: Op) -> bool:
        return reader.kind != "output" and self._integer(self.inside[reader.name])

    def _read(self, name: str, reader: Op, *, integer: bool) -> TensorType:
        """A tensor as an operand of ``reader``, converted first where it must be."""
        shape = self.by_name[name].shape
        if integer:
            return TensorType("uint8", shape)
        if self._type(self.by_name[name]) == "uint8":
            self._add(reader, "Dequantize", [TensorType("uint8", shape)], "float32", shape, {})
        return TensorType("float32", shape)

    def _store(self, op: Op, owner: Op) -> None:
        """A float value becomes the integers that ``op`` is stored as."""
        if op.name in self.quantized:
            source = TensorType("float32", op.shape)
            self._add(owner, "Quantize", [source], "uint8", op.shape, {})

    def _constants(self, op: Op, integer: bool) -> list[TensorType]:
        if op.kind not in LAYER_KINDS:
            if op.kind in {"add", "sub", "mul", "div"} and len(op.inputs) == 1:
                return [TensorType("float32", (), constant=True)]
            return [TensorType("float32", op.weight_shape, True)] if op.weight_shape else []
        weight = TensorType("int8" if integer else "float32", op.weight_shape, constant=True)
        bias = TensorType("int32" if integer else "float32", op.weight_shape[:1], constant=True)
        return [weight, bias] if op.attribute("bias", 1) else [weight]

    def _add(
        self,
        owner: Op,
        operator: str,
        inputs: Sequence[TensorType],
        dtype: str,
        shape: tuple[int, ...],
        attributes: dict[str, AttributeValue],
    ) -> None:
        signature = KernelSignature(
            PREFIX + operator,
            tuple(inputs),
            (TensorType(dtype, shape),),
            tuple(sorted(attributes.items())),
        )
        self.kernels.append((owner.name, signature))


def _attributes(op: Op) -> dict[str, AttributeValue]:
    """What of an operation's attributes decides its work, defaults left out."""
    found: dict[str, AttributeValue] = {}
    if op.kind in {"max_pool", "avg_pool"}:
        kernel = pair(op.attribute("kernel", 2))
        found["kernel_shape"] = kernel
        stride = pair(op.attribute("stride", kernel))
    elif op.kind == "conv":
        stride = pair(op.attribute("stride", 1))
        dilation = pair(op.attribute("dilation", 1))
        groups = op.attribute("groups", 1)
        if dilation != (1, 1):
            found["dilations"] = dilation
        if isinstance(groups, int) and groups != 1:
            found["group"] = groups
    else:
        return found | _plain_attributes(op)
    pads = pair(op.attribute("padding", 0), 0)
    if any(pads):
        found["pads"] = (*pads, *pads)
    if stride != (1, 1):
        found["strides"] = stride
    return found


def _plain_attributes(op: Op) -> dict[str, AttributeValue]:
    if op.kind in {"concat", "softmax"}:
        return {"axis": op.attribute("axis", 1 if op.kind == "concat" else -1)}
    perm = op.attribute("dims", op.attribute("perm", ()))
    if op.kind == "transpose" and isinstance(perm, tuple) and perm:
        return {"perm": perm}
    return {}
