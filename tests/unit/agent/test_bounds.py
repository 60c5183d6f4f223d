from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import autocompress as ac
from autocompress.agent.bounds import (
    broken,
    certain,
    infeasible,
    not_proven,
    score,
    value,
    within_limits,
)
from autocompress.agent.request import Request
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.errors import InfeasibleError
from autocompress.hardware.limits import Limits
from autocompress.search.feasibility import rounded
from tests.unit.hardware.helpers import profile

IMAGES = (torch.zeros(8, 1, 8, 8), torch.arange(8))
ROW = {
    "accuracy": 0.5, "val_accuracy": 0.9, "val_accuracy_drop": 0.02, "size_bytes": 1000,
    "latency_ms": None, "latency_estimate_ms": 2.0,
}  # fmt: skip


def request(task: ac.Task | None = None, **constraints: float) -> Request:
    return Request(
        subject="tiny_cnn", data=ac.Data(IMAGES, IMAGES), device="local",
        budget=ac.Budget(trials=1), objectives=parse_objectives(["accuracy", "size_bytes"]),
        constraints=parse_constraints(constraints), techniques=None, task=task or ac.Task(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "metric", "wanted"),
    [
        pytest.param({}, "accuracy", 0.9, id="what-the-search-chose-by"),
        pytest.param({}, "accuracy_drop", 0.02, id="drop-alike"),
        pytest.param({}, "latency_ms", 2.0, id="estimate-where-none-was-measured"),
        pytest.param({"latency_ms": 3.0}, "latency_ms", 3.0, id="measured"),
        pytest.param({}, "energy_mj", math.nan, id="unknown"),
    ],
)
def test_value(row: dict[str, Any], metric: str, wanted: float) -> None:
    assert value(ROW | row, metric) == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize(("bound", "kept"), [(3.2, True), (3.1, False)])
def test_a_measured_latency_keeps_a_bound_with_its_upper_end(bound: float, kept: bool) -> None:
    row = ROW | {"latency_ms": 3.0, "latency_low_ms": 2.9, "latency_high_ms": 3.15}
    assert certain(row, "latency_ms") == 3.15
    assert (not broken(request(latency_ms=bound), row)) is kept


def test_a_metric_that_is_better_when_smaller() -> None:
    asked = request(ac.Task.regression(), accuracy=0.8)
    assert score(asked, ROW, "accuracy") == -0.9
    assert [c.metric for c in broken(asked, ROW)] == ["accuracy"]
    assert broken(request(ac.Task.regression(), accuracy=1.0), ROW) == []
    words = r"meets accuracy <= 0\.8\. Nearest: accuracy 0\.9\. .*relax accuracy to 0\.9"
    with pytest.raises(InfeasibleError, match=words):
        raise infeasible(asked, [ROW])


def test_the_nearest_comes_first_and_only_what_it_breaks_is_relaxed() -> None:
    asked = request(accuracy_drop=0.01, latency_ms=2.5, size_bytes=500)
    far = ROW | {"val_accuracy_drop": 0.5}
    message = str(infeasible(asked, [far, ROW]))
    assert "none of the 2 verified models meets accuracy_drop <= 0.01 and latency_ms" in message
    assert (
        "Nearest: accuracy_drop 0.02, latency_ms 2, size_bytes 1000; accuracy_drop 0.5" in message
    )
    assert message.endswith(
        "relax accuracy_drop to 0.02 and size_bytes to 1000, or give a larger budget"
    )


def test_what_the_device_has_room_for_bounds_the_search() -> None:
    board = replace(profile(), limits=Limits(ram_bytes=100, flash_bytes=1000))
    asked = within_limits(request(latency_ms=2.0, size_bytes=5000), board)
    found = {c.metric: c.bound for c in asked.constraints}
    assert found == {"latency_ms": 2.0, "size_bytes": 1000.0, "peak_memory_bytes": 100.0}
    tighter = within_limits(request(size_bytes=500), board)
    assert {c.metric: c.bound for c in tighter.constraints}["size_bytes"] == 500
    plain = request(size_bytes=500)
    assert within_limits(plain, profile()) is plain


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("measured", [], id="measured"),
        pytest.param("transferred", ["latency_ms", "energy_mj"], id="transferred"),
        pytest.param("analytic", ["latency_ms", "energy_mj"], id="analytic"),
        pytest.param("simulated", ["latency_ms", "energy_mj"], id="simulated"),
    ],
)
def test_a_device_that_nobody_measured_proves_no_latency(kind: Any, expected: list[str]) -> None:
    asked = request(latency_ms=2.0, size_bytes=500, accuracy_drop=0.1, energy_mj=3.0)
    found = not_proven(asked, replace(profile(), kind=kind))
    assert [c.metric for c in found] == expected


@given(st.floats(1e-9, 1e9), st.booleans())
def test_rounded_keeps_the_side(number: float, up: bool) -> None:
    found = rounded(number, up=up)
    assert found >= number * (1 - 1e-12) if up else found <= number * (1 + 1e-12)
    assert found == pytest.approx(number, rel=2e-3)
