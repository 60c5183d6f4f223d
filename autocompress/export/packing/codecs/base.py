"""What a codec is: one way to write a tensor's bytes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

UNIT_BITS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a tensor's bytes are to be read; known to packer and unpacker alike.

    Attributes:
        length: bytes.
        bits: of one code: 8, or 4 or 2 for several codes to a byte, the first in the lowest bits.
        width: bytes of one element: 1, or 2, 4, 8 for numbers of several bytes.
        columns: elements to a row (what one output channel reads); 0 puts all into one row.
        scale: bytes of the tensor that each byte here stands for. Only a packer needs to know.
    """

    length: int
    bits: int = 8
    width: int = 1
    columns: int = 0
    scale: int = 1

    @property
    def units(self) -> int:
        """Codes to a byte."""
        return 8 // self.bits

    @property
    def elements(self) -> int:
        """Codes, or numbers of several bytes; what is left over at the end is not counted."""
        return self.length * self.units // self.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns that hold all elements; the last row may have room to spare."""
        columns = self.columns or max(self.elements, 1)
        return -(-self.elements // columns), columns


class Codec(ABC):
    """One way to write bytes that are read in some way.

    A codec keeps two promises: :meth:`decode` gives back exactly what :meth:`encode` was given,
    and it makes no more bytes than was said and fails with a StorageError on any others.

    Attributes:
        number: what the file holds; never used again for another codec.
        delay: how long its streams take to read: 0 for hundreds of megabytes a second, 1 for some
            tens, 2 for fewer.
    """

    number: ClassVar[int]
    delay: ClassVar[int] = 0

    @abstractmethod
    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The bytes, coded; None where it cannot be done or will not come under ``limit`` bytes."""

    @abstractmethod
    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """Inverse of :meth:`encode`.

        Raises:
            StorageError: the bytes are damaged.
        """


class NestingCodec(Codec):
    """A codec whose parts are streams of their own.

    Args:
        encode_stream: writes a part in whatever way is shortest.
        decode_stream: its inverse.
    """

    def __init__(
        self,
        encode_stream: Callable[[bytes, Reading], bytes],
        decode_stream: Callable[[bytes, Reading], bytes],
    ) -> None:
        self._encode_stream = encode_stream
        self._decode_stream = decode_stream
