"""The codecs by number, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.adaptive import Adaptive, FineAdaptive
from autocompress.export.packing.codecs.base import Codec, Reading
from autocompress.export.packing.codecs.general import Deflate, Huffman, Lzma
from autocompress.export.packing.codecs.grouped import Grouped
from autocompress.export.packing.codecs.narrow import Narrow
from autocompress.export.packing.codecs.palette import Palette
from autocompress.export.packing.codecs.plain import Plain
from autocompress.export.packing.codecs.planes import Planes
from autocompress.export.packing.codecs.runs import Runs
from autocompress.export.packing.codecs.sparse import SparseCodes, SparseNumbers

#: Streams of fewer bytes are written in the shortest way, however long that takes to read.
_LONG = 8192
#: In longer ones, a codec's delay has to save one byte in so many.
_PATIENCE = 64

_Codecs: TypeAlias = tuple[Codec, ...]
_Ways: TypeAlias = tuple[Callable[[bytes, Reading], bytes], Callable[[bytes, Reading], bytes]]


def encode_stream(data: bytes, reading: Reading) -> bytes:
    """The bytes in the shortest way that can be read in time; the first byte names the codec."""
    return _encode(data, reading, CODECS)


def decode_stream(coded: bytes, reading: Reading) -> bytes:
    """Inverse of :func:`encode_stream`.

    Raises:
        StorageError: the bytes are damaged.
    """
    return _decode(coded, reading, CODECS)


def _encode(data: bytes, reading: Reading, codecs: _Codecs) -> bytes:
    # any codec reads in time a stream of which each byte stands for several of the tensor
    hurried = reading.scale == 1 and reading.length >= _LONG
    best, number, cost = data, Plain.number, len(data) * _PATIENCE
    for codec in codecs:
        price = _PATIENCE + codec.delay if hurried else _PATIENCE
        coded = codec.encode(data, reading, -(-cost // price))
        if coded is not None and len(coded) * price < cost:
            best, number, cost = coded, codec.number, len(coded) * price
    return bytes([number]) + best


def _decode(coded: bytes, reading: Reading, codecs: _Codecs) -> bytes:
    number = coded[0] if coded else None
    codec = next((c for c in (*codecs, Plain(), FineAdaptive()) if c.number == number), None)
    if codec is None:
        raise StorageError("a packed stream has an encoding that this version does not know")
    return codec.decode(coded[1:], reading)


def _among(codecs: _Codecs) -> _Ways:
    """Both ways of a stream that is written by one of these: what nests, nests no deeper."""
    return (
        lambda data, reading: _encode(data, reading, codecs),
        lambda coded, reading: _decode(coded, reading, codecs),
    )


_SIMPLE: _Codecs = (Huffman(), Adaptive())
_PLANES = Planes(encode_stream, decode_stream)
_SPARSE: _Codecs = (Runs(*_among(_SIMPLE)), Grouped(*_among((*_SIMPLE, _PLANES))))
#: In the order in which they are tried; what comes later must be shorter to be taken.
CODECS: _Codecs = (
    *_SIMPLE,
    *_SPARSE,
    Narrow(*_among((*_SIMPLE, *_SPARSE))),
    SparseCodes(),
    Palette(encode_stream, decode_stream),
    SparseNumbers(encode_stream, decode_stream),
    _PLANES,
    Deflate(),
    Lzma(),
)
