"""Bytes of the exported ONNX file, estimated without exporting it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil, prod

from autocompress.graph.ops import Op

#: Bytes of a file without nodes, and of a node or a constant besides its data: names, types, shapes.
#: Fitted to exported files of small networks.
FILE_BYTES = 350
NODE_BYTES = 130
CONSTANT_BYTES = 60
#: A Q and a DQ node, a scale and a zero point.
PAIR_BYTES = 2 * NODE_BYTES + 2 * CONSTANT_BYTES + 5


def weight_bytes(op: Op) -> int:
    """Bytes of an operation's weight and bias with their scales, as they are stored."""
    if not op.weight_shape:
        return 0
    count, channels = prod(op.weight_shape), op.weight_shape[0]
    bias = 4 * channels if op.attribute("bias", 1) else 0
    bits = op.weight_bits
    if bits >= 32:
        return 4 * count + bias
    if bits == 16:
        return 2 * count + bias
    scales = 4 * channels
    zeros = channels if op.is_integer_layer else 0
    bias_scales = 8 * channels if bias and op.is_integer_layer else 0
    return ceil(count * bits / 8) + scales + zeros + bias + bias_scales


def op_bytes(op: Op, quantized: Collection[str]) -> int:
    """Bytes that one operation adds to the file."""
    if op.kind == "output":
        return 0
    total = 0 if op.kind == "input" else NODE_BYTES
    if op.name in quantized:
        total += PAIR_BYTES
    if op.weight_shape:
        constants = 2 if op.attribute("bias", 1) else 1
        total += weight_bytes(op) + constants * CONSTANT_BYTES
        if op.weight_bits < 32:
            extra = 3 if op.is_integer_layer else 1
            nodes = 1 if op.weight_bits in (8, 16) and op.is_integer_layer else 2
            total += extra * CONSTANT_BYTES + nodes * NODE_BYTES
    return total


def size_bytes(ops: Sequence[Op], quantized: Collection[str]) -> int:
    """Estimated bytes of the exported file."""
    return FILE_BYTES + sum(op_bytes(op, quantized) for op in ops)
