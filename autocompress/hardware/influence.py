"""Learnt look-ups from whole numbers to whole numbers, exact on everything they have seen.

:class:`GeneLookup` learns which genes decide a quantity and which options of a gene are alike, so
that what was seen for one genome answers for all that are alike. :class:`FeatureLookup` does the
same for derived features. Each further observation either agrees or shows what was overlooked.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints: TypeAlias = npt.NDArray[np.int64]

_DENSE = 1 << 16
#: Codes from which on a hash table is faster than bisection.
_MANY = 256
_LARGEST = 1 << 60
_HASH = np.int64(0x5851F42D4C957F2D)
_POSITIVE = np.int64(0x7FFFFFFFFFFFFFFF)


class Codes:
    """From code to payload."""

    def __init__(self) -> None:
        self._codes = np.zeros(0, dtype=np.int64)
        self._payloads = np.zeros(0, dtype=np.int64)
        self._dense: Ints | None = None
        self._hashes: pd.Index[int] | None = None

    def learn(self, codes: Ints, payloads: Ints) -> tuple[int, int] | None:
        """Take in codes; returns two rows with one code and different payloads, if any."""
        unique, first, back = np.unique(codes, return_index=True, return_inverse=True)
        wrong = np.flatnonzero(payloads[first][back] != payloads)
        if wrong.size:
            row = int(wrong[0])
            return int(first[back[row]]), row
        self._codes, self._payloads = unique, payloads[first]
        self._dense = self._hashes = None
        if unique.size and int(unique[-1]) < _DENSE:
            # one more place, which stays unknown, for every code beyond
            self._dense = np.full(int(unique[-1]) + 2, -1, dtype=np.int64)
            self._dense[unique] = self._payloads
        return None

    def extend(self, codes: Ints, payloads: Ints) -> bool:
        """Take in further codes; False, and nothing taken in, where they clash."""
        known = self.find(codes)
        if ((known >= 0) & (known != payloads)).any() or (codes < 0).any():
            return False
        new = known < 0
        if not new.any():
            return True
        together = np.concatenate([self._codes, codes[new]])
        return self.learn(together, np.concatenate([self._payloads, payloads[new]])) is None

    def find(self, codes: Ints) -> Ints:
        """Payloads; -1 where the code was never seen or is negative."""
        if not self._codes.size:
            return np.full(len(codes), -1, dtype=np.int64)
        if self._dense is not None:
            # a negative code counts from the end: the last place is the unknown one
            return self._dense[np.clip(codes, -1, len(self._dense) - 1)]
        if len(codes) < _MANY:
            place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
            return np.where(self._codes[place] == codes, self._payloads[place], -1)
        if self._hashes is None:
            self._hashes = pd.Index(self._codes)
        place = self._hashes.get_indexer(pd.Index(codes))
        return np.where(place >= 0, self._payloads[place], -1)


class GeneLookup:
    """From genomes to payloads.

    Args:
        sizes: number of options per gene.
    """

    def __init__(self, sizes: Ints) -> None:
        self._sizes = sizes
        self._classes: dict[int, Ints] = {}
        self._strides: list[tuple[int, Ints]] = []
        self._codes = Codes()

    @property
    def genes(self) -> tuple[int, ...]:
        """The genes that matter, in order."""
        return tuple(sorted(self._classes))

    def alike(self, gene: int) -> Ints:
        """The class of each option of ``gene``; all 0 when it does not matter."""
        found = self._classes.get(gene)
        return np.zeros(int(self._sizes[gene]), dtype=np.int64) if found is None else found

    def observe(self, gene: int, classes: Sequence[int]) -> None:
        """Tell options of ``gene`` apart at least as ``classes`` does."""
        combined = [*zip(self.alike(gene).tolist(), classes, strict=True)]
        numbers = {pair: i for i, pair in enumerate(dict.fromkeys(combined))}
        if len(numbers) > 1:
            self._classes[gene] = np.array([numbers[pair] for pair in combined], dtype=np.int64)
            self._prepare()

    def separate(self, gene: int) -> bool:
        """Tell all options of ``gene`` apart; False if they were already."""
        size = int(self._sizes[gene])
        if len(np.unique(self.alike(gene))) == size:
            return False
        self._classes[gene] = np.arange(size, dtype=np.int64)
        self._prepare()
        return True

    def _prepare(self) -> None:
        self._strides, span = [], 1
        for gene in self.genes:
            classes = self._classes[gene]
            self._strides.append((gene, classes * span))
            span *= int(classes.max()) + 1
            if span > _LARGEST:
                raise OverflowError("too many genes decide one operation to index them")

    def codes(self, columns: Ints) -> Ints:
        """A number per genome, given genes as rows, shape ``(genes, n)``."""
        codes = np.zeros(columns.shape[1], dtype=np.int64)
        for gene, stride in self._strides:
            codes += stride[columns[gene]]
        return codes

    def learn(self, columns: Ints, payloads: Ints) -> tuple[int, int] | None:
        """Take in everything known; returns two alike genomes with different payloads, if any."""
        return self._codes.learn(self.codes(columns), payloads)

    def extend(self, columns: Ints, payloads: Ints) -> bool:
        """Take in further genomes; False where they clash with what is known."""
        return self._codes.extend(self.codes(columns), payloads)

    def find(self, codes: Ints) -> Ints:
        """Payloads of codes; -1 where nothing alike was seen."""
        return self._codes.find(codes)


class FeatureLookup:
    """From a few columns of a feature matrix to payloads.

    Args:
        features: the rows of the matrix that are known to matter from the start.
    """

    def __init__(self, features: Sequence[int]) -> None:
        self.features = list(features)
        self._given = len(self.features)
        self._radix: list[int] = []
        self._hashed = False
        self._codes = Codes()

    def codes(self, matrix: Ints) -> Ints:
        """A number per column of ``matrix``; -1 where a feature has a value never seen."""
        if len(self._radix) != len(self.features):
            return np.full(matrix.shape[1], -1, dtype=np.int64)
        codes = np.zeros(matrix.shape[1], dtype=np.int64)
        fresh: npt.NDArray[np.bool_] | None = None
        for feature, radix in zip(self.features, self._radix, strict=True):
            values = matrix[feature]
            beyond = (values < 0) | (values >= radix)
            if beyond.any():
                fresh = beyond if fresh is None else fresh | beyond
            codes *= _HASH if self._hashed else radix  # wraps around when hashed
            codes += values
        if self._hashed:
            codes &= _POSITIVE
        if fresh is not None:
            codes[fresh] = -1
        return codes

    def learn(self, matrix: Ints, payloads: Ints) -> tuple[int, int] | None:
        """Take in everything known; returns two alike columns with different payloads, if any."""
        self._radix = [int(matrix[f].max(initial=0)) + 1 for f in self.features]
        # too many to number: a 63-bit hash (a clash of two codes would show as a wrong price)
        self._hashed = prod(self._radix) > _LARGEST
        return self._codes.learn(self.codes(matrix), payloads)

    def extend(self, matrix: Ints, payloads: Ints) -> bool:
        """Take in further columns; False where they clash, or a feature has a new value."""
        return self._codes.extend(self.codes(matrix), payloads)

    def thin_out(self, matrix: Ints, payloads: Ints) -> None:
        """Drop features that joined in but without which nothing clashes either, latest first."""
        for feature in self.features[self._given :][::-1]:
            kept = self.features
            self.features = [f for f in kept if f != feature]
            if self.learn(matrix, payloads) is not None:
                self.features = kept
        self.learn(matrix, payloads)

    def find(self, codes: Ints) -> Ints:
        """Payloads of codes; -1 where nothing alike was seen."""
        return self._codes.find(codes)
