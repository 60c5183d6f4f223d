"""How far two accuracies of the same candidates agree, above all in their order.

A weight-sharing search stands on the order of inherited accuracies being that of trained ones
(Bender et al. 2018, proceedings.mlr.press/v80/bender18a.html). It need not be: Yu et al. 2020
(arXiv:1902.08142) found no correlation between the two where weights are shared by many, so it is
measured here rather than assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

#: Fewer pairs than this say nothing about an order.
FEWEST_PAIRS = 3
_NAN = math.nan
#: Shares of examples are sums of numbers that are not exact.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlations and differences between two scores of the same candidates.

    Attributes:
        pairs: how many candidates had both.
        distinct: how many different values the score with fewer of them has, ties within the error
            of the examples counted once.
        spearman: Spearman's rho (1904), of mean ranks where scores are equal; NaN if not known.
        spearman_low: lower end of its bootstrap interval.
        spearman_high: upper end.
        kendall: Kendall's tau-b (1945); NaN if not known.
        kendall_low: lower end of its bootstrap interval.
        kendall_high: upper end.
        mean_gap: mean absolute difference, in the unit of the scores.
        largest_gap: largest absolute difference.
        mean_change: mean of the second score less the first: positive where the second is better.
        unknown: why there is no correlation; empty when there is one.
    """

    pairs: int
    distinct: int = 0
    spearman: float = _NAN
    spearman_low: float = _NAN
    spearman_high: float = _NAN
    kendall: float = _NAN
    kendall_low: float = _NAN
    kendall_high: float = _NAN
    mean_gap: float = _NAN
    largest_gap: float = _NAN
    mean_change: float = _NAN
    unknown: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a correlation."""
        return not self.unknown

    @property
    def words(self) -> str:
        """The correlations in words, or why there are none."""
        if not self.known:
            return f"the rank correlation is not known: {self.unknown}"
        return (
            f"Spearman {self.spearman:.2f} [{self.spearman_low:.2f}, {self.spearman_high:.2f}], "
            f"Kendall {self.kendall:.2f} [{self.kendall_low:.2f}, {self.kendall_high:.2f}]"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Agreement:
        """The agreement that :meth:`to_json` wrote; keys that are not known are left out."""
        names = ("pairs", "distinct", "unknown")
        figures = {
            name: _NAN if value.get(name) is None else float(value[name])
            for name in cls.__dataclass_fields__
            if name not in names
        }
        return cls(
            pairs=int(value["pairs"]), distinct=int(value.get("distinct") or 0),
            unknown=str(value.get("unknown") or ""), **figures,
        )  # fmt: skip


def rank_agreement(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    examples: tuple[int, int] | None = None,
) -> Agreement:
    """How far two scores of the same candidates agree.

    The intervals are percentile bootstrap intervals over candidates (Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, section 13.3). A resample in which all scores are equal shows no
    order and counts as 0: left out, it would make an order certain that hangs on one candidate.
    Of a perfect order without ties nearly every resample is perfect, too: from 4 candidates on its
    interval is a point.

    Args:
        first: a score of each candidate, shape ``(n,)``.
        second: the other score of the same candidates, in the same order.
        level: how often an interval made like this holds the correlation.
        resamples: how many are drawn.
        seed: of the draws.
        examples: where the scores are shares of examples, how many the first and the second are of:
            scores that differ by less than their standard error are ties. None: equal ones are.

    Raises:
        ValueError: the scores are not of the same candidates, or not all finite.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"scores of shapes {x.shape} and {y.shape} are no pairs")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores hold NaN or infinity; leave those candidates out")
    found = Agreement(len(x))
    if len(x):
        found = replace(
            found,
            mean_gap=float(np.abs(y - x).mean()),
            largest_gap=float(np.abs(y - x).max()),
            mean_change=float((y - x).mean()),
        )
    if examples is not None:
        x, y = _tied(x, examples[0]), _tied(y, examples[1])
    found = replace(found, distinct=min(len(np.unique(x)), len(np.unique(y))))
    if len(x) < FEWEST_PAIRS:
        why = f"{len(x)} candidates with both scores are fewer than {FEWEST_PAIRS}"
        return replace(found, unknown=why)
    for name, values in (("first", x), ("second", y)):
        if np.ptp(values) == 0:
            same = "the same" if examples is None else "within its error the same"
            why = f"all {len(x)} candidates have {same} {name} score, {values[0]:.4g}"
            return replace(found, unknown=why)
    spearman: Any = stats.spearmanr(x, y)
    kendall: Any = stats.kendalltau(x, y, variant="b")
    rows = np.random.default_rng([seed, len(x)]).integers(len(x), size=(resamples, len(x)))
    ends = [(1 - level) / 2, (1 + level) / 2]
    rho_low, rho_high = np.quantile(_spearman(x[rows], y[rows]), ends)
    tau_low, tau_high = np.quantile(_kendall(x[rows], y[rows]), ends)
    return replace(
        found,
        spearman=float(spearman.statistic), spearman_low=float(rho_low),
        spearman_high=float(rho_high), kendall=float(kendall.statistic),
        kendall_low=float(tau_low), kendall_high=float(tau_high),
    )  # fmt: skip


def _tied(shares: Floats, examples: int) -> Floats:
    """The shares, those that cannot be told apart made equal, shape ``(n,)``.

    From the lowest up, those within one binomial standard error of a group's lowest belong to it,
    or within one example, where the error is less.
    """
    tied, lowest, error = shares.copy(), -math.inf, 0.0
    for i in np.argsort(shares, kind="stable"):
        if shares[i] > lowest + error:
            lowest = float(shares[i])
            error = max(1 / examples, math.sqrt(lowest * (1 - lowest) / examples)) + _ROUNDING
        tied[i] = lowest
    return tied


def _spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rho of each row, shape ``(rows,)``: Pearson's of mean ranks; 0 if constant."""
    a, b = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return _ratio((a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1))


def _kendall(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b of each row, shape ``(rows,)``; 0 if constant."""
    i, j = np.triu_indices(x.shape[1], k=1)
    a, b = np.sign(x[:, i] - x[:, j]), np.sign(y[:, i] - y[:, j])
    return _ratio((a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1))


def _ratio(product: Floats, first: Floats, second: Floats) -> Floats:
    found = np.zeros(len(product))
    varies = (first > 0) & (second > 0)
    found[varies] = product[varies] / np.sqrt(first[varies] * second[varies])
    return found
