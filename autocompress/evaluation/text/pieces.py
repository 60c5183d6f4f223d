"""Which pieces of words a vocabulary should hold: those that occur together most often."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

#: In front of a piece that goes on with a word.
CONTINUES = "##"

Pair = tuple[str, str]


def learn_pieces(counts: Mapping[str, int], size: int, least: int = 2) -> list[str]:
    """Word pieces by byte-pair encoding: the most frequent pair of neighbours becomes one piece.

    Sennrich et al. 2016, arXiv:1508.07909; continuing pieces begin with "##", as in WordPiece.
    Ties are broken by spelling, so that the same words give the same pieces everywhere.

    Args:
        counts: how often each word occurs.
        size: pieces at the most. The characters come first, the most frequent ones where there are
            more of them than that.
        least: a pair that occurs less often is not joined, nor is a rarer character kept.

    Returns:
        Characters, the most frequent first, then the joined pieces in the order of joining.
    """
    split = {word: _characters(word) for word in counts}
    letters: Counter[str] = Counter()
    for word, parts in split.items():
        for part in parts:
            letters[part] += counts[word]
    frequent = [piece for piece, count in letters.items() if count >= least]
    pieces = dict.fromkeys(sorted(frequent, key=lambda p: (-letters[p], p))[:size])
    joined = _Joining(split, counts)
    while len(pieces) < size:
        best = joined.most_frequent(least)
        if best is None:
            break
        pieces[joined.join(best)] = None
    return list(pieces)


def _characters(word: str) -> list[str]:
    return [word[0], *(CONTINUES + character for character in word[1:])]


class _Joining:
    """Words as pieces, with the count of every pair of neighbours kept as pieces are joined."""

    def __init__(self, split: dict[str, list[str]], counts: Mapping[str, int]) -> None:
        self.split = split
        self.counts = counts
        self.pairs: Counter[Pair] = Counter()
        self.places: dict[Pair, set[str]] = defaultdict(set)
        for word in split:
            self._count(word, 1)
        # counts in the heap may be out of date: they are checked when they come up
        self.heap = [(-count, pair) for pair, count in self.pairs.items()]
        heapq.heapify(self.heap)

    def most_frequent(self, least: int) -> Pair | None:
        """The pair to join next; None when all are too rare."""
        while self.heap:
            count, pair = self.heap[0]
            if -count != self.pairs[pair]:
                heapq.heappop(self.heap)
            else:
                return pair if -count >= least else None
        return None

    def join(self, pair: Pair) -> str:
        """Make one piece of a pair wherever it occurs; the piece."""
        piece = pair[0] + pair[1].removeprefix(CONTINUES)
        touched: set[Pair] = set()
        for word in sorted(self.places[pair]):
            touched |= self._count(word, -1)
            self.split[word] = _joined(self.split[word], pair, piece)
            touched |= self._count(word, 1)
        for changed in touched:
            if self.pairs[changed] > 0:
                heapq.heappush(self.heap, (-self.pairs[changed], changed))
        return piece

    def _count(self, word: str, sign: int) -> set[Pair]:
        parts = self.split[word]
        found = list(pairwise(parts))
        for pair in found:
            self.pairs[pair] += sign * self.counts[word]
            if sign > 0:
                self.places[pair].add(word)
            else:
                self.places[pair].discard(word)
        return set(found)


def _joined(parts: Iterable[str], pair: Pair, piece: str) -> list[str]:
    made: list[str] = []
    for part in parts:
        # a piece that was just made is longer than the pair's first: it is never joined again here
        if made and (made[-1], part) == pair:
            made[-1] = piece
        else:
            made.append(part)
    return made
