"""How well cheap scores agree with true losses, and losses estimated from them where none is known.

Every function takes a table with a row per setting: ``technique``, ``measured``, ``loss_change``,
``metric_drop``, ``error`` and a column for every score of :data:`.scores.SCORES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from autocompress.evaluation.sensitivity.scores import SCORES

Floats = npt.NDArray[np.float64]

#: Measured rows that scores have to be held against before one of them is chosen.
FEWEST = 8
#: Measured rows of a technique by which a score is turned into its losses.
FEWEST_OWN = 5
#: The score that is a loss by itself, taken as it is while too little is measured.
_UNCALIBRATED = "output_fisher"
ALL = "all"
AGREEMENT = ("technique", "score", "rows", "kendall", "spearman")


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Rank agreement of every score with the measured change of loss, per technique and over all.

    Returns:
        A row per technique (and "all") and score: ``rows`` compared, ``kendall`` (tau-b, Kendall
        1945) and ``spearman`` (1904), both turned so that 1 is perfect; NaN below three rows.
    """
    known = table[table["measured"]]
    rows = []
    for technique in (ALL, *sorted(known["technique"].unique())):
        part = known if technique == ALL else known[known["technique"] == technique]
        for score in SCORES:
            x, y = _pairs(part, score)
            rows.append((technique, score, len(x), *_correlations(x, y)))
    return pd.DataFrame(rows, columns=list(AGREEMENT))


def _pairs(part: pd.DataFrame, score: str) -> tuple[Floats, Floats]:
    """The score, larger for larger expected losses, and the loss, of rows that have both."""
    both = part[np.isfinite(part[score]) & np.isfinite(part["loss_change"])]
    sign = 1.0 if SCORES[score] else -1.0
    return sign * both[score].to_numpy(float), both["loss_change"].to_numpy(float)


def _correlations(x: Floats, y: Floats) -> tuple[float, float]:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan")
    kendall: Any = stats.kendalltau(x, y)
    spearman: Any = stats.spearmanr(x, y)
    return float(kendall.statistic), float(spearman.statistic)


def with_estimates(table: pd.DataFrame) -> pd.DataFrame:
    """The table with losses for the rows that were not measured, from their cheap scores.

    For each technique the score that agrees best with its measured rows is turned into a loss by
    isotonic regression on them. With fewer than :data:`FEWEST` such rows the score is chosen by
    all measured rows, with fewer than :data:`FEWEST_OWN` the regression is on all of them, too.
    With fewer than :data:`FEWEST` in all ``loss_change`` is the score ``output_fisher`` itself, and
    there is no ``metric_drop``.

    Returns:
        A copy with one more column, ``estimated_from``: "" for measured rows, else in words.
    """
    table = table.copy()
    table["estimated_from"] = ""
    known = table[table["measured"]]
    for technique in table["technique"].unique():
        wanted = (table["technique"] == technique) & ~table["measured"] & (table["error"] == "")
        if not wanted.any():
            continue
        own = known[known["technique"] == technique]
        basis, said = (own, technique) if len(own) >= FEWEST_OWN else (known, "all techniques")
        score = _best(own) or _best(known)
        if score is not None:
            _calibrated(table, wanted, basis, score, said)
        left = wanted & table["loss_change"].isna() & table[_UNCALIBRATED].notna()
        table.loc[left, "loss_change"] = table.loc[left, _UNCALIBRATED]
        table.loc[left, "estimated_from"] = f"{_UNCALIBRATED}, not calibrated"
    return table


def _best(basis: pd.DataFrame) -> str | None:
    """The score that agrees best with the measured rows; None without enough of them."""
    rated = []
    for place, score in enumerate(SCORES):
        x, y = _pairs(basis, score)
        value = _correlations(x, y)[1]
        if len(x) >= FEWEST and np.isfinite(value):
            rated.append((-value, place, score))
    return min(rated)[2] if rated else None


def _calibrated(
    table: pd.DataFrame, wanted: pd.Series[bool], basis: pd.DataFrame, score: str, said: str
) -> None:
    from sklearn.isotonic import IsotonicRegression

    rows = wanted & np.isfinite(table[score])
    if not rows.any():
        return
    sign = 1.0 if SCORES[score] else -1.0
    usable = basis[np.isfinite(basis[score])]
    if usable.empty:
        return
    for column in ("loss_change", "metric_drop"):
        known = usable[np.isfinite(usable[column])]
        if known.empty:
            continue
        fitted = IsotonicRegression(out_of_bounds="clip")
        fitted.fit(sign * known[score].to_numpy(float), known[column].to_numpy(float))
        table.loc[rows, column] = fitted.predict(sign * table.loc[rows, score].to_numpy(float))
    table.loc[rows, "estimated_from"] = f"{score}, calibrated on {len(usable)} rows of {said}"
