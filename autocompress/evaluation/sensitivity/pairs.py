"""Which pairs of settings are measured together, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations, zip_longest
from typing import TypeAlias

from autocompress.core.candidate import Candidate
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.sensitivity.settings import Setting

#: What each setting loses on its own, and the bytes that it saves where that is known.
Losses: TypeAlias = Mapping[Setting, float]
Savings: TypeAlias = Mapping[Setting, float]

HARMFUL, PROMISING, CHOSEN = "harmful", "promising", "chosen"
#: A loss below this share of the original's counts as that: ratios to almost nothing say nothing.
_FLOOR = 0.01
#: Pairs that are sorted by their place in the model: few enough that a cut leaves the interesting.
_ROUND = 16


@dataclass(frozen=True)
class PairRequest:
    """Which pairs are asked for.

    Attributes:
        most: so many of the most harmful and the most promising pairs, or None.
        layers: instead, all pairs of the settings of these layers, groups and stages.
    """

    most: int | None = None
    layers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: object) -> PairRequest | None:
        """The request of ``pairs=``: a number, names of layers, or None for no pairs.

        Raises:
            RequestError: it is something else, not positive, or names nothing.
        """
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return cls(most=value)
        names = tuple(value) if isinstance(value, list | tuple) else ()
        if names and all(isinstance(name, str) and name for name in names):
            return cls(layers=tuple(dict.fromkeys(names)))
        raise RequestError(
            f"pairs is {value!r}; give how many pairs (a whole number from 1), or a list of the "
            "layers whose settings are paired"
        )

    def check(self, settings: Sequence[Setting]) -> None:
        """Make sure that the layers are there.

        Raises:
            RequestError: one of them has no settings.
        """
        known = list(dict.fromkeys(setting.target for setting in settings))
        for name in self.layers:
            if name not in known:
                near = get_close_matches(name, known, n=3) or known[:3]
                raise RequestError(
                    f"pairs names {name!r}, which has no setting to pair; use names of the "
                    f"table's column layer, such as {', '.join(map(repr, near))}"
                )

    def first(self, settings: Sequence[Setting]) -> list[Setting]:
        """The settings that have to be measured before all others."""
        return [setting for setting in settings if setting.target in self.layers]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two settings of different genes, both at once.

    Attributes:
        first: the one whose gene comes first.
        second: the other.
        candidate: the original with both.
        picked: why it is looked at: :data:`HARMFUL`, :data:`PROMISING` or :data:`CHOSEN`.
    """

    first: Setting
    second: Setting
    candidate: Candidate
    picked: str


def choose_pairs(
    request: PairRequest,
    space: ElasticSpace,
    settings: Sequence[Setting],
    losses: Losses,
    savings: Savings,
    *,
    reference: float,
) -> list[Pair]:
    """The pairs that are asked for, the most interesting first.

    Without chosen layers each gene stands for its most harmful and its most promising setting. A
    pair is the more harmful the larger the sum of its single losses is; and the more promising the
    more bytes it saves for that sum (where no bytes are known: the smaller the sum). Both kinds
    take turns.

    Args:
        request: how many, or of which layers.
        space: that the settings are of.
        settings: in the order of the genes.
        losses: of the settings that were measured alone; the others are in no pair but of chosen
            layers.
        savings: bytes; may be empty.
        reference: the original's loss.
    """
    if request.layers:
        both = combinations(request.first(settings), 2)
        chosen = [_pair(space, first, second, CHOSEN) for first, second in both]
        found = [pair for pair in chosen if pair is not None]
        return sorted(found, key=lambda p: p.first.urgency + p.second.urgency)
    known = [setting for setting in settings if setting in losses]
    floor = _FLOOR * max(abs(reference), _FLOOR)

    def harm(*some: Setting) -> float:
        return sum(losses[setting] for setting in some)

    def promise(*some: Setting) -> float:
        if not savings:
            return -harm(*some)
        return sum(savings[setting] for setting in some) / max(floor, harm(*some))

    worth = [s for s in known if not savings or savings.get(s, 0.0) > 0.0]
    harmful = _ranked(known, harm, request.most or 0)
    promising = _ranked(worth, promise, request.most or 0)
    return list(_in_turns(space, harmful, promising, request.most or 0))


_Both: TypeAlias = tuple[Setting, Setting]


def _ranked(settings: Sequence[Setting], value: Callable[..., float], most: int) -> list[_Both]:
    """Pairs of each gene's best setting, the best first: more than are asked for.

    A pair may turn out not to exist (one setting makes the other moot), hence the others.
    """
    best: dict[str, Setting] = {}
    for setting in settings:
        other = best.get(setting.gene)
        if other is None or value(setting) > value(other):
            best[setting.gene] = setting
    pairs = sorted(combinations(best.values(), 2), key=lambda both: -value(*both))
    return pairs[: 8 * most]


def _in_turns(
    space: ElasticSpace, harmful: Sequence[_Both], promising: Sequence[_Both], most: int
) -> Iterator[Pair]:
    seen: set[_Both] = set()
    for turn in zip_longest(harmful, promising):
        for both, why in zip(turn, (HARMFUL, PROMISING), strict=True):
            if both is None or both in seen or len(seen) >= most:
                continue
            made = _pair(space, both[0], both[1], why)
            if made is not None:
                seen.add(both)
                yield made


def _pair(space: ElasticSpace, first: Setting, second: Setting, picked: str) -> Pair | None:
    """Both at once; None where one leaves the other nothing to decide."""
    if first.gene == second.gene:
        return None
    genome = first.genome.copy()
    changed = second.genome != 0
    genome[changed] = second.genome[changed]
    if not (space.canonical(genome) == genome).all():
        return None
    return Pair(first, second, space.decode(genome), picked)


def in_rounds(
    pairs: Sequence[Pair], place: Callable[[Setting], tuple[bool, int]]
) -> Iterator[Pair]:
    """The pairs in their order of interest, each few of them as the model is run."""

    def where(pair: Pair) -> tuple[bool, int]:
        both = place(pair.first), place(pair.second)
        return any(structural for structural, _ in both), min(at for _, at in both)

    for start in range(0, len(pairs), _ROUND):
        yield from sorted(pairs[start : start + _ROUND], key=where)
