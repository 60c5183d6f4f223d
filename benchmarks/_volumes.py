"""How much a set of models is worth: the volume that its front dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.core.pareto import hypervolume, non_dominated

Row = Mapping[str, Any]
#: Name of a volume to the costs beside the error that it is over.
VOLUMES = {
    "hv": ("latency", "size"),
    "hv_latency": ("latency",),
    "hv_size": ("size",),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """The worst point that counts.

    Attributes:
        accuracy: a share; a model at or below it adds nothing.
        latency_ms: of the original in floats.
        size_bytes: of the original in floats.
    """

    accuracy: float
    latency_ms: float
    size_bytes: float


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other surpasses by validation accuracy, estimated latency and bytes.

    Test examples choose nothing.
    """
    keys = [(1 - r["val_accuracy"], r["latency_estimate_ms"], r["size_bytes"]) for r in rows]
    return [row for row, kept in zip(rows, non_dominated(keys), strict=True) if kept]


def volumes(
    rows: Sequence[Row], reference: Reference, *, latency: str = "latency_estimate_ms"
) -> dict[str, float]:
    """Volumes of a front by test accuracy, logarithmic and linear.

    Accuracy counts in points above the reference. A cost counts in doublings below the reference's
    (``log2(reference / cost)``), or, in the linear ones, as the share of it that is saved. So
    ``hv`` is in points times doublings squared, ``hv_latency`` in points times doublings.

    Args:
        rows: ``accuracy`` (a share, of the test examples), ``size_bytes`` and the latency.
        reference: the worst point that counts.
        latency: the column that latency is taken from; rows without it count nothing.
    """
    worst = {"latency": reference.latency_ms, "size": reference.size_bytes}
    columns = {"latency": latency, "size": "size_bytes"}
    found = {}
    for name, costs in VOLUMES.items():
        for scale in ("", "_linear"):
            losses = [
                [
                    100.0 * (1.0 - row["accuracy"]),
                    *(_loss(row.get(columns[cost]), worst[cost], scale) for cost in costs),
                ]
                for row in rows
            ]
            corner = [100.0 * (1.0 - reference.accuracy), *(0.0 for _ in costs)]
            found[name + scale] = hypervolume(losses, corner) if losses else 0.0
    return found


def _loss(cost: float | None, worst: float, scale: str) -> float:
    """0 at the reference, less below it; not finite, so that it counts nothing, when unknown."""
    if cost is None or cost <= 0:
        return math.nan
    return cost / worst - 1.0 if scale else math.log2(cost / worst)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, least, most and sample standard deviation (0 of a single value)."""
    array = np.array(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "min": float(array.min()),
        "max": float(array.max()),
        "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0,
    }


def paired_ratios(
    mine: Mapping[int, float], theirs: Mapping[int, float]
) -> tuple[float | None, dict[int, float]]:
    """The ratio of means over the seeds that both have, and the ratio of each of these seeds.

    Args:
        mine: seed to value.
        theirs: the same of the other; where it is 0 there is no ratio.

    Returns:
        None for the ratio of means where they share no seed or the other's are all 0.
    """
    seeds = sorted(mine.keys() & theirs.keys())
    total = sum(theirs[seed] for seed in seeds)
    ratio = sum(mine[seed] for seed in seeds) / total if total > 0 else None
    return ratio, {seed: mine[seed] / theirs[seed] for seed in seeds if theirs[seed] > 0}


def attained(
    fronts: Sequence[Sequence[Row]], cost: str, levels: Sequence[float]
) -> list[tuple[float, float]]:
    """The median over seeds of the best test accuracy at no more than each cost.

    The median empirical attainment (Fonseca & Fleming 1996, doi:10.1007/3-540-61723-X_1022).

    Args:
        fronts: one a seed.
        cost: the column of the cost.
        levels: costs; those at which less than half of the seeds have a model are left out.
    """
    found = []
    for level in levels:
        best = [
            max((r["accuracy"] for r in rows if r[cost] <= level), default=-math.inf)
            for rows in fronts
        ]
        median = sorted(best)[(len(best) - 1) // 2]
        if math.isfinite(median):
            found.append((level, median))
    return found
