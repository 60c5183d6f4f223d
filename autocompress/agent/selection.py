"""Which trials deserve to be trained in full: a spread over the front."""

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


def choose_finalists(
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
    known = [t for t in trials if all(o.metric in t.metrics for o in objectives)]
    if original is None or original <= 0:
        return _spread(known, objectives, count)
    chosen: list[TrialRecord] = []
    for share, places in ((CLOSE, (count + 2) // 3), (USEFUL, count), (-math.inf, count)):
        left = [
            t
            for t in known
            if t not in chosen and t.metrics.get("accuracy", original) >= share * original
        ]
        chosen += _spread(left, objectives, min(places, count - len(chosen)))
    return chosen


def nearest(
    trials: Sequence[TrialRecord], bounds: Sequence[Constraint], count: int
) -> list[TrialRecord]:
    """At most ``count`` trials that break ``bounds`` the least, the nearest first."""

    def excess(trial: TrialRecord) -> float:
        return sum(b.violation(trial.metrics.get(b.metric, math.nan)) for b in bounds)

    return sorted(trials, key=excess)[:count]


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
