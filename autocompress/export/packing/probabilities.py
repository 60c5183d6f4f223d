"""What symbols are likely: a prior of a few bytes, sharpened by the symbols already coded.

A model's weights are whole numbers and its probabilities quotients of two of them, so that every
machine computes the same ones and a file packed here is unpacked anywhere. The estimate is that of
Dirichlet-multinomial coding, ``(count + strength * prior) / (total + strength)`` (Krichevsky &
Trofimov 1981 with another prior), brought up to date at the ends of blocks that grow with what has
been seen: no table of frequencies is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.errors import StorageError

Symbols: TypeAlias = npt.NDArray[np.uint8]
_Ints: TypeAlias = npt.NDArray[np.int64]
_Floats: TypeAlias = npt.NDArray[np.float64]

#: Sum of a prior's weights, about.
_MASS = 1 << 20
_LARGEST_BLOCK = 1 << 18
#: From so many symbols on, counting them in pairs is faster.
_PAIRED = 1 << 16
_STRENGTHS = (0, 2, 4, 6, 8)
#: Bytes of a :class:`Prior` in the file.
PRIOR_BYTES = 5
#: ``r`` in units of 2^-24, by the prior's second byte. First ``exp(-1 / b)`` for b from 0.35 to 60,
#: then ``exp(-1 / (2 s^2))`` for s from 0.4 to 60. Written out: no two machines' exp() need agree.
_GEOMETRIC = (
    963559, 4020677, 6171993, 8613710, 11246104, 13066109,
    14201607, 15012913, 15620641, 16031687, 16304650, 16499913,
)  # fmt: skip
_NORMAL = (
    737139, 4183436, 9049756, 12999615, 14978908, 15977694,
    16445005, 16646655, 16727653, 16758205, 16769961, 16774886,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prior:
    """What is thought of symbols before any was seen; five bytes in the file.

    Weights fall with the distance ``d`` from the centre, counted around the circle of the alphabet
    so that two's complement needs no shift: as ``r ** d`` (a two-sided geometric distribution) or
    as ``r ** (d * d)`` (a discrete normal one). Weights of pruned networks have a peak at zero on
    top of that.

    Attributes:
        normal: 1 for the second form.
        centre: the likeliest symbol.
        spread: 0 to 11, which ``r``.
        strength: the prior counts as ``2 ** strength`` symbols.
        peak: sixteenths of all symbols that are the centre on top of the distribution, 0 to 15.
    """

    normal: int
    centre: int
    spread: int
    strength: int
    peak: int = 0

    def to_bytes(self) -> bytes:
        """Its five bytes."""
        return bytes([self.normal, self.centre, self.spread, self.strength, self.peak])

    @classmethod
    def from_bytes(cls, data: bytes, bits: int) -> Prior:
        """Inverse of :meth:`to_bytes`, for symbols of so many bits.

        Raises:
            StorageError: they are no prior.
        """
        wrong = len(data) != PRIOR_BYTES or data[0] > 1 or data[2] >= len(_NORMAL)
        if wrong or data[1] >= 1 << bits or data[3] > 16 or data[4] > 15:
            raise StorageError("a packed stream's prior is damaged")
        return cls(*data)

    def weights(self, bits: int) -> _Ints:
        """One weight of at least 1 per symbol of so many bits; they sum to about a million."""
        size = 1 << bits
        falling = _falling(self.normal, self.spread, size // 2 + 1)
        distance = (np.arange(size) - self.centre) % size
        weights = falling[np.minimum(distance, size - distance)]
        spread = weights * (_MASS * (16 - self.peak) // 16) // weights.sum()
        spread[self.centre] += _MASS * self.peak // 16
        found: _Ints = np.maximum(spread, 1)
        return found


@lru_cache(maxsize=256)
def _falling(normal: int, spread: int, count: int) -> _Ints:
    """``r ** d`` or ``r ** (d * d)`` for d from 0, in whole numbers."""
    weight = _MASS << 24
    ratio = (_NORMAL if normal else _GEOMETRIC)[spread]
    growth = ratio * ratio >> 24 if normal else 1 << 24  # (d + 1)^2 - d^2 grows by 2
    found = []
    for _ in range(count):
        found.append(weight >> 24)
        weight = weight * ratio >> 24
        ratio = ratio * growth >> 24
    return np.array(found, np.int64)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often probabilities are brought up to date.

    Attributes:
        first: symbols of the shortest block.
        share: a block has this part of the symbols before it, up to 2^18.
    """

    first: int
    share: int


#: That of earlier releases, and one of fewer blocks that learns as well.
FINE, COARSE = Pace(64, 16), Pace(32, 4)


def blocks(count: int, pace: Pace) -> Iterator[tuple[int, int]]:
    """Start and end of each block of ``count`` symbols."""
    start = 0
    while start < count:
        end = min(count, start + min(max(pace.first, start // pace.share), _LARGEST_BLOCK))
        yield start, end
        start = end


class AdaptiveModel:
    """Probabilities of symbols that are made of one, two or four units each.

    The units of a symbol are taken as independent, so that two 4-bit codes in a byte cost what
    they cost one by one and are coded in one step.

    Args:
        bits: of a unit.
        units: per symbol, the first in the lowest bits.
        prior: of the units.
    """

    def __init__(self, bits: int, units: int, prior: Prior) -> None:
        self.bits = bits
        self.units = units
        self.strength = prior.strength
        self.prior = prior.weights(bits)
        self.counts = np.zeros(1 << bits, np.int64)

    def see(self, symbols: Symbols) -> None:
        """Count symbols that have been coded."""
        self.counts += unit_counts(symbols, self.bits, self.units)

    def probabilities(self) -> _Floats:
        """One per symbol, positive, shape ``(2 ** (bits * units),)``."""
        weights = (self.counts << 20) + (self.prior << self.strength)
        unit = weights / int(weights.sum())
        symbol = unit
        for _ in range(self.units - 1):
            symbol = (unit[:, None] * symbol[None, :]).ravel()
        return symbol


def unit_counts(symbols: Symbols, bits: int, units: int) -> _Ints:
    """How often each unit occurs, shape ``(2 ** bits,)``."""
    whole = _histogram(symbols)[: 1 << (bits * units)]
    grid = whole.reshape([1 << bits] * units)
    found = np.zeros(1 << bits, np.int64)
    for axis in range(units):
        found += grid.sum(axis=tuple(other for other in range(units) if other != axis))
    return found


def _histogram(symbols: Symbols) -> _Ints:
    """How often each byte occurs, shape ``(256,)``; long arrays are counted two at a time."""
    if len(symbols) < _PAIRED:
        return np.bincount(symbols, minlength=256).astype(np.int64)
    even = len(symbols) // 2 * 2
    pairs = np.bincount(np.ascontiguousarray(symbols[:even]).view(np.uint16), minlength=1 << 16)
    grid = pairs.reshape(256, 256)
    found: _Ints = (grid.sum(axis=0) + grid.sum(axis=1)).astype(np.int64)
    found[symbols[even:]] += 1
    return found


def best_prior(symbols: Symbols, bits: int, units: int, pace: Pace) -> tuple[Prior, float]:
    """The prior under which the symbols take the fewest bits, and these bits."""
    per_block = np.array(
        [unit_counts(symbols[start:end], bits, units) for start, end in blocks(len(symbols), pace)],
        np.int64,
    ).reshape(-1, 1 << bits)
    used = per_block.sum(axis=0)
    present = np.flatnonzero(used)
    sizes = per_block.sum(axis=1)
    all_before = np.cumsum(sizes) - sizes
    per_block = per_block[:, present]
    before = np.cumsum(per_block, axis=0) - per_block
    centre = int(used.argmax())
    count = max(1, int(used.sum()))
    beside = int(used[centre - 1] + used[(centre + 1) % len(used)]) / 2
    extra = min(15, round(16 * max(0.0, used[centre] - beside) / count))
    best, fewest = Prior(0, centre, 0, 0), float("inf")
    strengths = np.array(_STRENGTHS)
    for normal, spread, peak in product((0, 1), range(len(_NORMAL)), sorted({0, extra})):
        weights = Prior(normal, centre, spread, 0, peak).weights(bits)
        seen = (before << 20) + (weights[present] << strengths[:, None, None])
        total = (all_before << 20) + (weights.sum() << strengths[:, None])
        costs = (sizes * np.log2(total)).sum(axis=1) - (per_block * np.log2(seen)).sum(axis=(1, 2))
        least = int(costs.argmin())
        if costs[least] < fewest:
            best = Prior(normal, centre, spread, _STRENGTHS[least], peak)
            fewest = float(costs[least])
    return best, fewest


def entropy_bits(symbols: Symbols) -> float:
    """Bits that symbols take at least when coded one by one under a model that does not learn."""
    counts = _histogram(symbols)
    counts = counts[counts > 0]
    return -float((counts * np.log2(counts / max(len(symbols), 1))).sum())
