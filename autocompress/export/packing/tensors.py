"""Where the tensors of an ONNX file lie in its bytes, and what their bytes stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

from autocompress.errors import RequestError, StorageError
from autocompress.export.packing.codecs.base import Reading

#: Shorter tensors are left among the graph's bytes.
SMALLEST = 16
#: Rows of fewer columns are not told apart.
_NARROW = 8
#: Rows are coded one by one, so that there may not be too many.
_MOST_ROWS = 1 << 18


class Element(IntEnum):
    """What a tensor's elements take; the value is stored in the file."""

    BYTE = 0
    HALF_BYTE = 1
    QUARTER_BYTE = 2
    TWO_BYTES = 3
    FOUR_BYTES = 4
    EIGHT_BYTES = 5


_BITS = {Element.HALF_BYTE: 4, Element.QUARTER_BYTE: 2}
_WIDTH = {Element.TWO_BYTES: 2, Element.FOUR_BYTES: 4, Element.EIGHT_BYTES: 8}


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor's bytes within the file.

    Attributes:
        element: what its elements take.
        gap: bytes before it that belong to no tensor.
        length: its bytes.
        columns: elements that one output channel reads; 0 where rows are not told apart.
    """

    element: Element
    gap: int
    length: int
    columns: int


def reading_of(element: Element, length: int, columns: int = 0) -> Reading:
    """How so many bytes are to be read.

    Raises:
        StorageError: so many elements do not lie in rows of so many columns.
    """
    reading = Reading(length, _BITS.get(element, 8), _WIDTH.get(element, 1), columns)
    if columns and not _sensible(columns, reading.elements):
        raise StorageError(
            f"a packed tensor of {reading.elements} elements claims rows of {columns}"
        )
    return reading


def _sensible(columns: int, elements: int) -> bool:
    """Whether rows of so many columns are worth telling apart, and not too many for it."""
    return _NARROW <= columns <= elements <= columns * _MOST_ROWS


def locate(data: bytes) -> list[Piece]:
    """The tensors of an ONNX file, in the order of their bytes.

    Raises:
        RequestError: it is no ONNX model, or keeps data outside itself.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise RequestError(f"this is no ONNX model: {error}") from error
    if not data or not model.HasField("graph"):
        raise RequestError("this is no ONNX model: it has no graph")
    outside = next((t.name for t in _all_tensors(model) if t.external_data), None)
    if outside is not None:
        raise RequestError(
            f"tensor {outside!r} is kept in another file; save the model in one file"
        )
    pieces, position = [], 0
    for tensor in _tensors(model):
        raw = tensor.raw_data
        if len(raw) < SMALLEST:
            continue
        start = data.find(raw, position)
        if start < 0:
            continue  # out of order: it stays among the graph's bytes
        element = _element(tensor.data_type)
        columns = _columns(tensor.dims, reading_of(element, len(raw)).elements)
        pieces.append(Piece(element, start - position, len(raw), columns))
        position = start + len(raw)
    return pieces


def _tensors(model: Any) -> Iterator[Any]:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
    yield from model.graph.initializer


def _all_tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model, also of functions and branches."""
    from onnx import TensorProto

    for _, value in message.ListFields():
        for part in value if isinstance(value, Sequence) else [value]:
            if isinstance(part, TensorProto):
                yield part
            elif hasattr(part, "ListFields"):
                yield from _all_tensors(part)


def _columns(dims: Sequence[int], elements: int) -> int:
    """What one output channel reads, as far as the tensor's shape is that of a weight."""
    columns = prod(dims[1:]) if len(dims) > 1 else 0
    return columns if _sensible(columns, elements) else 0


def _element(data_type: int) -> Element:
    from onnx import TensorProto, helper

    four = {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1}
    two = {TensorProto.INT2, TensorProto.UINT2}
    if data_type in four:
        return Element.HALF_BYTE
    if data_type in two:
        return Element.QUARTER_BYTE
    try:
        size = helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, ValueError):
        return Element.BYTE
    sizes = {2: Element.TWO_BYTES, 4: Element.FOUR_BYTES, 8: Element.EIGHT_BYTES}
    return sizes.get(size, Element.BYTE)
