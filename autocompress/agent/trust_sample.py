"""Which candidates are compared at two fidelities: drawn from where the search begins.

How far the order of inherited accuracies can be trusted depends on the candidates that are
compared: over all of a space it looks better than among those that a search has to choose from (Yu
et al. 2020, arXiv:1902.08142, section 4).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.seeds import neighbours, uniform_seeds
from autocompress.core.candidate import Candidate
from autocompress.core.objective import METRICS, Constraint
from autocompress.core.space import Genome, SearchSpace
from autocompress.elastic.drawing import draw
from autocompress.search.feasibility import repair
from autocompress.search.pricing import Price, Pricer

#: Candidates that are looked at for each that is compared.
POOL = 8
#: Of them: of a kind with the seeds, a few changes away from them, drawn as in elastic training.
_UNIFORM, _NEAR, _DRAWN = 2, POOL - 4, 2
#: After so many repairs in a row that found nothing, the bounds are taken to be out of reach.
_FAILURES = 3
#: So many genomes are priced before it is asked whether time is over.
_CHUNK = 32


def sample(
    context: Context,
    price: Price,
    count: int,
    *,
    uniformly: bool = False,
    deadline: float | None = None,
) -> list[Genome]:
    """Different candidates within the bounds, such as the search begins with.

    They are spread over the prices that the search looks at. Those of the original's shape are left
    out where the shared weights were trained by the sandwich rule, unless too few are of another
    one: that shape is trained at every step, and would flatter the order. Ways of training back
    stay the usual ones. The same seed gives the same candidates, unless time ends first.

    Args:
        context: the run.
        price: priced metrics of genomes.
        count: how many are wanted; the first ones are spread, too.
        uniformly: for strategies that begin from nothing known: every gene is drawn uniformly, no
            candidate is preferred to another, and recipes are drawn where trials are trained.
        deadline: value of ``time.monotonic()`` after which no candidate is repaired any more.

    Returns:
        At most ``count`` genomes; fewer where the bounds, or the time, leave no more.
    """
    space = context.space
    rng = np.random.default_rng([context.request.seed, 0x7257])
    recipes = np.array([choice.kind == "recipe" for choice in space.choices])
    bounds = context.request.bounds
    if uniformly:
        held = recipes & (not context.plan.fidelity.trains)
        draws = (np.where(held, 0, space.sample(rng)) for _ in range(POOL * count))
        return _first(count, [], _repaired(space, price, bounds, draws, rng, deadline))
    pool = [genome for _, genome in uniform_seeds(space)[: _UNIFORM * count]]
    pool += neighbours(space, rng, _NEAR * count)
    pool += [draw(space, rng) for _ in range(_DRAWN * count)]
    pool = _different([np.where(recipes, 0, genome) for genome in pool])
    if context.from_scratch:
        original = space.decode(space.original)
        others = [genome for genome in pool if not is_whole(space.decode(genome), original)]
        pool = others if len(others) >= count else pool
    pricer = Pricer(price, bounds)
    excess = pricer.violations(pool).sum(axis=1)
    found = [genome for genome, over in zip(pool, excess, strict=True) if over == 0]
    # a repair takes many prices; what is nearest to the bounds takes fewest
    broken = [pool[i] for i in np.argsort(excess, kind="stable") if excess[i] > 0]
    if len(found) < count:
        found = _first(count, found, _repaired(space, price, bounds, broken, rng, deadline))
    metric = _metric(context)
    known = [row.get(metric, 0.0) for row in pricer.metrics(found)]
    chosen = spread_over(known, [_expected_loss(context, g) for g in found], count, rng)
    return [found[i] for i in chosen]


def is_whole(candidate: Candidate, original: Candidate) -> bool:
    """Whether a candidate keeps every weight of the network, whatever it stores it in."""
    names = candidate.layers.keys() | original.layers.keys()
    return candidate.architecture == original.architecture and all(
        candidate.policy(name).width == original.policy(name).width
        and candidate.policy(name).rank is None
        and not candidate.policy(name).sparsity
        for name in names
    )


def spread_over(
    prices: Sequence[float],
    losses: Sequence[float],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """Which of many candidates to compare: one of each band of equal numbers in order of price.

    In each band it is drawn from the quarter that is expected to lose least, which is the nearest
    to the front.

    Args:
        prices: positive, of each candidate.
        losses: accuracy that it is expected to lose; NaN where that is not known.
        count: how many to choose; fewer when there are fewer.
        rng: what decides among equals.

    Returns:
        Indices, such that any number of the first ones is spread over the prices, too: in the order
        of van der Corput (1935).
    """
    order = np.argsort(np.asarray(prices, dtype=np.float64), kind="stable")
    bands = [band for band in np.array_split(order, max(1, min(count, len(order)))) if len(band)]
    chosen = []
    for band in bands:
        expected = np.asarray(losses, dtype=np.float64)[band]
        if np.isfinite(expected).all() and np.ptp(expected) > 0:
            band = band[np.argsort(expected, kind="stable")][: math.ceil(len(band) / 4)]
        chosen.append(int(rng.choice(band)))
    bits = max(1, (len(chosen) - 1).bit_length())
    return [chosen[i] for i in sorted(range(len(chosen)), key=lambda i: f"{i:0{bits}b}"[::-1])]


class _TimeOverError(Exception):
    """Raised from within a repair."""


def _repaired(
    space: SearchSpace,
    price: Price,
    bounds: Sequence[Constraint],
    genomes: Iterable[Genome],
    rng: np.random.Generator,
    deadline: float | None,
) -> Iterator[Genome]:
    """Of each genome one near it within the bounds; ends with the time, or when none is in reach.

    A genome that is within them already is given as it is.
    """
    pricer = Pricer(_until(price, deadline), bounds)
    failures = 0
    for genome in genomes:
        try:
            found = repair(space, pricer, genome, rng=rng)
        except _TimeOverError:
            return
        failures = failures + 1 if found is None else 0
        if found is not None:
            yield found
        elif failures >= _FAILURES:
            return


def _until(price: Price, deadline: float | None) -> Price:
    """Prices that are given until time is over; a repair asks for hundreds at once."""
    if deadline is None:
        return price

    def limited(genomes: Sequence[Genome]) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = []
        for start in range(0, len(genomes), _CHUNK):
            if time.monotonic() >= deadline:
                raise _TimeOverError
            rows += [dict(row) for row in price(genomes[start : start + _CHUNK])]
        return rows

    return limited


def _first(count: int, found: Sequence[Genome], more: Iterable[Genome]) -> list[Genome]:
    """What is found and as much of the rest as makes ``count`` different genomes."""
    known = {genome.tobytes(): genome for genome in found}
    for genome in more:
        known.setdefault(genome.tobytes(), genome)
        if len(known) >= count:
            break
    return list(known.values())


def _different(genomes: Sequence[Genome]) -> list[Genome]:
    return list({genome.tobytes(): genome for genome in genomes}.values())


def _metric(context: Context) -> str:
    """The price that candidates are spread over: the first that is an objective."""
    asked = (o.metric for o in context.request.objectives)
    return next((name for name in asked if METRICS[name].priced), "size_bytes")


def _expected_loss(context: Context, genome: Genome) -> float:
    """What its settings lose alone, added up; NaN where nothing is known of settings."""
    if not context.sensitivity:
        return float("nan")
    total = 0.0
    active = context.space.active(genome)
    for i, choice in enumerate(context.space.choices):
        known = context.sensitivity.get(choice.name)
        if known and active[i]:
            total += known.get(int(genome[i]), max(known.values()))
    return total
