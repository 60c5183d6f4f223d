"""The ONNX form of operators that pick, cut, repeat and pad; see :mod:`.operators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from autocompress.export.call import Call, Emitter
from autocompress.export.writer import OnnxWriter

_END = 2**62


def cut(
    writer: OnnxWriter, value: str, axis: int, start: int, end: int, step: int = 1, name: str = ""
) -> str:
    """Elements ``start`` to ``end`` along an axis."""
    bounds = [writer.constant(np.array([v], np.int64)) for v in (start, end, axis)]
    if step != 1:
        bounds.append(writer.constant(np.array([step], np.int64)))
    return writer.node("Slice", [value, *bounds], name=name)


def pick(writer: OnnxWriter, value: str, axis: int, index: int, name: str = "") -> str:
    """One element along an axis, which disappears."""
    return writer.node("Gather", [value, writer.constant(np.int64(index))], name=name, axis=axis)


def _index(writer: OnnxWriter, call: Call) -> str | None:
    """Rows by their numbers, such as of a table of relative positions."""
    indices = call.arguments["indices"]
    if len(indices) != 1 or call.inputs[-1].dtype not in (torch.int64, torch.int32):
        return None
    return writer.node("Gather", [call.value, str(indices[0])], name=call.name, axis=0)


def _whole(*values: Any) -> bool:
    """Whether these are plain numbers rather than sizes found at run time."""
    return all(isinstance(v, int) for v in values)


def _select(writer: OnnxWriter, call: Call) -> str | None:
    axis, index = call.arguments["dim"], call.arguments["index"]
    if not _whole(axis, index):
        return None
    return pick(writer, call.value, axis % call.inputs[0].rank, index, call.name)


def _slice(writer: OnnxWriter, call: Call) -> str | None:
    axis, step = call.arguments["dim"], call.arguments["step"]
    start = call.arguments["start"] or 0
    end = _END if call.arguments["end"] is None else call.arguments["end"]
    if _whole(axis, step, start) and not _whole(end):
        return _cut_to_length(writer, call, axis % call.output.rank) if not start else None
    if not _whole(axis, step, start, end):
        return None
    if (start, step) == (0, 1) and end >= _END:
        return call.value
    return cut(writer, call.value, axis % call.output.rank, start, min(end, _END), step, call.name)


def _cut_to_length(writer: OnnxWriter, call: Call, axis: int) -> str | None:
    """As much of a tensor as a row is long, such as of a table of positions."""
    length = writer.length()
    if length is None or not call.output.is_length(axis) or call.arguments["step"] != 1:
        return None
    first, along = (writer.constant(np.array([v], np.int64)) for v in (0, axis))
    return writer.node("Slice", [call.value, first, length, along], name=call.name)


def _expand(writer: OnnxWriter, call: Call) -> str | None:
    shape = writer.shape(call.output)
    return None if shape is None else writer.node("Expand", [call.value, shape], name=call.name)


def _roll(writer: OnnxWriter, call: Call) -> str | None:
    shifts, axes = call.arguments["shifts"], call.arguments["dims"]
    if not axes or not _whole(*shifts, *axes):
        return None
    value = call.value
    for shift, axis in zip(shifts, axes, strict=True):
        axis %= call.output.rank
        size = call.output.constants[axis]
        if call.output.is_free(axis):
            return None
        if shift % size:
            edge = size - shift % size
            ends = [cut(writer, value, axis, edge, size), cut(writer, value, axis, 0, edge)]
            value = writer.node("Concat", ends, axis=axis)
    return value


def _pad(writer: OnnxWriter, call: Call) -> str | None:
    widths = call.arguments["pad"]
    if call.arguments.get("mode", "constant") != "constant" or not _whole(*widths):
        return None
    if not any(widths):
        return call.value
    rank = call.output.rank
    before, after = [0] * rank, [0] * rank
    for i in range(len(widths) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = widths[2 * i], widths[2 * i + 1]
    filler = writer.scalar(float(call.arguments.get("value") or 0.0))
    pads = writer.constant(np.array([*before, *after], np.int64))
    return writer.node("Pad", [call.value, pads, filler], name=call.name)


def _attention(writer: OnnxWriter, call: Call) -> str | None:
    """``softmax(q k^T / sqrt(d) + mask) v``, written out."""
    arguments = call.arguments
    if arguments["dropout_p"] or arguments["is_causal"] or arguments.get("enable_gqa"):
        return None
    if any(not extent.is_float for extent in call.inputs):
        return None  # a mask of booleans
    rank, width = call.inputs[0].rank, call.inputs[0].constants[-1]
    factor = arguments.get("scale") or width**-0.5
    order = [*range(rank - 2), rank - 1, rank - 2]
    query = writer.node("Mul", [arguments["query"], writer.scalar(factor)])
    key = writer.node("Transpose", [arguments["key"]], perm=order)
    scores = writer.node("MatMul", [query, key])
    if arguments["attn_mask"] is not None:
        scores = writer.node("Add", [scores, arguments["attn_mask"]])
    weights = writer.node("Softmax", [scores], axis=rank - 1)
    return writer.node("MatMul", [weights, arguments["value"]], name=call.name)


def piece(writer: OnnxWriter, call: Call, kind: str, index: int, sizes: Sequence[int]) -> str:
    """Output ``index`` of a call that divides a tensor along an axis.

    Args:
        writer: of the graph.
        call: the dividing call; its output's extent is that of the piece.
        kind: "unbind", or else the pieces keep the axis.
        index: which piece.
        sizes: of all pieces along the axis.
    """
    axis = int(call.arguments["dim"]) % call.inputs[0].rank
    if kind == "unbind":
        return pick(writer, call.value, axis, index, call.name)
    start = sum(sizes[:index])
    return cut(writer, call.value, axis, start, start + sizes[index], name=call.name)


def piece_sizes(kind: str, arguments: Any, length: int) -> list[int] | None:
    """Sizes of the pieces that a dividing call makes of ``length`` elements; None if unknown."""
    if kind == "unbind":
        return [1] * length
    if kind == "split_with_sizes":
        sizes = list(arguments["split_sizes"])
        return sizes if _whole(*sizes) else None
    if kind == "chunk":
        chunks = arguments["chunks"]
        size = -(-length // chunks) if _whole(chunks) else 0
    else:
        size = arguments.get("split_size", 0)
    if not _whole(size) or size < 1:
        return None
    return [min(size, length - at) for at in range(0, length, size)]


#: Calls that divide a tensor along an axis; their outputs are read one by one.
DIVIDING = ("chunk", "split", "split_with_sizes", "unbind")

SHAPE_OPERATORS: dict[str, Emitter] = {
    "index.Tensor": _index,
    "select.int": _select,
    "slice.Tensor": _slice,
    "expand": _expand,
    "roll": _roll,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "scaled_dot_product_attention": _attention,
}
