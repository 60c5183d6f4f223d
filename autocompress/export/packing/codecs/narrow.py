"""Codes of fewer different values than their bits have room for, in codes of fewer bits."""

from __future__ import annotations

import numpy as np

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import NestingCodec, Reading
from autocompress.export.packing.codecs.units import join_codes, split_codes, too_dense
from autocompress.export.packing.numbers import Reader, varint


class Narrow(NestingCodec):
    """At most 16 values in 4 bits or 4 values in 2, sorted; their indices are a stream."""

    number = 12

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The number of values, the values, the indices; None where there are too many."""
        if reading.width > 1 or not data:
            return None
        codes = split_codes(data, reading)
        counts = np.bincount(codes)
        values = np.flatnonzero(counts).astype(np.uint8)
        inner = _indices(len(values), reading)
        if inner.bits >= reading.bits:
            return None
        places = (np.cumsum(counts > 0) - 1).astype(np.uint8)
        indices = np.zeros(inner.elements, np.uint8)
        indices[: len(codes)] = places[codes]
        coded = self._encode_stream(join_codes(indices, inner), inner)
        whole = varint(len(values)) + values.tobytes() + coded
        return None if too_dense(len(whole), reading) else whole

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        count = reader.number()
        inner = _indices(count, reading)
        wrong = reading.width > 1 or too_dense(len(coded), reading)
        if wrong or not count or inner.bits >= reading.bits:
            raise StorageError("a packed stream's values are damaged")
        values = np.frombuffer(reader.take(count), np.uint8)
        indices = split_codes(self._decode_stream(reader.rest(), inner), inner)
        indices = indices[: reading.elements]
        if int(values.max()) >= 1 << reading.bits:
            raise StorageError("a packed stream's values are damaged")
        if len(indices) and int(indices.max()) >= count:
            raise StorageError("a packed stream names a value that it does not hold")
        return join_codes(values[indices], reading)


def _indices(count: int, reading: Reading) -> Reading:
    """How the indices of so many values are to be read; rows are kept where they end with bytes."""
    bits = 2 if count <= 4 else 4 if count <= 16 else 8
    units = 8 // bits
    whole = reading.elements % units == 0
    return Reading(
        -(-reading.elements // units),
        bits,
        columns=reading.columns if whole else 0,
        scale=reading.scale * reading.bits // bits if bits < reading.bits else 1,
    )
