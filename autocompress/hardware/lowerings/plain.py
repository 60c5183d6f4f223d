"""One kernel per operation, with what fuses into it: for runtimes without a layout of their own.

Each kernel is an operation of the deployed graph with the activation (and, by some rules, the
residual addition) behind it, on float32 tensors or on uint8 tensors with int8 weights. Values are
converted where an integer kernel reads a float tensor and the other way round. By default tensors
lie as the model says (channels before the image); what a kernel reorders for itself is part of
its time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autocompress.graph.ops import FUSED_TAILS, LAYER_KINDS, PASS_THROUGH, Op
from autocompress.graph.precision import fused_tails
from autocompress.hardware.lowerings.registry import Lowering
from autocompress.measurement.kernels import PLAIN as DOMAIN
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.plain_models import OPERATORS
from autocompress.measurement.synthesis import pair
from autocompress.runtimes.base import AttributeValue

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
#: Kinds that work on images.
_IMAGES = frozenset({"conv", "max_pool", "avg_pool", "global_avg_pool"})
#: Kinds that work on images in whichever layout they come.
_ANY_LAYOUT = ACTIVATIONS | {"add", "sub", "mul", "div", "concat", "batch_norm", "group_norm"}
#: Kinds whose results are never negative, and kinds that keep that of their inputs.
_POSITIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid"})
_KEEPS_SIGN = PASS_THROUGH | {"avg_pool", "global_avg_pool", "concat"}
#: Kinds that leave floats behind where nobody reads integers.
_LEAVES_FLOATS = frozenset({"conv", "linear", "add"})
_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a runtime runs inside a kernel.

    Attributes:
        float_tails: kinds of activations that float convolutions and linear layers take in.
        residual: whether a convolution takes in the addition behind it.
        converts: whether a kernel converts its result by itself to the type that it is stored in,
            or that all its readers want, and works element by element on operands of either type;
            otherwise kernels of their own convert.
        zero_points: whether integers that stand for values of both signs, so that zero is not 0,
            are dearer: convolutions that read them differ, and images of them are converted to
            floats with their channels first.
        channels_last: whether images lie with their channels last, so that a kernel transposes
            those that come from the model's input and those that are flattened.
        views: whether a reshape is a kernel at all.
    """

    float_tails: frozenset[str] = FUSED_TAILS
    residual: bool = False
    converts: bool = False
    zero_points: bool = False
    channels_last: bool = False
    views: bool = True


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
        self.tails = fused_tails(ops)
        self.inside: dict[str, _Fused] = {}  # operation -> the kernel that takes it in
        self.images: set[str] = set()  # tensors that lie with their channels last
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
        integer = one.first.is_integer_layer
        other = next(name for name in add.inputs if name != one.last.name)
        if other in self.quantized:
            end = self.by_name[self.tails[add.name]]
            return integer and end.name in self.quantized
        return self.fusion.converts or not integer

    # -- one kernel -------------------------------------------------------------------------------

    def _emit(self, one: _Fused) -> None:
        op = one.first
        if op.is_folded:
            return
        if op.kind == "output":
            for name in op.inputs:
                self._read(name, op, integer=False, last=False)
            return
        if op.kind == "input":
            self._store(op, op)
            return
        integer, last = self._integer(one), self._lies_last(op)
        either = self.fusion.converts and op.kind in _ANY_LAYOUT
        inputs = [self._read(name, op, integer=integer or either, last=last) for name in op.inputs]
        if op.kind == "embedding" and not inputs:  # places of a row that may have any length
            inputs = [TensorType("int64", op.shape[:-1])]
        inputs += self._constants(op, integer)
        if one.residual:
            either = integer or self.fusion.converts
            inputs.append(self._read(one.residual, op, integer=either, last=last))
        if last and len(one.last.shape) == 4:
            self.images.add(one.last.name)
        attributes = _attributes(op, last)
        if self.fusion.zero_points and integer and op.kind == "conv" and self._signed(op.inputs[0]):
            attributes["zero_point"] = 1
        if one.activations:
            attributes["activation"] = "+".join(one.activations)
        stored = self._type(one.last) == "uint8"
        made = "uint8" if stored and (integer or self.fusion.converts) else "float32"
        if self.fusion.views or op.kind not in _VIEWS:
            name = OPERATORS.get(op.kind, op.kind)
            if op.kind == "attention":
                name, inputs = "MatMul", self._weighted(op, inputs)
            self._add(op, name, inputs, TensorType(made, self._shape(one.last)), attributes)
        if stored and made == "float32":
            self._store(one.last, op)

    def _weighted(self, op: Op, inputs: list[TensorType]) -> list[TensorType]:
        """What an attention's last product multiplies, behind the first product and the softmax."""
        query, key, value = inputs[:3]
        scores = TensorType("float32", (*query.shape[:-1], key.shape[-2]))
        self._add(op, "MatMul", [query, key], scores, {})
        if len(inputs) > 3:
            self._add(op, "Add", [scores, inputs[3]], scores, {})
        self._add(op, "Softmax", [scores], scores, {"axis": len(scores.shape) - 1})
        return [scores, value]

    def _lies_last(self, op: Op) -> bool:
        """Whether an operation works on images with their channels last."""
        if not self.fusion.channels_last:
            return False
        follows = op.kind in _ANY_LAYOUT and any(name in self.images for name in op.inputs)
        return op.kind in _IMAGES or follows

    def _shape(self, op: Op) -> tuple[int, ...]:
        if op.name not in self.images:
            return op.shape
        return tuple(op.shape[axis] for axis in _TO_LAST)

    def _integer(self, one: _Fused) -> bool:
        op = one.first
        if op.is_integer_layer:
            return True
        stored = one.last.name in self.quantized and op.kind in _INTEGER_FORMS
        return stored and bool(op.inputs) and all(name in self.quantized for name in op.inputs)

    def _signed(self, name: str) -> bool:
        """Whether a tensor holds values of both signs, so that its zero point is not 0."""
        op = self.by_name[name]
        if op.kind in _KEEPS_SIGN:
            return any(self._signed(source) for source in op.inputs)
        low = op.attribute("low", -1.0) if op.kind == "hardtanh" else -1.0
        return op.kind not in _POSITIVE and not (isinstance(low, int | float) and low >= 0)

    def _type(self, op: Op) -> str:
        """The type in which a tensor exists: a kernel that converts may leave out the integers."""
        if op.name not in self.quantized:
            return "float32"
        if self.fusion.converts and self.inside[op.name].first.kind in _LEAVES_FLOATS:
            wanted = any(self._reads_integers(reader) for reader in self.readers[op.name])
            signed = self.fusion.zero_points and self._signed(op.name)
            return "uint8" if wanted or signed else "float32"
        return "uint8"

    def _reads_integers(self, reader: Op) -> bool:
        return reader.kind != "output" and self._integer(self.inside[reader.name])

    def _read(self, name: str, reader: Op, *, integer: bool, last: bool) -> TensorType:
        """A tensor as an operand of ``reader``, converted and transposed first where it must be."""
        op = self.by_name[name]
        found, lies_last = TensorType(self._type(op), self._shape(op)), name in self.images
        if not integer and found.dtype == "uint8":
            if lies_last and self.fusion.zero_points and self._signed(name):
                found, lies_last = self._transposed(found, reader, op, _TO_FIRST), False
            floats = TensorType("float32", found.shape)
            self._add(reader, "Dequantize", [found], floats, {})
            found = floats
        if len(op.shape) != 4 or last == lies_last:
            return found
        return self._transposed(found, reader, op, _TO_LAST if last else _TO_FIRST)

    def _transposed(
        self, found: TensorType, reader: Op, op: Op, perm: tuple[int, ...]
    ) -> TensorType:
        moved = TensorType(found.dtype, tuple(found.shape[axis] for axis in perm))
        if op.shape[1] > 1 and op.shape[2:] != (1, 1):
            self._add(reader, "Transpose", [found], moved, {"perm": perm})
        return moved

    def _store(self, op: Op, owner: Op) -> None:
        """A float value becomes the integers that ``op`` is stored as."""
        if op.name in self.quantized:
            source = TensorType("float32", self._shape(op))
            self._add(owner, "Quantize", [source], TensorType("uint8", source.shape), {})

    def _constants(self, op: Op, integer: bool) -> list[TensorType]:
        if op.kind not in LAYER_KINDS:
            if op.kind in {"add", "sub", "mul", "div"} and len(op.inputs) == 1:
                return [TensorType("float32", (), constant=True)]
            bits = op.weight_bits if op.kind == "embedding" else 32
            held = "int8" if bits <= 8 or op.codebook else "float16" if bits == 16 else "float32"
            return [TensorType(held, op.weight_shape, True)] if op.weight_shape else []
        weight = TensorType("int8" if integer else "float32", op.weight_shape, constant=True)
        bias = TensorType("int32" if integer else "float32", op.weight_shape[:1], constant=True)
        return [weight, bias] if op.attribute("bias", 1) else [weight]

    def _add(
        self,
        owner: Op,
        operator: str,
        inputs: Sequence[TensorType],
        output: TensorType,
        attributes: dict[str, AttributeValue],
    ) -> None:
        pairs = tuple(sorted(attributes.items()))
        signature = KernelSignature(f"{DOMAIN}:{operator}", tuple(inputs), (output,), pairs)
        self.kernels.append((owner.name, signature))


def _attributes(op: Op, last: bool) -> dict[str, AttributeValue]:
    """What of an operation's attributes decides its work, defaults left out."""
    if op.kind not in _IMAGES:
        return _plain_attributes(op, last)
    found: dict[str, AttributeValue] = {"channels_last": 1} if last else {}
    stride = (1, 1)
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
    pads = pair(op.attribute("padding", 0), 0)
    if any(pads):
        found["pads"] = (*pads, *pads)
    if stride != (1, 1):
        found["strides"] = stride
    return found


def _plain_attributes(op: Op, last: bool) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {"channels_last": 1} if last else {}
    if op.kind == "concat":
        axis = op.attribute("axis", 1)
        found["axis"] = _TO_FIRST[axis] if last and isinstance(axis, int) else axis
    elif op.kind == "softmax":
        found["axis"] = op.attribute("axis", -1)
    perm = op.attribute("dims", op.attribute("perm", ()))
    if op.kind == "transpose" and isinstance(perm, tuple) and perm:
        found["perm"] = perm
    return found
