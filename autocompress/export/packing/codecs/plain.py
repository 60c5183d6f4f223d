"""Bytes as they are."""

from __future__ import annotations

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import Codec, Reading


class Plain(Codec):
    """What nothing makes shorter."""

    number = 0

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The bytes."""
        return data

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """The bytes, if they are as many as was said."""
        if len(coded) != reading.length:
            raise StorageError(f"a packed stream holds {len(coded)} bytes, not {reading.length}")
        return coded
