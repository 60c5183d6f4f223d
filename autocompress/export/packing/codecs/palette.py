"""Wide numbers of few different values: the values, then an index for each (weight sharing)."""

from __future__ import annotations

import numpy as np

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import NestingCodec, Reading
from autocompress.export.packing.numbers import Reader, varint

_MOST = 256


class Palette(NestingCodec):
    """At most 256 values, sorted by their bits; the indices are a stream of their own."""

    number = 5

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The number of values, the values, the indices; None where there are too many."""
        if reading.width == 1 or reading.length % reading.width or not reading.elements:
            return None
        elements = np.frombuffer(data, f"<u{reading.width}")
        values, indices = np.unique(elements, return_inverse=True)
        if len(values) > min(_MOST, reading.elements):
            return None
        inner = self._encode_stream(indices.astype(np.uint8).tobytes(), _indices(reading))
        return varint(len(values)) + values.tobytes() + inner

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        count = reader.number()
        if not 0 < count <= _MOST or reading.width == 1 or reading.length % reading.width:
            raise StorageError("a packed stream's palette is damaged")
        values = np.frombuffer(reader.take(count * reading.width), f"<u{reading.width}")
        indices = np.frombuffer(self._decode_stream(reader.rest(), _indices(reading)), np.uint8)
        if len(indices) and int(indices.max()) >= count:
            raise StorageError("a packed stream names a value that its palette does not hold")
        return values[indices].tobytes()


def _indices(reading: Reading) -> Reading:
    return Reading(reading.elements, columns=reading.columns, scale=reading.scale * reading.width)
