"""Codes of which many are zero, as runs: how many zeros, then the code behind them."""

from __future__ import annotations

import numpy as np

from autocompress.errors import StorageError
from autocompress.export.packing.codecs.base import NestingCodec, Reading
from autocompress.export.packing.codecs.units import join_codes, too_dense, usual_code
from autocompress.export.packing.numbers import Reader, varint
from autocompress.export.packing.probabilities import Symbols, entropy_bits

#: Places of so many codes are kept at a time.
_CHUNK = 1 << 16


class Runs(NestingCodec):
    """Codes of 8, 4 or 2 bits; the one that is left out is the most frequent.

    A run and the code behind it share a byte, the code in its lowest bits; codes of 8 bits are a
    stream of their own. There are fewer runs than codes and their bytes say more, so that they are
    decoded sooner and cost a prefix code less. The last code stands for itself whatever it is, and
    so does the one behind a run that is as long as runs can be.
    """

    number = 9

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The code left out, the number of runs, their streams; None where few are the same."""
        found = usual_code(data, reading)
        if found is None:
            return None
        codes, zero = found
        runs, behind = _runs(codes, zero, _longest(reading))
        streams = (
            [runs, behind] if reading.units == 1 else [runs << np.uint8(reading.bits) | behind]
        )
        if sum(map(entropy_bits, streams)) > 8 * limit:
            return None
        scale = max(1, reading.scale * reading.length // (len(runs) * len(streams)))
        coded = [self._encode_stream(s.tobytes(), Reading(len(s), scale=scale)) for s in streams]
        head = bytes([zero]) + varint(len(runs))
        whole = head + b"".join(varint(len(part)) + part for part in coded)
        return None if too_dense(len(whole), reading) else whole

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        (zero,) = reader.take(1)
        count = reader.number()
        wrong = reading.width > 1 or zero >= 1 << reading.bits
        wrong = wrong or too_dense(len(coded), reading)
        if wrong or not 0 < count <= reading.elements:
            raise StorageError("a packed stream's runs are damaged")
        parts = [reader.take(reader.number()) for _ in range(2 if reading.units == 1 else 1)]
        if not reader.done:
            raise StorageError("a packed stream has bytes behind its end")
        streams = [
            np.frombuffer(self._decode_stream(part, Reading(count)), np.uint8) for part in parts
        ]
        if reading.units > 1:
            shift = np.uint8(reading.bits)
            streams = [streams[0] >> shift, streams[0] & np.uint8((1 << reading.bits) - 1)]
        runs, behind = streams
        if int(runs.sum(dtype=np.int64)) + count != reading.elements:  # before room is made
            raise StorageError("a packed stream's runs do not fill their tensor")
        codes = np.full(reading.elements, zero, np.uint8)
        _fill(codes, runs, behind)
        return join_codes(codes, reading)


def _longest(reading: Reading) -> int:
    """The longest run that has room in its byte."""
    return 255 if reading.units == 1 else (1 << (8 - reading.bits)) - 1


def _runs(codes: Symbols, zero: int, longest: int) -> tuple[Symbols, Symbols]:
    """The runs and what stands behind each; a longer run is cut where a zero stands behind it."""
    places = np.flatnonzero(codes != zero)
    if not len(places) or places[-1] != len(codes) - 1:
        places = np.append(places, len(codes) - 1)
    lengths = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(lengths // (longest + 1) + 1) - 1
    runs = np.full(ends[-1] + 1, longest, np.uint8)
    behind = np.full(ends[-1] + 1, zero, np.uint8)
    runs[ends] = lengths % (longest + 1)
    behind[ends] = codes[places]
    return runs, behind


def _fill(codes: Symbols, runs: Symbols, behind: Symbols) -> None:
    """Put the codes behind the runs where they belong; runs and codes fill the tensor."""
    end = 0
    for first in range(0, len(runs), _CHUNK):
        places = np.cumsum(runs[first : first + _CHUNK], dtype=np.int64)
        places += np.arange(end, end + len(places))
        codes[places] = behind[first : first + _CHUNK]
        end = int(places[-1]) + 1
