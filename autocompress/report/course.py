"""The course of a search: how the hypervolume of its front grew with the trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from autocompress.core.objective import METRICS, Objective
from autocompress.core.pareto import hypervolume
from autocompress.report.run_folder import RunView

#: How often the hypervolume is taken, by the number of objectives: four cost O(front^3) each.
_CHECKPOINTS = {2: 60, 3: 60, 4: 20}


@dataclass(frozen=True, slots=True)
class Course:
    """Growth of the front's hypervolume.

    Attributes:
        trials: trial numbers at which it was taken.
        shares: hypervolume there as a share of the final one, 0..1.
        objectives: the metrics it spans.
        fidelity: the fidelity whose trials count: the one with the most trials.
        half: the first trial number in ``trials`` with at least half of the final hypervolume.
    """

    trials: tuple[int, ...]
    shares: tuple[float, ...]
    objectives: tuple[str, ...]
    fidelity: str
    half: int


def course_of(view: RunView) -> Course | None:
    """The course, or None when fewer than three trials span two objectives.

    The reference point is the worst value of each objective among the trials that count, so the
    figure says how the search moved, not how good it was.
    """
    asked = view.section("request").get("objectives")
    listed = asked if isinstance(asked, list) else ["accuracy", "latency_ms", "size_bytes"]
    names = [str(n) for n in listed if str(n) in METRICS and str(n) in view.trials.columns][:4]
    done = view.trials[view.trials["state"] == "complete"]
    if len(names) < 2 or done.empty:
        return None
    fidelity = str(done["fidelity"].value_counts().idxmax())
    same = done[done["fidelity"] == fidelity]
    rows = same[np.isfinite(same[names].to_numpy(dtype=float)).all(axis=1)]
    if len(rows) < 3:
        return None
    return _measure(rows, tuple(names), fidelity)


def _measure(rows: pd.DataFrame, names: tuple[str, ...], fidelity: str) -> Course | None:
    signs = [1.0 if Objective.parse(n).direction == "minimize" else -1.0 for n in names]
    losses = rows[list(names)].to_numpy(dtype=float) * np.array(signs)
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - low) / np.where(high > low, high - low, 1.0)
    reference = np.full(len(names), 1.1)
    stops = sorted(
        {int(n) for n in np.linspace(1, len(rows), min(len(rows), _CHECKPOINTS[len(names)]))}
    )
    volumes = [float(hypervolume(scaled[:stop], reference)) for stop in stops]
    if volumes[-1] <= 0:
        return None
    shares = tuple(volume / volumes[-1] for volume in volumes)
    numbers = tuple(int(rows["number"].iloc[stop - 1]) for stop in stops)
    half = next(n for n, share in zip(numbers, shares, strict=True) if share >= 0.5)
    return Course(numbers, shares, names, fidelity, half)
