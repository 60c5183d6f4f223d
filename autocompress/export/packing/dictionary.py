"""What the graphs of ONNX files say again and again, as their bytes say it.

The order matters: what is likeliest stands last. The content may never change, since files packed
with it could not be unpacked: another dictionary is another codec.
"""

from __future__ import annotations

_OPERATORS = (
    "LSTM", "GRU", "Softmax", "LayerNormalization", "Erf", "Tanh", "Pow", "Sqrt", "Sub", "Div",
    "ReduceMean", "Slice", "Split", "Squeeze", "Unsqueeze", "Pad", "Resize", "HardSigmoid",
    "HardSwish", "Sigmoid", "LeakyRelu", "Clip", "GlobalAveragePool", "AveragePool",
    "BatchNormalization", "Concat", "Gather", "Transpose", "Identity", "Mul", "MatMul", "Reshape",
    "Flatten", "Add", "Relu", "MaxPool", "Gemm", "Conv", "Cast", "QuantizeLinear",
    "DequantizeLinear",
)  # fmt: skip
#: Attribute names with their type's number: 2 whole, 7 wholes, 1 float, 3 text.
_ATTRIBUTES = (
    ("epsilon", 1), ("alpha", 1), ("beta", 1), ("transA", 2), ("keepdims", 2), ("perm", 7),
    ("ceil_mode", 2), ("count_include_pad", 2), ("allowzero", 2), ("to", 2), ("axis", 2),
    ("transB", 2), ("auto_pad", 3), ("dilations", 7), ("group", 2), ("kernel_shape", 7),
    ("pads", 7), ("strides", 7),
)  # fmt: skip


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def _attribute(name: str, kind: int) -> bytes:
    value = {2: b"\x18\x01", 7: b"@\x01@\x01", 1: b"\x15\x00\x00\x00\x00", 3: b"\x22\x00"}[kind]
    return _field(5, _field(1, name.encode()) + value + b"\xa0\x01" + bytes([kind]))


def _dictionary() -> bytes:
    parts = [
        b"pytorch main_graph input output batch logits weight bias scale zero_point quantized "
    ]
    parts += [_field(4, name.encode()) for name in _OPERATORS]
    parts += [_attribute(name, kind) for name, kind in _ATTRIBUTES]
    for name in ("QuantizeLinear", "Cast", "DequantizeLinear"):
        ends = _field(1, b"a") + _field(1, b"b") + _field(1, b"c") + _field(2, b"d")
        parts.append(_field(1, ends + _field(4, name.encode())))
    parts.append(b"\x08\x08\x12\x0cautocompress\x1a\x051.0.0:")
    return b"".join(parts)


DICTIONARY = _dictionary()
