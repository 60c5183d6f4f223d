from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(0.4431, "0.443", id="under-one"),
        pytest.param(0.0000123, "0.0000123", id="tiny"),
        pytest.param(12.345, "12.3", id="tens"),
        pytest.param(123456.7, "123,457", id="thousands"),
        pytest.param(0.0, "0", id="zero"),
        pytest.param(math.nan, "–", id="nan"),
        pytest.param(None, "–", id="none"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert units.number(value) == text


@pytest.mark.parametrize(
    ("drop", "text"),
    [
        pytest.param(0.003, "−0.3", id="loss"),
        pytest.param(-0.012, "+1.2", id="gain"),
        pytest.param(0.0, "0.0", id="none"),
        pytest.param(0.0002, "0.0", id="rounds-to-none"),
        pytest.param(math.nan, "–", id="missing"),
    ],
)
def test_points_turns_a_drop_into_a_change(drop: float, text: str) -> None:
    assert units.points(drop) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(12, "12 B", id="bytes"),
        pytest.param(329_000, "329 kB", id="kilobytes"),
        pytest.param(999_700, "1.00 MB", id="no-1000-kB"),
        pytest.param(1_096_286, "1.10 MB", id="megabytes"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(4.21, "4.2 s", id="seconds"),
        pytest.param(59.97, "1 min 00 s", id="no-60-s"),
        pytest.param(185, "3 min 05 s", id="minutes"),
        pytest.param(4320, "1 h 12 min", id="hours"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.44, "3.4x"), (0.98, "0.98x"), (1.0, "1.00x"), (771.2, "771x")],
)
def test_ratio(value: float, text: str) -> None:
    assert units.ratio(value) == text


@given(st.floats(min_value=1e-7, max_value=1e12))
def test_three_digits_are_kept(value: float) -> None:
    shown = float(units.number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=6e-3)


@given(st.text())
def test_printable_text_holds_no_control_characters(value: str) -> None:
    assert all(c == "\n" or c.isprintable() for c in units.printable(value))
