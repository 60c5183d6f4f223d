"""Byte streams arranged so that a general compressor finds their structure.

Each kind of tensor has an exact, invertible arrangement: sub-byte codes one to a byte, wider
elements with their first bytes together, then their second, and so on.
"""

from __future__ import annotations

import lzma
from enum import IntEnum

import numpy as np

from autocompress.errors import StorageError


class Kind(IntEnum):
    """What a stream holds; the value is stored in the file."""

    PLAIN = 0
    INT8 = 1
    INT4 = 2
    INT2 = 3
    WIDE4 = 4
    WIDE2 = 5


_WIDTH = {Kind.WIDE4: 4, Kind.WIDE2: 2}
_PER_BYTE = {Kind.INT4: 2, Kind.INT2: 4}
#: Settings tried for each stream: literal context bits; positions carry no meaning here.
_LITERAL_BITS = (0, 3)


def arrange(data: bytes, kind: Kind) -> bytes:
    """The bytes of one tensor in the order that compresses best; same information."""
    array = np.frombuffer(data, np.uint8)
    if kind in _PER_BYTE:
        bits = 8 // _PER_BYTE[kind]
        shifts = np.arange(_PER_BYTE[kind], dtype=np.uint8) * np.uint8(bits)
        return bytes(((array[:, None] >> shifts) & np.uint8((1 << bits) - 1)).astype(np.uint8))
    width = _WIDTH.get(kind)
    if width and len(array) % width == 0:
        return bytes(array.reshape(-1, width).T.copy())
    return data


def restore(data: bytes, kind: Kind) -> bytes:
    """Inverse of :func:`arrange`."""
    array = np.frombuffer(data, np.uint8)
    if kind in _PER_BYTE:
        per_byte = _PER_BYTE[kind]
        shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(8 // per_byte)
        parts = array.reshape(-1, per_byte).astype(np.uint16) << shifts
        return bytes(parts.sum(axis=1).astype(np.uint8))
    width = _WIDTH.get(kind)
    if width and len(array) % width == 0:
        return bytes(array.reshape(width, -1).T.copy())
    return data


def arranged_length(length: int, kind: Kind) -> int:
    """Length of :func:`arrange`'s result for a tensor of ``length`` bytes."""
    return length * _PER_BYTE.get(kind, 1)


def compress(data: bytes) -> bytes:
    """The shortest of a few LZMA2 encodings; the first byte names the one used."""
    tried = [
        bytes([bits]) + lzma.compress(data, lzma.FORMAT_RAW, filters=_filters(bits, len(data)))
        for bits in _LITERAL_BITS
    ]
    return min([*tried, bytes([255]) + data], key=len)


def decompress(data: bytes, length: int) -> bytes:
    """Inverse of :func:`compress`; never makes more than ``length`` bytes.

    Raises:
        StorageError: the data is damaged.
    """
    if not data:
        raise StorageError("a packed stream is empty")
    if data[0] == 255:
        result = data[1:]
    elif data[0] in _LITERAL_BITS:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(data[0], length))
        try:
            result = decoder.decompress(data[1:], max_length=length + 1)
        except lzma.LZMAError as error:
            raise StorageError(f"a packed stream is damaged: {error}") from error
    else:
        raise StorageError(f"a packed stream has the unknown encoding {data[0]}")
    if len(result) != length:
        raise StorageError(f"a packed stream holds {len(result)} bytes; {length} were expected")
    return result


def _filters(literal_bits: int, length: int) -> list[dict[str, int]]:
    window = min(max(1 << (length - 1).bit_length(), 4096), 1 << 26) if length else 4096
    return [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": window,
            "lc": literal_bits,
            "lp": 0,
            "pb": 0,
        }
    ]
