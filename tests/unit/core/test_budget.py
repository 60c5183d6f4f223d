"""Durations as people write them, and what a budget must limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.budget import Budget, Fidelity, parse_seconds
from autocompress.errors import RequestError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("90", 90),
        ("1e3", 1000),
        ("10m", 600),
        ("10 m", 600),
        (" 10M ", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30m 15s", 5415),
        ("2d", 172_800),
        ("0.5s", 0.5),
        (5, 5),
        (0.25, 0.25),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "10x", "10m5", "ten minutes", "-5", "-1m", "0", "0s", "nan", "inf", "1h-3m", "1:30"],
)
def test_no_durations(text: str) -> None:
    with pytest.raises(RequestError, match="budget is") as caught:
        parse_seconds(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [True, None, [10], {}, float("nan"), float("inf"), 0, -3.0])
def test_no_numbers(value: Any) -> None:
    with pytest.raises(RequestError, match="budget is") as caught:
        parse_seconds(value)
    assert repr(value) in str(caught.value)


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert parse_seconds(text) == days * 86_400 + hours * 3600 + minutes * 60 + seconds


@given(st.floats(1e-3, 1e9))
def test_numbers_pass_through(seconds: float) -> None:
    assert parse_seconds(seconds) == parse_seconds(str(seconds)) == seconds


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, "limits nothing"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"trials": -1}, "trials is -1"),
        ({"train_steps": 0, "seconds": 5.0}, "train_steps is 0"),
        ({"models": 0, "seconds": 5.0}, "models is 0"),
        ({"models": 3}, "limits nothing"),
    ],
    ids=["nothing", "zero", "nan", "trials", "steps", "models", "models alone"],
)
def test_bad_budget(values: dict[str, Any], shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        Budget(**values)


def test_parse() -> None:
    budget = Budget(trials=5)
    assert Budget.parse(budget) is budget
    assert Budget.parse("2m") == Budget(seconds=120.0)
    assert Budget.parse(3) == Budget(seconds=3.0)


def test_fidelities_are_ordered_cheapest_first() -> None:
    assert list(Fidelity) == ["table", "inherited", "short", "final"]
