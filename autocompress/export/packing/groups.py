"""Where a tensor's non-zeros are, by groups of entries.

Rows and columns have levels; an entry's group is the sum of both, and in a group all entries are
equally likely to be zero, so that eight of them are coded in one step. ``mask`` comes a percent or
two closer with a probability for every entry, and takes several times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import StorageError
from autocompress.export.packing.ans import Decoder, Encoder
from autocompress.export.packing.numbers import Reader
from autocompress.export.packing.probabilities import Symbols

#: Rows and columns have one of so many levels.
LEVELS = 16
#: That of as many non-zeros as the mean row or column has.
_MEAN_LEVEL = 11
#: Levels to a doubling of the non-zeros; 0 puts all rows, or all columns, on one level.
_STEPS = (0, 1, 2)
#: Densities are held in units of one by so many.
_UNIT = 1 << 16
_Mask = npt.NDArray[np.bool_]
_Counts = npt.NDArray[np.int64]
_Blocks = list[tuple[slice, slice]]


@dataclass(frozen=True, slots=True)
class Groups:
    """Levels of a mask's rows and columns, below ``LEVELS``."""

    rows: Symbols
    columns: Symbols

    def encode(self, mask: _Mask) -> bytes:
        """Each group's density in two bytes, then the entries; ``mask`` is (rows, columns)."""
        by_rows = mask[np.argsort(self.rows, kind="stable")]
        ordered = np.take(by_rows, np.argsort(self.columns, kind="stable"), axis=1)
        held = [np.concatenate([ordered[b].ravel() for b in group]) for group in self._groups()]
        densities = [
            min(max(round(int(bits.sum()) * _UNIT / len(bits)), 1), _UNIT - 1) for bits in held
        ]
        encoder = Encoder()
        for bits, density in zip(reversed(held), reversed(densities), strict=True):
            encoder.push_equal_bits(bits, density / _UNIT)
        return np.array(densities, "<u2").tobytes() + encoder.finish()

    def decode(self, coded: bytes) -> _Mask:
        """Inverse of :meth:`encode`.

        Raises:
            StorageError: the bytes are damaged.
        """
        groups = list(self._groups())
        reader = Reader(coded)
        densities = np.frombuffer(reader.take(2 * len(groups)), "<u2").tolist()
        if 0 in densities:
            raise StorageError("a packed stream's densities are damaged")
        decoder = Decoder(reader.rest())
        ordered = np.empty((len(self.rows), len(self.columns)), np.bool_)
        for group, density in zip(groups, densities, strict=True):
            sizes = [ordered[block].size for block in group]
            bits = decoder.pop_equal_bits(sum(sizes), density / _UNIT)
            for block, end, size in zip(group, np.cumsum(sizes), sizes, strict=True):
                ordered[block] = bits[end - size : end].reshape(ordered[block].shape)
        decoder.finish()
        ordered = ordered[_places(self.rows)]  # what is no longer needed is let go
        return np.take(ordered, _places(self.columns), axis=1)

    def _groups(self) -> Iterator[_Blocks]:
        """For each group that has entries, its blocks of the mask sorted by levels."""
        rows, columns = _slices(self.rows), _slices(self.columns)
        for group in range(2 * LEVELS - 1):
            blocks = [(rows[n], columns[group - n]) for n in rows if group - n in columns]
            if blocks:
                yield blocks


def best_groups(mask: _Mask) -> tuple[Groups, float]:
    """Those under which a mask of shape ``(rows, columns)`` takes the fewest bits, and these."""
    by_rows = [_levels(mask.sum(axis=1), step) for step in _STEPS]
    best, fewest = Groups(by_rows[0], by_rows[0]), float("inf")
    for columns in (_levels(mask.sum(axis=0), step) for step in _STEPS):
        held = np.stack([mask[:, columns == n].sum(axis=1) for n in range(LEVELS)], axis=1)
        size = np.broadcast_to(np.bincount(columns, minlength=LEVELS), held.shape)
        for rows in by_rows:
            group = (rows[:, None] + np.arange(LEVELS)).ravel()
            ones = np.bincount(group, held.ravel())
            zeros = np.bincount(group, size.ravel()) - ones
            bits = sum(
                map(_bits, (np.stack([ones, zeros]), np.bincount(rows), np.bincount(columns)))
            )
            if bits < fewest:
                best, fewest = Groups(rows, columns), bits
    return best, fewest


def _levels(counts: _Counts, step: int) -> Symbols:
    """Levels by how many non-zeros there are, compared with the mean."""
    wanted = np.log2((counts + 0.25) / (counts.mean() + 0.25))
    found: Symbols = np.clip(np.round(step * wanted) + _MEAN_LEVEL, 0, LEVELS - 1).astype(np.uint8)
    return found


def _bits(counts: npt.NDArray[Any]) -> float:
    """Entropy of symbols that occur so often, each column's for itself."""
    share = np.maximum(counts, 1) / np.maximum(counts.sum(axis=0), 1)
    return -float((counts * np.log2(share)).sum())


def _slices(levels: Symbols) -> dict[int, slice]:
    """Where each level that occurs lies once they are sorted."""
    counts = np.bincount(levels)
    ends = np.cumsum(counts)
    return {int(n): slice(int(ends[n] - counts[n]), int(ends[n])) for n in np.flatnonzero(counts)}


def _places(levels: Symbols) -> npt.NDArray[np.intp]:
    """Where each row or column lies once they are sorted by level."""
    places = np.empty(len(levels), np.intp)
    places[np.argsort(levels, kind="stable")] = np.arange(len(levels))
    return places
