"""Which trials deserve to be trained in full: a spread over the front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autocompress.core.objective import Objective
from autocompress.core.pareto import crowding, ranks
from autocompress.core.trial import TrialRecord


def choose_finalists(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], count: int
) -> list[TrialRecord]:
    """At most ``count`` trials: front by front, the least crowded first within each.

    Args:
        trials: complete and feasible, of one fidelity.
        objectives: what the fronts are over.
        count: how many to choose.
    """
    known = [t for t in trials if all(o.metric in t.metrics for o in objectives)]
    if not known:
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
