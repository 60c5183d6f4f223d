"""Which trials deserve to be trained in full.

They are chosen in rounds. The first is spread over the front of the search. A short training
leaves small models further from what they can reach than large ones, so later rounds look at what
full training gave in the earlier ones: a trial is worth training when it is expected to end on the
front of the models that are trained already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autocompress.core.objective import Constraint, Objective
from autocompress.core.pareto import crowding, ranks
from autocompress.core.trial import TrialRecord

#: Share of the original's accuracy below which a trial is of little use.
USEFUL = 0.7
#: Share of it from which a trial counts as close.
CLOSE = 0.97
ACCURACY = "accuracy"


def first_finalists(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    count: int,
    *,
    original: float | None = None,
) -> list[TrialRecord]:
    """At most ``count`` trials: front by front, the least crowded first within each.

    A third of the places goes to trials close to the original's accuracy, which is where most users
    look. Trials far below it come last: training back closes some of the gap, but a model that
    answers wrongly most of the time is of no use however small it is.

    Args:
        trials: complete and feasible, of one fidelity.
        objectives: what the fronts are over.
        count: how many to choose.
        original: the original's accuracy, larger is better; None looks at the objectives alone.
    """
    known = _known(trials, objectives)
    if original is None or original <= 0:
        return _spread(known, objectives, count)
    chosen: list[TrialRecord] = []
    for share, places in ((CLOSE, (count + 2) // 3), (USEFUL, count), (-math.inf, count)):
        left = [
            t
            for t in known
            if t not in chosen and t.metrics.get(ACCURACY, original) >= share * original
        ]
        chosen += _spread(left, objectives, min(places, count - len(chosen)))
    return chosen


def next_finalists(
    trials: Sequence[TrialRecord],
    chosen: Sequence[TrialRecord],
    trained: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    count: int,
    *,
    original: float | None = None,
) -> list[TrialRecord]:
    """At most ``count`` more trials, those that full training is expected to put on the front.

    Every trial is expected to win back the same share of what it misses, the median of the share
    that the trained ones won back.

    Args:
        trials: complete and feasible, of one fidelity.
        chosen: those of them that were chosen before.
        trained: the same after full training, failures included.
        objectives: what the fronts are over.
        count: how many to choose.
        original: the original's accuracy, larger is better, if it is known.
    """
    before = {record.genome for record in chosen}
    left = [t for t in _known(trials, objectives) if t.genome not in before]
    if not left or count <= 0:
        return []
    fixed = _known([t for t in trained if t.state == "complete"], objectives)
    expected = _expected(trials, fixed, original)
    known = [t.metrics for t in fixed] + [{**t.metrics, ACCURACY: expected(t)} for t in left]
    losses = np.array([[o.loss(metrics[o.metric]) for o in objectives] for metrics in known])
    floor = -math.inf if original is None or original <= 0 else USEFUL * original
    useless = np.array([ACCURACY in t.metrics and expected(t) < floor for t in left])
    rank = ranks(losses)
    distance = np.zeros(len(losses))
    for level in np.unique(rank):
        members = np.flatnonzero(rank == level)
        distance[members] = crowding(losses[members])
    ahead = slice(len(fixed), None)
    order = np.lexsort((-distance[ahead], rank[ahead], useless))
    return [left[int(i)] for i in order[:count]]


def nearest(
    trials: Sequence[TrialRecord], bounds: Sequence[Constraint], count: int
) -> list[TrialRecord]:
    """At most ``count`` trials that break ``bounds`` the least, the nearest first."""

    def excess(trial: TrialRecord) -> float:
        return sum(b.violation(trial.metrics.get(b.metric, math.nan)) for b in bounds)

    return sorted(trials, key=excess)[:count]


def _known(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    return [t for t in trials if all(o.metric in t.metrics for o in objectives)]


class _Recovery:
    """Accuracy after full training, as far as the trained trials tell."""

    def __init__(self, best: float, share: float) -> None:
        self.best = best
        self.share = share

    def __call__(self, trial: TrialRecord) -> float:
        now = trial.metrics.get(ACCURACY, -math.inf)
        return now + self.share * max(0.0, self.best - now)


def _expected(
    trials: Sequence[TrialRecord], trained: Sequence[TrialRecord], original: float | None
) -> _Recovery:
    before = {t.genome: t.metrics[ACCURACY] for t in trials if ACCURACY in t.metrics}
    after = {t.genome: t.metrics[ACCURACY] for t in trained if ACCURACY in t.metrics}
    seen = [*before.values(), *after.values(), *([] if original is None else [original])]
    best = max(seen, default=0.0)
    won = [
        (after[genome] - before[genome]) / (best - before[genome])
        for genome in after
        if genome in before and before[genome] < best
    ]
    share = float(np.clip(np.median(won), 0.0, 1.0)) if won else 0.0
    return _Recovery(best, share)


def _spread(
    known: Sequence[TrialRecord], objectives: Sequence[Objective], count: int
) -> list[TrialRecord]:
    if not known or count <= 0:
        return []
    losses = np.array([[o.loss(t.metrics[o.metric]) for o in objectives] for t in known])
    rank = ranks(losses)
    chosen: list[TrialRecord] = []
    for level in range(int(rank.max()) + 1):
        members = np.flatnonzero(rank == level)
        order = np.argsort(-crowding(losses[members]), kind="stable")
        chosen.extend(known[int(members[i])] for i in order)
        if len(chosen) >= count:
            break
    return chosen[:count]
