"""Wide numbers byte by byte: signs and exponents repeat, the last bits of a mantissa do not."""

from __future__ import annotations

import numpy as np

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import NestingCodec, Reading
from autocompress.export.packing.numbers import Reader, varint


class Planes(NestingCodec):
    """The first bytes of all elements, then the second, each a stream of its own."""

    number = 6

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """Each plane's length and coded bytes."""
        if reading.width == 1 or reading.length % reading.width:
            return None
        planes = np.frombuffer(data, np.uint8).reshape(-1, reading.width).T
        inner = Reading(reading.elements, columns=reading.columns)
        coded = [self._encode_stream(plane.tobytes(), inner) for plane in planes]
        return b"".join(varint(len(part)) + part for part in coded)

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        if reading.width == 1 or reading.length % reading.width:
            raise StorageError("a packed stream's planes are damaged")
        reader = Reader(coded)
        inner = Reading(reading.elements, columns=reading.columns)
        planes = []
        for _ in range(reading.width):
            part = reader.take(reader.number())
            planes.append(np.frombuffer(self._decode_stream(part, inner), np.uint8))
        if not reader.done:
            raise StorageError("a packed stream has bytes behind its end")
        return np.stack(planes, axis=1).tobytes()
