"""Codes of 8, 4 or 2 bits out of their bytes, and back."""

from __future__ import annotations

import numpy as np

from autocompress.export.packing.codecs.base import Reading
from autocompress.export.packing.mask import WORTHWHILE
from autocompress.export.packing.probabilities import Symbols

#: So many codes may be unfolded whatever their coded form takes, and so many more for each byte of
#: it. Coders make any number of the likeliest symbol out of nothing, so that a short file could
#: ask for all memory there is.
_FREE, _PER_BYTE = 1 << 24, 1 << 12


def split_codes(data: bytes, reading: Reading) -> Symbols:
    """One code per entry, shape ``(reading.elements,)``, from the lowest bits of each byte up."""
    packed = np.frombuffer(data, np.uint8)
    if reading.units == 1:
        return packed
    codes = np.empty((len(packed), reading.units), np.uint8)
    for unit in range(reading.units):
        codes[:, unit] = packed >> np.uint8(unit * reading.bits) & np.uint8((1 << reading.bits) - 1)
    return codes.ravel()


def too_dense(coded: int, reading: Reading) -> bool:
    """Whether so many bytes stand for more codes of a byte or less than a reader unfolds."""
    return reading.width == 1 and reading.elements > _FREE + _PER_BYTE * coded


def join_codes(codes: Symbols, reading: Reading) -> bytes:
    """Inverse of :func:`split_codes`; no code is larger than its bits allow."""
    fields = codes.reshape(-1, reading.units)
    packed = fields[:, 0].copy()
    for unit in range(1, reading.units):
        packed |= fields[:, unit] << np.uint8(unit * reading.bits)
    return packed.tobytes()


def usual_code(data: bytes, reading: Reading) -> tuple[Symbols, int] | None:
    """The codes and the most frequent one, to be left out; None where no code is frequent."""
    if reading.width > 1 or not data:
        return None
    codes = split_codes(data, reading)
    counts = np.bincount(codes)
    usual = int(counts.argmax())
    return (codes, usual) if counts[usual] >= WORTHWHILE * len(codes) else None
