"""Compressors of the standard library: for graphs, names, whatever repeats, and in a hurry."""

from __future__ import annotations

import lzma
import zlib

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import Codec, Reading
from autocompress.export.packing.dictionary import DICTIONARY

#: Longer streams are tried on their first part, and only continued where that pays.
_SAMPLE = 1 << 18


class Lzma(Codec):
    """LZMA2; positions carry no meaning, so that no bits of them are modelled."""

    number = 1

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """Coded; None where a sample of a long stream promises nothing."""
        if len(data) > 2 * _SAMPLE:
            sample = lzma.compress(data[:_SAMPLE], lzma.FORMAT_RAW, filters=_filters(_SAMPLE))
            if len(sample) * len(data) > limit * _SAMPLE:
                return None
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_filters(len(data)))

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """Never makes more than what was said."""
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(reading.length))
        try:
            found = decoder.decompress(coded, max_length=reading.length + 1)
        except lzma.LZMAError as error:
            raise StorageError(f"a packed stream is damaged: {error}") from error
        if decoder.unused_data:
            raise StorageError("a packed stream has bytes behind its end")
        return _checked(found, reading)


class Deflate(Codec):
    """Deflate that starts from a dictionary of what ONNX files say, for short graphs."""

    number = 2

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """Coded; None for long streams, which a dictionary does not help."""
        if len(data) > _SAMPLE:
            return None
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
        return coder.compress(data) + coder.flush()

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """Never makes more than what was said."""
        return _inflated(zlib.decompressobj(-15, DICTIONARY), coded, reading)


class Huffman(Codec):
    """Huffman coding of bytes, by Deflate that looks for no repetitions.

    A code costs about half a percent over its entropy and is decoded some ten times as fast as by
    asymmetric numeral systems; where one byte is more frequent than all others, it costs too much.
    """

    number = 8

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """Coded."""
        if reading.width > 1:
            return None
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        return coder.compress(data) + coder.flush()

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """Never makes more than what was said."""
        return _inflated(zlib.decompressobj(-15), coded, reading)


def _inflated(decoder: zlib._Decompress, coded: bytes, reading: Reading) -> bytes:
    try:
        found = decoder.decompress(coded, reading.length + 1)
    except zlib.error as error:
        raise StorageError(f"a packed stream is damaged: {error}") from error
    if decoder.unused_data or not decoder.eof:
        raise StorageError("a packed stream does not end where it should")
    return _checked(found, reading)


def _checked(found: bytes, reading: Reading) -> bytes:
    if len(found) != reading.length:
        raise StorageError(f"a packed stream holds {len(found)} bytes, not {reading.length}")
    return found


def _filters(length: int) -> list[dict[str, int]]:
    window = min(max(1 << max(length - 1, 1).bit_length(), 4096), 1 << 26)
    return [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": window,
            "lc": 3,
            "lp": 0,
            "pb": 0,
        }
    ]
