"""The one sentence that says what a run achieved, from the figures of its best model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autocompress.report import units
from autocompress.report.run_folder import RunView

#: What the best model may lose when the request sets no bound: one point of a share, or one per
#: cent of the original's metric.
DEFAULT_DROP = 0.01


@dataclass(frozen=True, slots=True)
class Headline:
    """A sentence and where it comes from.

    Attributes:
        sentence: such as "3.4x faster and 9.1x smaller than fp32 at −0.3 points on local."
        rule: how the best model was chosen.
        best: id of the best model, or None.
    """

    sentence: str
    rule: str = ""
    best: str | None = None


def is_share(view: RunView) -> bool:
    """Whether the task's metric is a share (0..1), to be shown in per cent and points."""
    request = view.section("request")
    name = str(request.get("metric") or request.get("task") or "accuracy")
    values = view.models["accuracy"].dropna()
    shares = {"accuracy", "top1", "classification"}
    return name in shares and bool(values.between(0.0, 1.0).all())


def metric_name(view: RunView) -> str:
    """What the accuracy column holds, with a capital."""
    if is_share(view):
        return "Accuracy"
    name = str(view.section("request").get("metric") or "metric").replace("_", " ")
    return name[:1].upper() + name[1:]


def best_model(view: RunView) -> pd.Series[Any] | None:
    """The row with the largest gain (geometric mean of speed-up and size ratio) within the drop.

    The drop allowed is the request's constraint, or :data:`DEFAULT_DROP`. When no model is within
    it, the one that loses least.
    """
    front = view.pareto
    if front.empty:
        return None
    within = front[front["accuracy_drop"] <= allowed_drop(view) + 1e-9]
    if within.empty:
        return front.iloc[int(front["accuracy_drop"].fillna(math.inf).argmin())]
    return within.iloc[int(gain(within).argmax())]


def gain(rows: pd.DataFrame) -> pd.Series[float]:
    """Geometric mean of speed-up and size ratio; a missing one counts as 1."""
    product = rows["speedup"].fillna(1.0) * rows["size_ratio"].fillna(1.0)
    return product.clip(lower=0.0) ** 0.5


def allowed_drop(view: RunView) -> float:
    """How much of the metric a model may lose, in the metric's unit."""
    constraints = view.section("request").get("constraints")
    bound = constraints.get("accuracy_drop") if isinstance(constraints, dict) else None
    if isinstance(bound, int | float):
        return float(bound)
    original = _original(view)
    if is_share(view) or not units.known(original):
        return DEFAULT_DROP
    return DEFAULT_DROP * abs(original)


def _original(view: RunView) -> float:
    """The fp32 baseline's metric, NaN without one."""
    rows = view.baselines[view.baselines["id"] == "baseline-fp32"]
    return float(rows["accuracy"].iloc[0]) if len(rows) else math.nan


def headline(view: RunView) -> Headline:
    """What the run achieved, or why there is nothing to show."""
    best = best_model(view)
    if best is None:
        return Headline(_nothing(view))
    share = is_share(view)
    bound = allowed_drop(view)
    words = _bound(bound) if share else units.number(bound)
    rule = f"the largest joint gain in speed and size among models that lose at most {words}"
    if not best["accuracy_drop"] <= bound + 1e-9:
        rule = f"the smallest loss; no model loses at most {words}"
    sentence = f"{_gains(best)} than fp32{_loss(view, best)} on {view.place}."
    return Headline(sentence[0].upper() + sentence[1:], rule, str(best["id"]))


def _bound(drop: float) -> str:
    return f"{100 * drop:g} point" + ("" if round(100 * drop, 6) == 1 else "s")


def _gains(row: pd.Series[Any]) -> str:
    parts = []
    if units.known(row["speedup"]):
        parts.append(_times(row["speedup"], "faster", "slower"))
    if units.known(row["size_ratio"]):
        parts.append(_times(row["size_ratio"], "smaller", "larger"))
    return " and ".join(parts) or "neither measured faster nor smaller"


def _times(value: float, more: str, less: str) -> str:
    return f"{units.ratio(value)} {more}" if value >= 1 else f"{units.ratio(1 / value)} {less}"


def _loss(view: RunView, row: pd.Series[Any]) -> str:
    if not is_share(view):
        now, before = units.number(row["accuracy"]), units.number(_original(view))
        return f" at a {metric_name(view).lower()} of {now} (fp32: {before})"
    if not units.known(row["accuracy_drop"]):
        return ""
    text = units.points(row["accuracy_drop"])
    return " at equal accuracy" if text == "0.0" else f" at {text} points"


def _nothing(view: RunView) -> str:
    if view.status == "running":
        return "No verified model yet: the run is still going."
    if view.rejected:
        return "No model passed verification; the failed checks are listed below."
    if view.status == "complete":
        return "No verified model came out of this run; the decisions say why."
    return f"No verified model: the run is {view.status}."
