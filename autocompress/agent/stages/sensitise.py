"""How much accuracy each setting of each gene costs on its own, with inherited weights."""

from __future__ import annotations

from typing import Any

from autocompress.agent.context import Context
from autocompress.evaluation.sensitivity.analysis import Limits, analyse
from autocompress.evaluation.sensitivity.estimates import ALL
from autocompress.evaluation.sensitivity.result import Sensitivity

STAGE = "sensitise"
FILE = "sensitivity.json"
#: Settings measured when the budget counts trials.
_DEFAULT_SETTINGS = 60


def run(context: Context) -> None:
    """Leaves ``context.sensitivity``; stops when its share of the budget is spent.

    What is not measured by then is estimated from cheap scores (see
    :mod:`autocompress.evaluation.sensitivity`), and says so in the file.
    """
    if context.from_scratch:
        return  # elastic weights are not there yet, and trials train anyway
    stored = context.folder.read_json(FILE, _losses)
    if stored is not None:
        context.sensitivity = stored
        return
    timed = bool(context.plan.seconds)
    limits = Limits(
        deadline=context.deadline(context.plan.seconds.get(STAGE, 0.0)) if timed else None,
        settings=None if timed else _DEFAULT_SETTINGS,
        stop=lambda: context.stopping,
    )
    found = analyse(
        context.evaluator, context.space, context.evaluator.trial_split(), limits=limits,
        seed=context.request.seed, progress=context.progress(STAGE, "settings"),
    )  # fmt: skip
    if context.stopping:
        return  # a part of it must not pass for the whole when the run is resumed
    values = found.to_json()
    context.sensitivity = _losses(values)
    context.folder.write_json(FILE, values)
    _tell(context, found)


def _losses(stored: Any) -> dict[str, dict[int, float]]:
    """Gene to option to what it loses of the metric, where that is known."""
    if "table" not in stored:  # as earlier versions wrote it: the losses themselves
        return {
            str(gene): {int(option): float(loss) for option, loss in options.items()}
            for gene, options in stored.items()
        }
    losses: dict[str, dict[int, float]] = {}
    for row in stored["table"]:
        drop = row["metric_drop"]
        if drop is not None and drop == drop:  # not a number in estimates without any basis
            losses.setdefault(str(row["gene"]), {0: 0.0})[int(row["option"])] = float(drop)
    return losses


def _tell(context: Context, found: Sensitivity) -> None:
    table = found.table
    measured = found.measured
    worst = measured[measured["metric_drop"] > 0].nlargest(3, "metric_drop")
    said = "; ".join(
        f"{row['layer']} at {row['setting']} loses {row['metric_drop']:.3f}"
        for row in worst.to_dict("records")
    )
    over_all = found.agreement[found.agreement["technique"] == ALL]
    rated = over_all[over_all["kendall"].notna()].nlargest(1, "kendall").to_dict("records")
    agreed = "".join(
        f" The cheap score that ranks them best is {r['score']} (Kendall's tau {r['kendall']:.2f})."
        for r in rated
    )
    failed = table[table["error"] != ""]
    for row in failed.to_dict("records"):
        context.decide(
            STAGE, "setting failed", f"{row['layer']} at {row['setting']}: {row['error']}"
        )
    estimated = int((table["estimated_from"] != "").sum())
    context.decide(
        STAGE,
        "single settings",
        f"{len(measured)} of {len(table)} single settings were evaluated in {found.seconds:.0f} s, "
        f"{estimated} estimated" + (f"; most harmful: {said}." if said else ".") + agreed,
        evaluated=len(measured), estimated=estimated, of=len(table),
        agreement=over_all.to_dict("records"), notes=list(found.notes),
    )  # fmt: skip
