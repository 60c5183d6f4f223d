"""Metrics, directions and bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.objective import (
    METRICS,
    Constraint,
    Objective,
    parse_constraints,
    parse_objectives,
)
from autocompress.errors import RequestError

FINITE = st.floats(-1e9, 1e9)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_an_objective(name: str) -> None:
    objective = Objective.parse(name)
    assert objective == Objective(name, METRICS[name].direction)
    assert Objective.parse(objective) is objective


def test_only_accuracy_needs_an_evaluation() -> None:
    assert [m.name for m in METRICS.values() if not m.priced] == ["accuracy"]
    assert [m.name for m in METRICS.values() if m.direction == "maximize"] == ["accuracy"]


@pytest.mark.parametrize("name", METRICS)
@given(FINITE, FINITE)
def test_smaller_loss_is_better(name: str, first: float, second: float) -> None:
    objective = Objective.parse(name)
    better = first > second if objective.direction == "maximize" else first < second
    assert (objective.loss(first) < objective.loss(second)) is better


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["accuracy", "speed"], "unknown objective 'speed'"),
        (["accuracy"], "1 objectives given"),
        ([], "0 objectives given"),
        (["accuracy", "latency_ms", "macs", "size_bytes", "parameters"], "5 objectives given"),
        (["accuracy", "macs", "accuracy"], "repeat a metric"),
        ("accuracy", "objectives is 'accuracy'"),
    ],
    ids=["unknown", "one", "none", "five", "repeated", "text"],
)
def test_bad_objectives(values: Any, shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        parse_objectives(values)


def test_objectives_keep_their_order() -> None:
    names = ["size_bytes", "accuracy", "macs"]
    assert [o.metric for o in parse_objectives(names)] == names


@pytest.mark.parametrize(
    ("metric", "bound", "value", "violation"),
    [
        ("latency_ms", 2.0, 1.9, 0.0),
        ("latency_ms", 2.0, 2.0, 0.0),
        ("latency_ms", 2.0, 3.0, 0.5),
        ("accuracy", 0.8, 0.9, 0.0),
        ("accuracy", 0.8, 0.6, 0.25),
        ("accuracy_drop", 0.01, 0.03, 2.0),
        ("accuracy_drop", 0.0, 0.03, 0.03),
        ("accuracy_drop", 0.01, -0.5, 0.0),
        ("size_bytes", 100, math.inf, math.inf),
        ("size_bytes", 100, math.nan, math.inf),
    ],
)
def test_violation(metric: str, bound: float, value: float, violation: float) -> None:
    assert Constraint(metric, bound).violation(value) == pytest.approx(violation)


@given(st.sampled_from([*METRICS, "accuracy_drop"]), FINITE, FINITE)
def test_violation_is_zero_exactly_when_met(metric: str, bound: float, value: float) -> None:
    violation = Constraint(metric, bound).violation(value)
    met = value >= bound if metric == "accuracy" else value <= bound
    assert violation >= 0
    assert (violation == 0) is met or abs(value - bound) < 1e-300


@pytest.mark.parametrize(
    ("metric", "bound", "shown"),
    [
        ("speed", 2.0, "unknown constraint 'speed'"),
        ("latency_ms", math.nan, "latency_ms is nan"),
        ("latency_ms", math.inf, "latency_ms is inf"),
        ("latency_ms", "2ms", "latency_ms is '2ms'"),
        ("latency_ms", None, "latency_ms is None"),
    ],
)
def test_bad_constraints(metric: str, bound: Any, shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        parse_constraints({metric: bound})


def test_what_can_be_checked_before_an_evaluation() -> None:
    assert Constraint("macs", 1).priced
    assert not Constraint("accuracy", 1).priced
    assert not Constraint("accuracy_drop", 1).priced
    assert parse_constraints(None) == ()
