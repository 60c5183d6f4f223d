"""Whether verified models keep the bounds that were asked for, and what to say when none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from autocompress.agent.request import Request
from autocompress.core.objective import Constraint
from autocompress.errors import InfeasibleError
from autocompress.hardware.profile import HardwareProfile
from autocompress.search.feasibility import rounded
from autocompress.search.pricing import is_upper

Row: TypeAlias = Mapping[str, Any]
#: Metrics that a profile gives, which are as good as the profile.
_FROM_PROFILE = ("latency_ms", "peak_memory_bytes", "energy_mj")


def within_limits(request: Request, profile: HardwareProfile) -> Request:
    """The request with what the device has room for among its constraints."""
    if not profile.limits.bounds:
        return request
    asked = {c.metric: c for c in request.constraints}
    for limit in profile.limits.bounds:
        own = asked.get(limit.metric, limit)
        asked[limit.metric] = own if own.bound <= limit.bound else limit
    return replace(request, constraints=tuple(asked.values()))


def not_proven(request: Request, profile: HardwareProfile) -> list[Constraint]:
    """The constraints that this device's profile can lead one to expect, but not prove."""
    if profile.proves_constraints:
        return []
    return [c for c in request.constraints if c.metric in _FROM_PROFILE]


def value(row: Row, metric: str) -> float:
    """A verified model's figure, as measured where it was measured; NaN when there is none.

    Accuracy is that of the validation examples, which the search chose by.
    """
    if metric in ("accuracy", "accuracy_drop"):
        metric = f"val_{metric}"
    if metric == "latency_ms" and row.get("latency_ms") is None:
        metric = "latency_estimate_ms"
    found = row.get(metric)
    return float("nan") if found is None else float(found)


def certain(row: Row, metric: str) -> float:
    """The figure that is held against a bound: of a measured latency its interval's upper end.

    "Meets 5 ms" is said of what meets it when timed anew, not of a lucky run.
    """
    upper = row.get("latency_high_ms") if metric == "latency_ms" else None
    return value(row, metric) if upper is None else float(upper)


def score(request: Request, row: Row, metric: str) -> float:
    """The same as trials have it: the task's metric turned so that larger is better."""
    found = value(row, metric)
    return request.task.score(found) if metric == "accuracy" else found


def _held(request: Request, row: Row, metric: str) -> float:
    return certain(row, metric) if metric == "latency_ms" else score(request, row, metric)


def broken(request: Request, row: Row) -> list[Constraint]:
    """The constraints that a verified model breaks."""
    pairs = zip(request.constraints, request.bounds, strict=True)
    return [c for c, bound in pairs if bound.violation(_held(request, row, c.metric)) > 0]


def _is_upper(request: Request, constraint: Constraint) -> bool:
    turned = constraint.metric == "accuracy" and not request.task.higher_is_better
    return is_upper(constraint) != turned


def in_words(request: Request, constraint: Constraint) -> str:
    """One of ``request.constraints``, such as "latency_ms <= 2", in the task's own metric."""
    sign = "<=" if _is_upper(request, constraint) else ">="
    return f"{constraint.metric} {sign} {constraint.bound:g}"


def infeasible(request: Request, rows: Sequence[Row]) -> InfeasibleError:
    """What to say when every verified model breaks a bound: the nearest, and what to relax."""

    def excess(row: Row) -> float:
        return sum(b.violation(_held(request, row, b.metric)) for b in request.bounds)

    near = sorted(rows, key=excess)[:3]
    wanted = [in_words(request, c) for c in request.constraints]
    shown = [
        ", ".join(f"{c.metric} {certain(row, c.metric):.4g}" for c in request.constraints)
        for row in near
    ]
    relaxed = [
        f"{c.metric} to {rounded(certain(near[0], c.metric), up=_is_upper(request, c)):.4g}"
        for c in broken(request, near[0])
    ]
    return InfeasibleError(
        f"none of the {len(rows)} verified models meets {' and '.join(wanted)}. "
        f"Nearest: {'; '.join(shown)}. "
        f"What would help: relax {' and '.join(relaxed)}, or give a larger budget"
    )
