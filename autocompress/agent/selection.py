"""Which trials deserve to be trained in full.

They are chosen in rounds. The first is spread over the front of the search. A short training
leaves small models further from what they can reach than large ones, so later rounds look at what
full training gave in the earlier ones: a trial is worth training for what it is expected to add to
the models that are trained already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

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
#: Standard deviation, relative to the original's accuracy, of what full training comes to around
#: what is expected, as seen with ResNet-20 and other seeds: any of the models that differ by less
#: may end as the best.
NOISE = 0.002
#: Outcomes that are looked at.
_DRAWS = 24
ACCURACY = "accuracy"
Metrics: TypeAlias = Mapping[str, float]


def first_finalists(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    count: int,
    *,
    original: float | None = None,
    known: Sequence[Metrics] = (),
) -> list[TrialRecord]:
    """At most ``count`` trials: front by front, the least crowded first within each.

    A third of the places goes to trials close to the original's accuracy, which is where most users
    look: those that are expected to add most volume to what is known, give or take :data:`NOISE`.
    Trials far below it come last: training back closes some of the gap, but a model that answers
    wrongly most of the time is of no use however small it is.

    Args:
        trials: complete and feasible, of one fidelity.
        objectives: what the fronts are over.
        count: how many to choose.
        original: the original's accuracy, larger is better; None looks at the objectives alone.
        known: metrics of models that are there anyway, such as the baselines.
    """
    left = _known(trials, objectives)
    if original is None or original <= 0:
        return _spread(left, objectives, count)
    third = math.ceil(count / 3)
    chosen = _gaining(
        left, [t.metrics for t in left], known, objectives, third, CLOSE * original,
        noise=NOISE * original,
    )  # fmt: skip
    for share in (USEFUL, -math.inf):
        useful = [
            t
            for t in left
            if t not in chosen and t.metrics.get(ACCURACY, original) >= share * original
        ]
        chosen += _spread(useful, objectives, count - len(chosen))
    return chosen


def next_finalists(
    trials: Sequence[TrialRecord],
    chosen: Sequence[TrialRecord],
    trained: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    count: int,
    *,
    original: float | None = None,
    known: Sequence[Metrics] = (),
) -> list[TrialRecord]:
    """At most ``count`` more trials: those expected to add most volume to the trained front.

    Volume counts ratios of latencies, sizes and errors, and differences in accuracy: the range from
    a floor on counts like that from the best to the worst of the others. For a third of the places
    the floor is :data:`CLOSE` to the original's accuracy and outcomes are taken give or take
    :data:`NOISE`; for the others the floor is :data:`FLOOR`.

    Args:
        trials: complete and feasible, of one fidelity.
        chosen: those of them that were chosen before.
        trained: the same after full training, failures included.
        objectives: what the fronts are over.
        count: how many to choose.
        original: the original's accuracy, larger is better, if it is known.
        known: metrics of models that are there anyway, such as the baselines.
    """
    before = {record.genome for record in chosen}
    left = [t for t in _known(trials, objectives) if t.genome not in before]
    if not left or count <= 0:
        return []
    fixed = _known([t for t in trained if t.state == "complete"], objectives)
    expected = _recovery(trials, fixed, original)
    ahead = {
        t.genome: {**t.metrics, ACCURACY: expected(t.metrics.get(ACCURACY, 0.0))} for t in left
    }
    there = [*known, *(t.metrics for t in fixed)]
    scale = original if original is not None and original > 0 else None

    def useless(trial: TrialRecord) -> bool:
        return bool(
            scale and ACCURACY in trial.metrics and ahead[trial.genome][ACCURACY] < USEFUL * scale
        )

    more: list[TrialRecord] = []
    close = math.ceil(count / 3) if scale else 0
    for places, share, noise in ((close, CLOSE, NOISE), (count, FLOOR, 0.0)):
        pool = [t for t in left if t not in more and not useless(t)]
        more += _gaining(
            pool, [ahead[t.genome] for t in pool], [*there, *(ahead[t.genome] for t in more)],
            objectives, places - len(more), share * scale if scale else None,
            noise=noise * (scale or 0.0),
        )  # fmt: skip
    rest = [t for t in left if t not in more]
    if len(more) < count and rest:
        losses = [
            [o.loss(m[o.metric]) for o in objectives] for m in (ahead[t.genome] for t in rest)
        ]
        rank = ranks(losses)
        order = sorted(range(len(rest)), key=lambda i: (useless(rest[i]), rank[i], i))
        more += [rest[i] for i in order]
    return more[:count]


def is_useful(accuracy: float, original: float) -> bool:
    """Whether a model is not too far below the original; larger is better.

    Of scores that are not positive, such as negative errors, no share can be taken: all are.
    """
    return original <= 0 or accuracy >= USEFUL * original


def standing(accuracy: float, original: float) -> Literal["useless", "useful", "close"]:
    """How a trial's accuracy counts in the choice of finalists; larger is better."""
    if not is_useful(accuracy, original):
        return "useless"
    return "close" if original > 0 and accuracy >= CLOSE * original else "useful"


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


def _gaining(
    trials: Sequence[TrialRecord],
    expected: Sequence[Metrics],
    there: Sequence[Metrics],
    objectives: Sequence[Objective],
    count: int,
    floor: float | None,
    *,
    noise: float = 0.0,
) -> list[TrialRecord]:
    """Trials that one by one add most volume to what is there, by their expected metrics.

    With noise, the standard deviation of their accuracy, the expected volume counts.
    """
    if not trials or count <= 0:
        return []
    there = [m for m in there if all(o.metric in m for o in objectives)]
    columns, spread = [], []
    for objective in objectives:
        loss = np.array([objective.loss(m[objective.metric]) for m in (*there, *expected)])
        if (loss > 0).all():
            loss = np.log(loss)
        worst = 1.1 * (loss.max() - loss.min()) + loss.min()
        if objective.metric == ACCURACY and floor is not None:
            worst = objective.loss(floor)
            if worst <= loss.min():
                return []
        scale = (worst - loss.min()) or 1.0
        columns.append((loss - loss.min()) / scale)
        spread.append(noise / scale if objective.metric == ACCURACY else 0.0)
    losses = np.stack(columns, axis=1)
    outcomes = losses[None, len(there) :]
    if noise > 0:
        drawn = np.random.default_rng(0).standard_normal((_DRAWS, len(trials), 1))
        outcomes = outcomes + drawn * np.array(spread)
    corner = np.ones(len(objectives))
    gains = largest_gains(outcomes, corner, count, given=losses[: len(there)])
    return [trials[i] for i in gains]


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
