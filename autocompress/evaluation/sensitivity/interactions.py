"""What two settings lose together beyond what each loses alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from autocompress.evaluation.sensitivity.pairs import Pair
from autocompress.evaluation.sensitivity.settings import Setting

COLUMNS = (
    "first_layer", "first_setting", "second_layer", "second_setting", "picked",
    "first_loss_change", "second_loss_change", "joint_loss_change", "interaction",
    "joint_metric_drop", "metric_interaction", "measured", "error",
)  # fmt: skip
#: Interactions that the summary names.
_NAMED = 3

#: Change of the loss and drop of the metric.
Changes = tuple[float, float]


def interactions_table(
    pairs: Sequence[Pair],
    singles: Mapping[Setting, Changes],
    joint: Mapping[Pair, Changes],
    errors: Mapping[Pair, str],
) -> pd.DataFrame:
    """A row per pair, those that were not measured included.

    Args:
        pairs: in the order of interest.
        singles: what settings change alone, where that was measured.
        joint: what pairs change.
        errors: why a pair could not be measured.
    """
    unknown = (math.nan, math.nan)
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        first, second = (singles.get(s, unknown) for s in (pair.first, pair.second))
        both = joint.get(pair, unknown)
        rows.append(
            {
                "first_layer": pair.first.target, "first_setting": pair.first.label,
                "second_layer": pair.second.target, "second_setting": pair.second.label,
                "picked": pair.picked, "first_loss_change": first[0],
                "second_loss_change": second[0], "joint_loss_change": both[0],
                "interaction": both[0] - first[0] - second[0], "joint_metric_drop": both[1],
                "metric_interaction": both[1] - first[1] - second[1],
                "measured": pair in joint, "error": errors.get(pair, ""),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def interactions_summary(table: pd.DataFrame) -> list[str]:
    """How many were measured, how well losses add up, and where they do not."""
    if table.empty:
        return []
    known = table[table["measured"]]
    failed = int((table["error"] != "").sum())
    left = len(table) - len(known) - failed
    said = f"{len(known)} of {len(table)} pairs measured"
    said += f", {failed} failed" if failed else ""
    said += f", {left} not for want of time: these are partial results" if left else ""
    lines = [said + _additivity(known)]
    strongest = known.reindex(known["interaction"].abs().sort_values(ascending=False).index)
    named = [
        f"{r['first_layer']} {r['first_setting']} with {r['second_layer']} {r['second_setting']} "
        f"{r['interaction']:+.3g}"
        for r in strongest.head(_NAMED).to_dict("records")
    ]
    if named:
        lines.append(f"strongest interactions (joint loss less both alone): {'; '.join(named)}")
    return lines


def _additivity(known: pd.DataFrame) -> str:
    """The rank correlation of sums of single losses with joint losses."""
    sums = (known["first_loss_change"] + known["second_loss_change"]).to_numpy(float)
    joint = known["joint_loss_change"].to_numpy(float)
    if len(known) < 3 or np.ptp(sums) == 0 or np.ptp(joint) == 0:
        return ""
    rho: Any = stats.spearmanr(sums, joint)
    return f"; their order is that of the sums of single losses with rho {float(rho.statistic):.2f}"
