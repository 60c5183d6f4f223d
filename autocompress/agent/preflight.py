"""The cheap checks of a request, so that a wrong word costs no waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autocompress.compression.registry import make_techniques
from autocompress.core.objective import ACCURACY_DROP, METRICS, Constraint
from autocompress.errors import RequestError
from autocompress.evaluation.task import Task
from autocompress.hardware.profile import HardwareProfile
from autocompress.search.executors.registry import executor_names
from autocompress.search.strategies.registry import strategy_names


def check_task(task: Task | None, bounds: Sequence[Constraint]) -> None:
    """Make sure that the task is one, and that bounds on accuracy are in its unit.

    Raises:
        RequestError: it is something else, or a share is given in per cent.
    """
    if task is not None and not isinstance(task, Task):
        raise RequestError(
            f"task is {task!r}; give autocompress.Task(loss=..., metric=..., "
            "higher_is_better=...), or leave it out for classification"
        )
    for bound in bounds:
        share = (task or Task()).metric_is_share and bound.metric in ("accuracy", ACCURACY_DROP)
        if share and abs(bound.bound) > 1:
            raise RequestError(
                f"constraint {bound.metric} is {bound.bound:g}; accuracy is a share of the "
                f"examples, so write {bound.bound / 100:g} for {bound.bound:g} %"
            )


def check_names(model: Any, strategy: Any, executor: str, techniques: Sequence[str] | None) -> None:
    """Make sure that what is named exists.

    Raises:
        RequestError: it does not; names what does.
    """
    from autocompress.elastic.registry import list_spaces

    checks: list[tuple[str, Any, Callable[[], Sequence[str]]]] = [
        ("search space", model, lambda: list(list_spaces())),
        ("strategy", strategy, lambda: strategy_names()),
    ]
    for what, value, known in checks:
        if isinstance(value, str) and value not in known():
            raise RequestError(f"unknown {what} {value!r}; use one of {', '.join(known())}")
    if executor not in executor_names():
        raise RequestError(
            f"unknown executor {executor!r}; this version has {', '.join(executor_names())}"
        )
    make_techniques(techniques)


def check_priced(metrics: Sequence[str], profile: HardwareProfile) -> None:
    """Make sure that the profile prices the metrics before a model is built.

    Raises:
        RequestError: it does not; names those that it prices.
    """
    reasons = {}
    if profile.energy is None:
        reasons["energy_mj"] = f"the profile of {profile.id} has no energy model"
    for metric in metrics:
        if metric in reasons:
            usable = ", ".join(sorted(set(METRICS) - set(reasons)))
            raise RequestError(
                f"{metric} cannot be searched for: {reasons[metric]}; use some of {usable}"
            )
