"""The codecs by number, and the choice among them."""

from __future__ import annotations

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.adaptive import Adaptive
from autocompress.export.packing.codecs.base import Codec, Reading
from autocompress.export.packing.codecs.general import Deflate, Lzma
from autocompress.export.packing.codecs.palette import Palette
from autocompress.export.packing.codecs.plain import Plain
from autocompress.export.packing.codecs.planes import Planes
from autocompress.export.packing.codecs.sparse import SparseCodes, SparseNumbers


def encode_stream(data: bytes, reading: Reading) -> bytes:
    """The bytes in whatever way is shortest; the first byte names the codec."""
    best, number = data, Plain.number
    for codec in CODECS:
        coded = codec.encode(data, reading, len(best))
        if coded is not None and len(coded) < len(best):
            best, number = coded, codec.number
    return bytes([number]) + best


def decode_stream(coded: bytes, reading: Reading) -> bytes:
    """Inverse of :func:`encode_stream`.

    Raises:
        StorageError: the bytes are damaged.
    """
    codec = _BY_NUMBER.get(coded[0]) if coded else None
    if codec is None:
        raise StorageError("a packed stream has an encoding that this version does not know")
    return codec.decode(coded[1:], reading)


#: In the order in which they are tried; what comes later must be shorter to be taken.
CODECS: tuple[Codec, ...] = (
    Adaptive(),
    SparseCodes(),
    Palette(encode_stream, decode_stream),
    SparseNumbers(encode_stream, decode_stream),
    Planes(encode_stream, decode_stream),
    Deflate(),
    Lzma(),
)
_BY_NUMBER: dict[int, Codec] = {codec.number: codec for codec in (Plain(), *CODECS)}
