"""Where a tensor's non-zeros are, each entry under a probability of its own.

Zeros of pruned networks gather in columns (an input that matters to no output, such as the border
of a picture) and in rows (an output that hardly reads anything). The probability of a non-zero is
``row factor * (non-zeros above it + k * density) / (rows above it + k)``, with a factor for each
row, from 1/16 to about 11, that the file holds in about two bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autocompress.errors import StorageError
from autocompress.export.packing.ans import Decoder, Encoder
from autocompress.export.packing.numbers import Reader
from autocompress.export.packing.probabilities import Prior, Symbols

#: A tensor with a smaller share of zeros is not worth a mask.
WORTHWHILE = 0.4
#: Row factors are 2 ** ((code - 8) / 2), in units of 1/256.
_FACTORS = np.array(
    [16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896], np.int64
)
_NEUTRAL = 8
#: How much the density of the whole tensor counts, in units of 1/256 of a row.
_PULLS = (64, 128, 256, 512, 1024, 2048, 4096, 16384)
_FACTOR_PRIOR = Prior(1, _NEUTRAL, 2, 2)
_LEAST = 2.0**-14
#: Entries whose probabilities are held at a time.
_CHUNK = 1 << 16
_Mask = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Density:
    """How likely a non-zero is: the tensor's density (in 1/65536) and how much that counts."""

    whole: int
    pull: int

    def row(self, above: npt.NDArray[np.int64], weight: int, factor: int) -> _Floats:
        """Probabilities of one row, given the non-zeros above it and its factor."""
        # every product is a whole number below 2^53, so that no machine rounds another way
        counted = (above << 24) + self.pull * self.whole
        share = counted / ((weight + self.pull) << 16)
        return np.clip(share * (factor / 256.0), _LEAST, 1.0 - _LEAST)


def push_mask(encoder: Encoder, mask: _Mask) -> bytes:
    """Push a mask of shape ``(rows, columns)``; the three bytes that :func:`pop_mask` needs."""
    density, factors, probabilities = _fit(mask)
    encoder.push_bits(mask, probabilities)
    encoder.push_symbols(factors, 4, 1, _FACTOR_PRIOR)
    return bytes([_PULLS.index(density.pull)]) + density.whole.to_bytes(2, "little")


def pop_mask(decoder: Decoder, head: bytes, rows: int, columns: int) -> _Mask:
    """Inverse of :func:`push_mask`.

    Raises:
        StorageError: the head is damaged.
    """
    reader = Reader(head)
    (pull,) = reader.take(1)
    if pull >= len(_PULLS):
        raise StorageError("a packed stream's densities are damaged")
    density = _Density(int.from_bytes(reader.take(2), "little"), _PULLS[pull])
    factors = decoder.pop_symbols(rows, 4, 1, _FACTOR_PRIOR)
    mask = np.empty((rows, columns), np.bool_)
    above, weight = np.zeros(columns, np.int64), 0
    for row in range(rows):
        factor = int(_FACTORS[factors[row]])
        for start in range(0, columns, _CHUNK):  # probabilities take far more room than bits
            part = slice(start, start + _CHUNK)
            mask[row, part] = decoder.pop_bits(density.row(above[part], weight, factor))
        above += mask[row]
        weight += factor
    return mask


def _fit(mask: _Mask) -> tuple[_Density, Symbols, _Floats]:
    """The density, factors and probabilities under which the mask takes the fewest bits."""
    whole = min(max(round(float(mask.mean()) * 65536), 1), 65535)
    level = np.full(len(mask), _NEUTRAL, np.uint8)
    best, fewest = (_Density(whole, _PULLS[0]), level, np.empty(0)), np.inf
    for factors, overhead in ((level, 1.0), (_row_factors(mask, whole), 2.5 * len(mask))):
        for pull in _PULLS:
            density = _Density(whole, pull)
            probabilities = _probabilities(mask, density, factors)
            likely = np.where(mask, probabilities, 1.0 - probabilities)
            bits = overhead - float(np.log2(likely).sum())
            if bits < fewest:
                best, fewest = (density, factors, probabilities), bits
    return best


def _row_factors(mask: _Mask, whole: int) -> Symbols:
    """The factor of each row that comes nearest to what it holds."""
    wanted = mask.sum(axis=1) + 0.25
    usual = mask.shape[1] * whole / 65536 + 0.25
    codes = np.round(2.0 * np.log2(wanted / usual)).astype(np.int64) + _NEUTRAL
    found: Symbols = np.clip(codes, 0, len(_FACTORS) - 1).astype(np.uint8)
    return found


def _probabilities(mask: _Mask, density: _Density, factors: Symbols) -> _Floats:
    found = np.empty(mask.shape)
    above, weight = np.zeros(mask.shape[1], np.int64), 0
    for row, held in enumerate(mask):
        factor = int(_FACTORS[factors[row]])
        found[row] = density.row(above, weight, factor)
        above += held
        weight += factor
    return found
