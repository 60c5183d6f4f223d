"""Which trials deserve to be trained in full.

They are chosen in rounds. The first is spread over the front of the search. A short training
leaves small models further from what they can reach than large ones, so later rounds look at what
full training gave in the earlier ones: a trial is worth training for what it is expected to add to
the models that are trained already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autocompress.agent.recovery import Recovery
from autocompress.core.objective import Constraint, Objective
from autocompress.core.pareto import crowding, largest_gains, ranks
from autocompress.core.trial import TrialRecord

#: Share of the original's accuracy below which a trial is of little use.
USEFUL = 0.7
#: Share of it from which a trial counts as close.
CLOSE = 0.97
#: Share of it at and below which accuracy adds nothing to a front.
FLOOR = 0.9
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
    """At most ``count`` more trials: those expected to add most volume to the trained front.

    Volume counts ratios in what is positive, such as latency and size, and differences in accuracy,
    the range from :data:`FLOOR` of the original's like that from the best to the worst of others.

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
    expected = _recovery(trials, fixed, original)
    ahead = [{**t.metrics, ACCURACY: expected(t.metrics.get(ACCURACY, 0.0))} for t in left]
    floor = None if original is None or original <= 0 else original
    losses = _scaled([t.metrics for t in fixed], ahead, objectives, floor)
    corner = np.ones(len(objectives))
    gaining = largest_gains(losses[len(fixed) :], corner, count, given=losses[: len(fixed)])
    useless = [
        floor is not None and ACCURACY in t.metrics and m[ACCURACY] < USEFUL * floor
        for t, m in zip(left, ahead, strict=True)
    ]
    rank = ranks(losses)[len(fixed) :]
    rest = sorted(set(range(len(left))) - set(gaining), key=lambda i: (useless[i], rank[i], i))
    return [left[i] for i in [*gaining, *rest][:count]]


def nearest(
    trials: Sequence[TrialRecord], bounds: Sequence[Constraint], count: int
) -> list[TrialRecord]:
    """At most ``count`` trials that break ``bounds`` the least, the nearest first."""

    def excess(trial: TrialRecord) -> float:
        return sum(b.violation(trial.metrics.get(b.metric, math.nan)) for b in bounds)

    return sorted(trials, key=excess)[:count]


def _known(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    return [t for t in trials if all(o.metric in t.metrics for o in objectives)]


def _recovery(
    trials: Sequence[TrialRecord], trained: Sequence[TrialRecord], original: float | None
) -> Recovery:
    before = {t.genome: t.metrics[ACCURACY] for t in trials if ACCURACY in t.metrics}
    both = [t for t in trained if t.genome in before and ACCURACY in t.metrics]
    anchor = max(before.values(), default=None) if original is None else original
    return Recovery.fitted(
        [before[t.genome] for t in both], [t.metrics[ACCURACY] for t in both], anchor
    )


def _scaled(
    fixed: Sequence[Mapping[str, float]],
    ahead: Sequence[Mapping[str, float]],
    objectives: Sequence[Objective],
    original: float | None,
) -> npt.NDArray[np.float64]:
    """Losses of all, the best 0 and the worst a little below 1, or at 1 for what is no use."""
    columns = []
    for objective in objectives:
        loss = np.array([objective.loss(m[objective.metric]) for m in (*fixed, *ahead)])
        worst = None
        if objective.metric == ACCURACY and original is not None:
            worst = objective.loss(FLOOR * original)
        elif (loss > 0).all():
            loss = np.log(loss)
        span = (loss.max() if worst is None else max(worst, loss.min())) - loss.min()
        share = (loss - loss.min()) / (span or 1.0)
        columns.append(share if worst is not None else share / 1.1)
    return np.stack(columns, axis=1)


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
