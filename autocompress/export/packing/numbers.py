"""Whole numbers of any size in a byte stream, and a reader that never runs past its end."""

from __future__ import annotations

from autocompress.errors import StorageError


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the high bit says that more follow."""
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


class Reader:
    """Reads a packed stream from its front.

    Every method raises :class:`StorageError` where the stream ends too early.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise StorageError("the packed model is truncated")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self) -> int:
        """The next :func:`varint`."""
        number = 0
        for shift in range(0, 63, 7):
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise StorageError("the packed model holds a number that is too long")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)
