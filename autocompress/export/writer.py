"""Builds an ONNX graph: short names, constants shared by content, sub-byte tensors packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import RequestError
from autocompress.graph.extents import Extent

Array = npt.NDArray[Any]

OPSET = 21
#: Operator set and file format from which 2-bit tensors exist.
OPSET_INT2 = 25
_IR_VERSION, _IR_VERSION_INT2 = 10, 13
PRODUCER = "autocompress"


def pack_codes(codes: Array, bits: int) -> bytes:
    """Codes, signed ones in two's complement, lowest bits first, padded with zeros to whole bytes.

    Args:
        codes: any shape; read in row-major order.
        bits: 8, 4 or 2.
    """
    if bits not in (8, 4, 2):
        raise RequestError(f"codes of {bits} bits cannot be packed; use 8, 4 or 2")
    flat = np.ascontiguousarray(codes, dtype=np.int8).ravel().view(np.uint8)
    per_byte = 8 // bits
    fields = np.pad(flat, (0, -len(flat) % per_byte)).reshape(-1, per_byte)
    shifts = (np.arange(per_byte) * bits).astype(np.uint16)
    masked = (fields & np.uint8((1 << bits) - 1)).astype(np.uint16)
    return bytes((masked << shifts).sum(axis=1).astype(np.uint8))


def unpack_codes(data: bytes, bits: int, shape: Sequence[int]) -> npt.NDArray[np.int8]:
    """Inverse of :func:`pack_codes`."""
    per_byte = 8 // bits
    count = int(np.prod(shape, dtype=np.int64))
    if bits not in (8, 4, 2) or len(data) != -(-count // per_byte):
        raise RequestError(f"{len(data)} bytes are not {count} codes of {bits} bits")
    raw = np.frombuffer(data, np.uint8)[:, None] >> (np.arange(per_byte, dtype=np.uint8) * bits)
    fields = (raw & np.uint8((1 << bits) - 1)).ravel()[:count].astype(np.int16)
    signed = np.where(fields >= 1 << (bits - 1), fields - (1 << bits), fields)
    return signed.astype(np.int8).reshape(tuple(shape))


class OnnxWriter:
    """Collects the nodes and constants of one graph.

    Attributes:
        opset: operator set that the nodes so far need.
        batch_source: name of a graph input whose first dimension is the batch, or None.
        length_source: name of a graph input whose second dimension is the free length, or None.
        declared: shapes that do not follow from the graph (``onnx.ValueInfoProto``).
    """

    def __init__(self) -> None:
        self.batch_source: str | None = None
        self.length_source: str | None = None
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.declared: list[Any] = []
        self.opset = OPSET
        self._shared: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}
        self._made: dict[tuple[object, ...], str] = {}

    def fresh(self, prefix: str) -> str:
        """A name that is not used yet, such as ``v7``."""
        while True:
            self._counts[prefix] = self._counts.get(prefix, 0) + 1
            name = f"{prefix}{self._counts[prefix]}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def take(self, name: str) -> str:
        """``name``, reserved; a variant of it when it is taken."""
        if name in self._taken:
            return self.fresh(f"{name}_")
        self._taken.add(name)
        return name

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        name: str = "",
        output: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node with one output; the output's name."""
        from onnx import helper

        output = output or self.fresh("v")
        made = helper.make_node(op_type, list(inputs), [output], name=name or output, **attributes)
        made.doc_string = ""
        self.nodes.append(made)
        return output

    def constant(self, value: npt.ArrayLike, *, name: str = "") -> str:
        """A constant's name; equal constants are stored once.

        Negative zeros, which masks leave, become zeros: a file is packed smaller when its zeros are
        all the same.
        """
        from onnx import helper

        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        if np.issubdtype(array.dtype, np.floating):
            array = array + array.dtype.type(0)
        data_type = int(helper.np_dtype_to_tensor_dtype(array.dtype))
        raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return self._store(data_type, array.shape, raw, name)

    def scalar(self, value: float) -> str:
        """A float32 scalar constant."""
        return self.constant(np.float32(value))

    def codes(self, codes: Array, bits: int, *, name: str) -> str:
        """Integers of 8, 4 or 2 bits; unsigned when their array is."""
        from onnx import TensorProto

        if bits == 2:
            self.opset = OPSET_INT2
        kind = "UINT" if codes.dtype == np.uint8 else "INT"
        data_type = TensorProto.DataType.Value(f"{kind}{bits}")
        return self._store(int(data_type), codes.shape, pack_codes(codes, bits), name)

    def _store(self, data_type: int, shape: tuple[int, ...], raw: bytes, name: str) -> str:
        from onnx import TensorProto

        key = (data_type, tuple(shape), raw)
        known = self._shared.get(key)
        if known is not None:
            return known
        name = self.take(name) if name else self.fresh("c")
        self.constants.append(
            TensorProto(name=name, data_type=data_type, dims=list(shape), raw_data=raw)
        )
        self._shared[key] = name
        return name

    def add_tensor(self, tensor: Any) -> str:
        """Store a tensor made elsewhere under its own name."""
        self._taken.add(tensor.name)
        self.constants.append(tensor)
        return str(tensor.name)

    def cast(self, value: str, numpy_type: Any, *, output: str = "") -> str:
        """``value`` in another element type."""
        from onnx import helper

        to = int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_type)))
        return self.node("Cast", [value], output=output, to=to)

    def shape(self, extent: Extent) -> str | None:
        """A tensor's shape as a value, put together at run time where it is free.

        None where no input has a size that it needs.
        """
        parts: list[str | None] = []
        axis = 0
        while axis < extent.rank:
            end = axis + 1
            if extent.is_batch(axis):
                same = self.batch_source == self.length_source
                end += same and end < extent.rank and extent.is_length(end)
                parts.append(self._sizes(self.batch_source, 0, end - axis))
            elif extent.is_length(axis):
                parts.append(self._sizes(self.length_source, 1, 2))
            elif extent.is_free(axis):
                return None
            else:
                while end < extent.rank and not extent.is_free(end):
                    end += 1
                parts.append(self.constant(np.array(extent.constants[axis:end], np.int64)))
            axis = end
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return known[0] if len(known) == 1 else self._once("Concat", known, axis=0)

    def length(self) -> str | None:
        """The free length as a value of shape ``(1,)``; None where there is none."""
        return self._sizes(self.length_source, 1, 2)

    def _sizes(self, source: str | None, start: int, end: int) -> str | None:
        return None if source is None else self._once("Shape", [source], start=start, end=end)

    def _once(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """A node that is there once, however often it is asked for."""
        key = (op_type, *inputs, *attributes.items())
        if key not in self._made:
            self._made[key] = self.node(op_type, inputs, **attributes)
        return self._made[key]

    def rename(self, old: str, new: str) -> None:
        """Give a value another name everywhere."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new

    def model(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """The finished ``onnx.ModelProto``, with no other metadata than is given."""
        from onnx import helper

        used = {name for node in self.nodes for name in node.input} | {o.name for o in outputs}
        kept = [tensor for tensor in self.constants if tensor.name in used]
        graph = helper.make_graph(
            self.nodes, "g", list(inputs), list(outputs), kept, value_info=self.declared
        )
        domains = sorted({node.domain for node in self.nodes if node.domain not in ("", "ai.onnx")})
        if domains:
            raise RequestError(f"the graph uses operators outside ONNX: {', '.join(domains)}")
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSION_INT2 if self.opset >= OPSET_INT2 else _IR_VERSION,
            producer_name=PRODUCER,
        )
        helper.set_model_props(made, dict(metadata))
        return made
