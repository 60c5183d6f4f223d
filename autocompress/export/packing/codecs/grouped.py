"""Tensors whose zeros gather in rows and columns, in less time than ``sparse`` takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import NestingCodec, Reading
from autocompress.export.packing.codecs.units import join_codes, split_codes, too_dense
from autocompress.export.packing.groups import LEVELS, Groups, best_groups
from autocompress.export.packing.mask import WORTHWHILE
from autocompress.export.packing.numbers import Reader, varint
from autocompress.export.packing.probabilities import Symbols, entropy_bits


class Grouped(NestingCodec):
    """Codes of 8, 4 or 2 bits without the most frequent one, or wide numbers without zero."""

    number = 10
    delay = 1

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """What is left out; levels of rows and of columns, the mask, the rest; None if dense."""
        if not data or not _has_rows(reading):
            return None
        elements = _elements(data, reading)
        zero = int(np.bincount(elements).argmax()) if reading.width == 1 else 0
        mask = elements != zero
        if np.count_nonzero(mask) > (1.0 - WORTHWHILE) * len(mask):
            return None
        grid = mask.reshape(reading.grid)
        groups, bits = best_groups(grid)
        rest = elements[mask]
        if reading.width == 1 and bits + entropy_bits(rest) > 8 * limit:
            return None
        inner = _rest(len(rest), reading)
        parts = [
            self._encode_stream(groups.rows.tobytes(), _side(len(groups.rows))),
            self._encode_stream(groups.columns.tobytes(), _side(len(groups.columns))),
            groups.encode(grid),
            self._encode_stream(_joined(rest, inner), inner),
        ]
        whole = bytes([zero]) + b"".join(varint(len(part)) + part for part in parts)
        return None if too_dense(len(whole), reading) else whole

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        (zero,) = reader.take(1)
        largest = (1 << reading.bits) - 1 if reading.width == 1 else 0
        if zero > largest or not _has_rows(reading) or too_dense(len(coded), reading):
            raise StorageError("a packed stream's groups are damaged")
        rows, columns, places, others = (reader.take(reader.number()) for _ in range(4))
        if not reader.done:
            raise StorageError("a packed stream has bytes behind its end")
        groups = Groups(self._levels(rows, reading.grid[0]), self._levels(columns, reading.grid[1]))
        mask = groups.decode(places).ravel()
        count = int(np.count_nonzero(mask))
        inner = _rest(count, reading)
        rest = _elements(self._decode_stream(others, inner), inner)
        elements = np.full(reading.elements, zero, rest.dtype)
        elements[mask] = rest[:count]
        return _joined(elements, reading)

    def _levels(self, coded: bytes, count: int) -> Symbols:
        levels = np.frombuffer(self._decode_stream(coded, _side(count)), np.uint8)
        if int(levels.max()) >= LEVELS:
            raise StorageError("a packed stream's groups are damaged")
        return levels


def _has_rows(reading: Reading) -> bool:
    """Whether rows are told apart and all of them are full."""
    rows, columns = reading.grid
    whole = reading.length % reading.width == 0 and rows * columns == reading.elements
    return reading.columns > 0 and rows > 0 and whole


def _elements(data: bytes, reading: Reading) -> npt.NDArray[Any]:
    """Codes, a byte each, or the bits of wide numbers."""
    return (
        split_codes(data, reading)
        if reading.width == 1
        else np.frombuffer(data, f"<u{reading.width}")
    )


def _joined(elements: npt.NDArray[Any], reading: Reading) -> bytes:
    """Inverse of :func:`_elements`; where codes do not fill the last byte, zeros do."""
    if reading.width > 1:
        return elements.tobytes()
    return join_codes(np.pad(elements, (0, reading.elements - len(elements))), reading)


def _side(count: int) -> Reading:
    """Levels are read in no time, compared with the entries."""
    return Reading(count, scale=2)


def _rest(count: int, reading: Reading) -> Reading:
    """How the elements that are left are to be read."""
    length = -(-count // reading.units) * reading.width
    scale = reading.scale * reading.length // max(length, 1) if reading.width == 1 else 1
    return Reading(length, reading.bits, reading.width, scale=scale)
