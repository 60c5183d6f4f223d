"""How an elastic training proceeds and ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.elastic.schedule import Schedule

STEPS = 200


def schedule(**changes: float) -> Schedule:
    options = {"growing": 0.3, "patience": 3} | changes
    return Schedule(STEPS, 0.1, growing=options["growing"], patience=int(options["patience"]))


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [schedule().learning_rate(done) for done in range(STEPS + 1)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert rates[-1] == 0.0
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_time_that_runs_out_counts_as_steps_do() -> None:
    assert schedule().learning_rate(50, 0.5) == schedule().learning_rate(100)
    assert schedule().learning_rate(100, 0.1) == schedule().learning_rate(100)
    assert schedule().learning_rate(10, 1.0) == 0.0
    assert schedule().reach(0, 0.15) == schedule().reach(30)


def test_candidates_come_to_be_small() -> None:
    reaches = [schedule().reach(done) for done in range(STEPS)]
    assert reaches[0] == Schedule.LEAST_REACH
    assert reaches == sorted(reaches)
    assert reaches[59] < 1.0 == reaches[60]
    assert schedule(growing=0.0).reach(0) == 1.0


def test_the_end_is_brought_forward_where_nothing_is_gained() -> None:
    found = schedule()
    found.judge(0.9, 20)  # does not count: candidates are not as small as can be yet
    for done, score in ((60, 0.5), (70, 0.55), (80, 0.6), (90, 0.601), (100, 0.6)):
        found.judge(score, done)
    found.judge(float("nan"), 105)  # says nothing
    assert found.end == STEPS
    found.judge(0.6015, 110)
    assert found.end == 120
    before = schedule().learning_rate(110)
    assert found.learning_rate(110) == pytest.approx(before)
    assert 0 < found.learning_rate(119) < 0.2 * before
    assert found.learning_rate(120) == 0.0
    found.judge(0.9, 115)
    assert found.end == 120


@pytest.mark.parametrize(("scale", "origin"), [(1.0, 0.0), (1e-4, 0.0), (100.0, -1e4)])
def test_scores_may_be_in_any_unit(scale: float, origin: float) -> None:
    found = schedule(patience=2)
    for i, score in enumerate((0.1, 0.2, 0.3, 0.35, 0.352, 0.351)):
        assert not found.is_cut
        found.judge(origin + scale * score, 60 + 10 * i)
    assert found.is_cut


def test_never_so_late_that_it_would_take_longer() -> None:
    found = schedule(patience=1)
    found.judge(0.5, STEPS - 20)
    found.judge(0.5, STEPS - 10)
    assert found.end == STEPS


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.floats(-5, 5), max_size=20), cut=st.integers(0, 20))
def test_its_state_decides_how_it_goes_on(scores: list[float], cut: int) -> None:
    whole, first, second = schedule(), schedule(), schedule()
    for i, score in enumerate(scores):
        whole.judge(score, 10 * i)
        (first if i < cut else second).judge(score, 10 * i)
        if i == cut - 1:
            second.take(json.loads(json.dumps(first.state())))
    if 0 < cut <= len(scores):
        assert second.end == whole.end
        assert second.state() == whole.state()
