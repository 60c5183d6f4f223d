"""What makes two kernels the same for a latency table, and a one-node model of each.

A signature names a node of the graph that the runtime executes (after its own fusion and layout
changes), not an operator of the exported file: that is what takes the time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

from autocompress.errors import ProfileError
from autocompress.runtimes.base import AttributeValue, KernelNode, TensorSpec

#: Short names of element types in a signature's key.
_SHORT = {
    "float32": "f32",
    "float16": "f16",
    "float64": "f64",
    "uint8": "u8",
    "int8": "i8",
    "uint16": "u16",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "bool": "b1",
}
_LONG = {short: long for long, short in _SHORT.items()}
_BYTES = {name: np.dtype(name).itemsize for name in _SHORT}
#: Attributes that do not change the work, or only repeat a default.
_DEFAULTS: dict[str, AttributeValue] = {
    "auto_pad": "NOTSET",
    "group": 1,
    "ceil_mode": 0,
    "storage_order": 0,
    "count_include_pad": 0,
    "saturate": 1,
    "output_dtype": 0,
    "block_size": 0,
    "transA": 0,
    "transB": 0,
    "noop_with_empty_axes": 0,
    "allowzero": 0,
    "channels_last": 0,
    "precision": 0,
    "antialias": 0,
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
    "keep_aspect_ratio_policy": "stretch",
    "nearest_mode": "round_prefer_floor",
}
_ALWAYS_DROPPED = frozenset(
    {
        "kernel_shape",
        "allowzero",
        "activation_params",
        "activation_alpha",
        "activation_beta",
        "axis",
        "alpha",
        "beta",
        "epsilon",
        "momentum",
        "training_mode",
    }
)
_KEEPS_KERNEL = frozenset({"MaxPool", "AveragePool", "NhwcMaxPool", "QLinearAveragePool"})
_KEEPS_AXIS = frozenset({"Concat", "QLinearConcat", "Softmax", "LayerNormalization", "Gather"})
#: Kernels that only rename memory.
VIEW_OPS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
#: Kernels that read a few rows of their first constant.
LOOK_UPS = frozenset({"Gather"})
NCHWC = "com.microsoft.nchwc"
MICROSOFT = "com.microsoft"
#: Domain of kernels that are operations of the model rather than nodes of a runtime's own graph.
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class TensorType:
    """An operand of a kernel.

    Attributes:
        dtype: numpy's name of the element type.
        shape: its dimensions.
        constant: whether it is stored in the model.
        values: the value of a small integer constant, else empty.
    """

    dtype: str
    shape: tuple[int, ...]
    constant: bool = False
    values: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes it occupies."""
        return prod(self.shape) * _BYTES.get(self.dtype, 4)

    def text(self) -> str:
        """Its part of the key, such as ``u8[1,8,8,16]`` or ``c:f32[16]``."""
        shape = ",".join(str(d) for d in self.shape)
        values = "=" + ",".join(str(v) for v in self.values) if self.values else ""
        mark = "c:" if self.constant else ""
        return f"{mark}{_SHORT.get(self.dtype, self.dtype)}[{shape}]{values}"


def _parse_tensor(text: str) -> TensorType | None:
    if text == "-":
        return None
    constant = text.startswith("c:")
    head, _, rest = text.removeprefix("c:").partition("[")
    inner, _, values = rest.partition("]")
    return TensorType(
        _LONG.get(head, head),
        tuple(int(d) for d in inner.split(",") if d),
        constant,
        tuple(int(v) for v in values.removeprefix("=").split(",") if v),
    )


Operands: TypeAlias = tuple[TensorType | None, ...]


@dataclass(frozen=True)
class KernelSignature:
    """One kernel with everything that decides its time on a given runtime and device.

    Attributes:
        op: operator, with its domain in front unless it is ONNX's own ("nchwc:Conv").
        inputs: operands; None where an optional one is absent.
        outputs: results.
        attributes: sorted pairs, defaults left out.
        speedup: how many times faster its multiplications are than with a dense weight, where a
            profile credits the zeros of a candidate; no part of the key: tables are of dense ones.
    """

    op: str
    inputs: Operands
    outputs: tuple[TensorType, ...]
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    speedup: float = 1.0

    @cached_property
    def dense(self) -> KernelSignature:
        """The same without credit for zeros: what can be measured."""
        return self if self.speedup == 1.0 else replace(self, speedup=1.0)

    @cached_property
    def key(self) -> str:
        """Canonical text: equal keys mean equal kernels; :meth:`parse` is the inverse."""
        inputs = ";".join("-" if t is None else t.text() for t in self.inputs)
        outputs = ";".join(t.text() for t in self.outputs)
        attributes = ";".join(
            f"{k}={json.dumps(v, separators=(',', ':'))}" for k, v in self.attributes
        )
        return f"{self.op}|{inputs}|{outputs}|{attributes}"

    @classmethod
    def parse(cls, key: str) -> KernelSignature:
        """The signature of a key.

        Raises:
            ProfileError: the text is no key.
        """
        try:
            op, inputs, outputs, attributes = key.split("|")
            operands = tuple(_parse_tensor(t) for t in inputs.split(";") if t)
            results = tuple(_parse_tensor(t) for t in outputs.split(";") if t)
            pairs = (part.split("=", 1) for part in attributes.split(";") if part)
            parsed = tuple((name, _value(json.loads(text))) for name, text in pairs)
            if not op or not results or any(t is None for t in results):
                raise ValueError("no operator, or an empty result")
        except (ValueError, TypeError) as error:
            raise ProfileError(f"{key!r} is no kernel signature: {error}") from error
        signature = cls(op, operands, tuple(t for t in results if t is not None), parsed)
        if signature.key != key:
            raise ProfileError(f"{key!r} is not in canonical form; expected {signature.key!r}")
        return signature

    @classmethod
    def of(cls, node: KernelNode) -> KernelSignature:
        """The signature of a node of an executed graph."""
        kept = []
        for name, value in node.attributes:
            if (
                (name == "kernel_shape" and node.op_type in _KEEPS_KERNEL)
                or (name == "axis" and node.op_type in _KEEPS_AXIS)
                or not _dropped(name, value)
            ):
                kept.append((name, value))
        return cls(
            qualified(node.domain, node.op_type),
            _trim(tuple(None if s is None else _operand(s) for s in node.inputs)),
            tuple(_operand(s) for s in node.outputs),
            tuple(sorted(kept)),
        )

    @property
    def op_type(self) -> str:
        """The operator without its domain."""
        return self.op.rpartition(":")[2]

    @property
    def is_view(self) -> bool:
        """Whether it moves no data."""
        return self.op_type in VIEW_OPS

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of its constants; of a table that it looks rows up in, those of the rows."""
        held = [t for t in self.inputs if t is not None and t.constant]
        if self.op_type in LOOK_UPS and held:
            read = replace(held[0], shape=self.outputs[0].shape).size_bytes
            return min(read, held[0].size_bytes) + sum(t.size_bytes for t in held[1:])
        return sum(t.size_bytes for t in held)

    @cached_property
    def activation_bytes(self) -> int:
        """Bytes of the activations that it reads and writes."""
        read = sum(t.size_bytes for t in self.inputs if t is not None and not t.constant)
        return read + sum(t.size_bytes for t in self.outputs)

    @cached_property
    def largest_activation_bytes(self) -> int:
        """Bytes of the largest activation that it reads or writes."""
        tensors = [t for t in self.inputs if t is not None and not t.constant]
        return max((t.size_bytes for t in (*tensors, *self.outputs)), default=0)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates as executed, padding of channels included."""
        weight = self.weight
        if weight is None or not self.outputs:
            return 0
        out = self.outputs[0]
        if len(weight.shape) == 4:
            return prod(out.shape) * prod(weight.shape[1:])
        return prod(out.shape) * (prod(weight.shape) // max(1, out.shape[-1]))

    @property
    def weight(self) -> TensorType | None:
        """The constant with two or more dimensions, if there is one."""
        for tensor in self.inputs:
            if tensor is not None and tensor.constant and len(tensor.shape) >= 2:
                return tensor
        return None

    @cached_property
    def family(self) -> str:
        """Kernels alike but for their sizes share a family: what an estimate may lean on."""
        weight = self.weight
        kernel = "x".join(str(d) for d in weight.shape[2:]) if weight is not None else ""
        group = dict(self.attributes).get("group", 1)
        kind = ""
        if weight is not None and isinstance(group, int) and group > 1:
            kind = "depthwise" if weight.shape[1] == 1 else "grouped"
        strides = dict(self.attributes).get("strides", "")
        first = next((t.dtype for t in self.inputs if t is not None), "")
        return f"{self.op}|{first}|{kernel}|{kind}|{strides}"


def qualified(domain: str, op_type: str) -> str:
    """An operator's name in signatures."""
    short = {"": "", "ai.onnx": "", MICROSOFT: "ms:", NCHWC: "nchwc:"}.get(domain, f"{domain}:")
    return short + op_type


def domain_of(op: str) -> tuple[str, str]:
    """Domain and operator of a signature's ``op``."""
    short, _, op_type = op.rpartition(":")
    return {"": "", "ms": MICROSOFT, "nchwc": NCHWC}.get(short, short), op_type


def _value(value: Any) -> AttributeValue:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, int | float | str):
        return value
    raise ValueError(f"attribute value {value!r}")


def _dropped(name: str, value: AttributeValue) -> bool:
    if name in _ALWAYS_DROPPED or _DEFAULTS.get(name) == value:
        return True
    if name in {"dilations", "strides"}:
        return isinstance(value, tuple) and all(v == 1 for v in value)
    return name == "pads" and isinstance(value, tuple) and not any(value)


def _trim(operands: Operands) -> Operands:
    while operands and operands[-1] is None:
        operands = operands[:-1]
    return operands


def _operand(spec: TensorSpec) -> TensorType:
    shape = tuple(1 if d is None else d for d in spec.shape)
    return TensorType(spec.dtype, shape, spec.constant, spec.values)


def signatures(nodes: Sequence[KernelNode]) -> tuple[KernelSignature, ...]:
    """Signatures of an executed graph's nodes, in order."""
    return tuple(KernelSignature.of(node) for node in nodes)
