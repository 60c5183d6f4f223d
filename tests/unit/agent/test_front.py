"""Baselines take part in the front only when they keep the constraints themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.agent.request import Request
from autocompress.agent.stages.verify import _front
from autocompress.core.budget import Budget
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task


def row(latency: float, size: float, drop: float) -> dict[str, Any]:
    return {"latency_ms": latency, "size_bytes": size, "val_accuracy_drop": drop}


def context(baseline_drop: float, *objectives: str) -> Any:
    request = Request(
        subject="tiny_cnn", data=Data.load("digits"), device="local", budget=Budget(trials=3),
        objectives=parse_objectives(objectives or ("latency_ms", "size_bytes")),
        constraints=parse_constraints({"accuracy_drop": 0.01}), techniques=None, task=Task(),
        strategy="auto", executor="local", workers=1, seed=0,
    )  # fmt: skip
    return SimpleNamespace(
        request=request,
        baselines={"baseline-fp32": row(4, 4, 0.0), "baseline-int8": row(1, 1, baseline_drop)}
        if not objectives
        else {},
    )


@pytest.mark.parametrize(("baseline_drop", "kept"), [(0.4, True), (0.0, False)])
def test_a_baseline_that_breaks_a_bound_surpasses_nobody(baseline_drop: float, kept: bool) -> None:
    model: Any = SimpleNamespace(row=row(2, 2, 0.0), broken=[])
    assert (_front(context(baseline_drop), [model]) == [model]) is kept
    assert bool(model.broken) is not kept


@pytest.mark.parametrize(
    ("validation", "test", "kept"),
    [
        pytest.param(0.98, 0.98, False, id="worse on both"),
        pytest.param(0.98, 0.995, True, id="better on test examples"),
        pytest.param(0.995, 0.98, True, id="better on validation examples"),
        pytest.param(0.99, 0.99, False, id="equal on both, and slower"),
    ],
)
def test_surpassed_in_accuracy_is_surpassed_on_both_splits(
    validation: float, test: float, kept: bool
) -> None:
    small: Any = SimpleNamespace(
        row=row(1, 1, 0.0) | {"val_accuracy": 0.99, "accuracy": 0.99}, broken=[]
    )
    large: Any = SimpleNamespace(
        row=row(2, 2, 0.0) | {"val_accuracy": validation, "accuracy": test}, broken=[]
    )
    found = _front(context(0.0, "accuracy", "latency_ms", "size_bytes"), [small, large])
    assert small in found
    assert (large in found) is kept
