"""How sure a latency is that was taken in several processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Quantiles drawn of one pass; later draws choose among them.
_DRAWN = 200
_MOST_AT_ONCE = 1 << 18


def bootstrap_interval(
    processes: Sequence[Sequence[Sequence[float]]],
    quantile: float,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the median over processes of their smallest pass quantile.

    Resampled on every level that varies: processes, passes within them, batches within those
    (Davison and Hinkley 1997, Bootstrap Methods and their Application, sections 3.8 and 5.3). Few
    processes make it wide, as they should: batches of one process say nothing of the next.

    Args:
        processes: batches' times, by process and pass.
        quantile: of the batches in a pass.
        level: how often an interval made like this holds the figure.
        resamples: how many figures are drawn.
        seed: of the draws.

    Returns:
        Its lower and upper end, in the unit of the batches.
    """
    rng = np.random.default_rng(seed)
    drawn = [[_quantiles(np.asarray(p), quantile, rng) for p in passes] for passes in processes]
    figures = np.empty((resamples, len(drawn)))
    for column in range(len(drawn)):
        chosen = rng.integers(len(drawn), size=resamples)
        for process, passes in enumerate(drawn):
            rows = np.flatnonzero(chosen == process)
            which = rng.integers(len(passes), size=(rows.size, len(passes)))
            picks = rng.integers(_DRAWN, size=which.shape)
            figures[rows, column] = np.stack(passes)[which, picks].min(axis=1)
    medians = np.median(figures, axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _quantiles(
    batches: npt.NDArray[np.float64], quantile: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The quantile of as many batches, drawn with replacement, :data:`_DRAWN` times."""
    rows = max(1, _MOST_AT_ONCE // len(batches))
    found = []
    for start in range(0, _DRAWN, rows):
        size = (min(rows, _DRAWN - start), len(batches))
        found.append(np.quantile(rng.choice(batches, size=size), quantile, axis=1))
    return np.concatenate(found)
