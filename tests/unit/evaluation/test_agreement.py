"""Rank agreement: known values, ties, what is not known, and its intervals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autocompress.evaluation.agreement import (
    FEWEST_PAIRS,
    Agreement,
    _kendall,
    _spearman,
    _tied,
    rank_agreement,
)

SCORES = st.lists(st.integers(0, 5), min_size=3, max_size=14)


def test_known_values() -> None:
    """Spearman's by hand: differences of ranks 1, 1, 1, 1, 0; Kendall's: two of ten are turned."""
    found = rank_agreement([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0])
    assert found.spearman == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert found.kendall == pytest.approx((8 - 2) / 10)
    assert found.pairs == 5
    assert (found.mean_gap, found.largest_gap, found.mean_change) == pytest.approx((0.8, 1.0, 0.0))
    assert found.known
    assert "Spearman 0.80 [" in found.words


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, -1.0)])
def test_perfect_orders_are_certain(sign: float, expected: float) -> None:
    x = [0.1, 0.2, 0.4, 0.7, 0.9, 1.3]
    found = rank_agreement(x, [sign * math.exp(v) for v in x])
    assert found.spearman == pytest.approx(expected)
    assert found.kendall == pytest.approx(expected)
    ends = (found.spearman_low, found.spearman_high, found.kendall_low, found.kendall_high)
    assert ends == pytest.approx((expected,) * 4)


def test_ties_are_counted_as_scipy_does() -> None:
    x, y = [1.0, 1.0, 2.0, 3.0, 3.0, 4.0], [0.5, 0.7, 0.7, 0.7, 0.9, 0.8]
    found = rank_agreement(x, y)
    spearman: Any = stats.spearmanr(x, y)
    kendall: Any = stats.kendalltau(x, y)
    assert found.spearman == pytest.approx(spearman.statistic)
    assert found.kendall == pytest.approx(kendall.statistic)


def test_an_order_that_hangs_on_one_candidate_is_not_certain() -> None:
    """A third of the resamples leave it out, and show no order at all."""
    first, second = [0.1] * 4 + [0.9], [0.6, 0.5, 0.4, 0.3, 0.9]
    found = rank_agreement(first, second)
    assert found.spearman == pytest.approx(0.707, abs=1e-3)
    assert found.spearman_low <= 0
    assert found.kendall_low <= 0
    assert found.distinct == 2
    assert (found.spearman_high, found.kendall_high) == pytest.approx((1.0, 1.0), abs=0.3)


def test_what_chance_alone_makes_different_is_a_tie() -> None:
    """0.100 to 0.110 of 2,000 examples: the standard error is 0.0067."""
    first, second = [0.100, 0.103, 0.106, 0.5, 0.6], [0.3, 0.2, 0.1, 0.5, 0.6]
    exact = rank_agreement(first, second)
    found = rank_agreement(first, second, examples=(2000, 2000))
    assert (exact.distinct, found.distinct) == (5, 3)
    assert found == replace(
        rank_agreement([0.1, 0.1, 0.1, 0.5, 0.6], second), mean_gap=exact.mean_gap,
        mean_change=exact.mean_change, largest_gap=exact.largest_gap,
    )  # fmt: skip
    assert rank_agreement(first, second, examples=(10**6, 10**6)).spearman == exact.spearman
    constant = rank_agreement([0.100, 0.103, 0.106], [0.3, 0.2, 0.1], examples=(2000, 2000))
    assert "all 3 candidates have within its error the same first score, 0.1" in constant.words


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_share_is_without_error(share: float) -> None:
    """One of 300 examples is nothing, even where all the others are answered alike."""
    near = abs(share - 1 / 300)
    found = rank_agreement([share, near, 0.5], [0.1, 0.2, 0.3], examples=(300, 300))
    assert found.distinct == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.integers(20, 5000))
def test_ties_keep_the_order(shares: list[float], examples: int) -> None:
    values = np.array(shares)
    tied = _tied(values, examples)
    assert (np.diff(tied[np.argsort(values, kind="stable")]) >= 0).all()
    assert (tied <= values).all()
    assert (values - tied <= 0.51 / math.sqrt(examples) + 1 / examples).all()


@settings(max_examples=60, deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_rows_agree_with_scipy(first: list[int], random: Any) -> None:
    """What the bootstrap computes for many rows at once is what scipy computes for one."""
    second = [random.randint(0, 5) for _ in first]
    x, y = np.array([first], dtype=float), np.array([second], dtype=float)
    rho, tau = float(_spearman(x, y)[0]), float(_kendall(x, y)[0])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert rho == tau == 0  # as resamples without an order count
        return
    spearman: Any = stats.spearmanr(first, second)
    kendall: Any = stats.kendalltau(first, second)
    assert rho == pytest.approx(spearman.statistic)
    assert tau == pytest.approx(kendall.statistic)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4], "same first score, 0.5"),
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1], "same second score, 0.1"),
        ([0.1, 0.2], [0.1, 0.3], f"2 candidates with both scores are fewer than {FEWEST_PAIRS}"),
        ([], [], "0 candidates"),
    ],
    ids=["first constant", "second constant", "too few", "none"],
)
def test_what_is_not_known_is_said(first: list[float], second: list[float], said: str) -> None:
    found = rank_agreement(first, second)
    assert not found.known
    assert said in found.unknown
    assert said in found.words
    figures = (found.spearman, found.spearman_low, found.kendall, found.kendall_high)
    assert all(math.isnan(value) for value in figures)
    assert math.isnan(found.mean_gap) == (not first)


@pytest.mark.parametrize(
    ("first", "second"), [([1.0, 2.0], [1.0]), ([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])]
)
def test_what_are_no_pairs_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        rank_agreement(first, second)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=10)
    y = x + rng.normal(size=10)
    one, two, other = (rank_agreement(x.tolist(), y.tolist(), seed=s) for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_more_candidates_are_surer() -> None:
    rng = np.random.default_rng(3)
    widths = []
    for n in (8, 80):
        x = rng.normal(size=n)
        found = rank_agreement(x.tolist(), (x + 0.6 * rng.normal(size=n)).tolist())
        assert found.spearman_low <= found.spearman <= found.spearman_high
        assert found.kendall_low <= found.kendall <= found.kendall_high
        widths.append(found.spearman_high - found.spearman_low)
    assert widths[1] < widths[0]


@pytest.mark.parametrize("second", [[0.2, 0.1, 0.6, 0.4], [0.3] * 4], ids=["known", "not"])
def test_as_json_and_back(second: list[float]) -> None:
    found = rank_agreement([0.1, 0.2, 0.3, 0.4], second)
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Agreement.from_json({**json.loads(text), "of_a_later_version": 1})
    assert again.to_json() == found.to_json()
    assert again.known == found.known
