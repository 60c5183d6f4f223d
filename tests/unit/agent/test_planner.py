"""The plan keeps what verification was seen to cost."""

from __future__ import annotations

import pytest

from autocompress.agent.planner import Costs, VerificationCost, make_plan, with_verification
from autocompress.core.budget import Budget

COSTS = Costs(
    step_seconds=0.03,
    quantized_step_seconds=0.05,
    evaluation_seconds=0.5,
    spent_seconds=10.0,
    typical=0.4,
    epoch_steps=17,
    from_scratch=True,
)


def test_what_is_paid_once_is_not_paid_for_every_model() -> None:
    cost = VerificationCost.of(exporting=4.0, timing=6.0, timed=1.0, models=2)
    assert cost.once == 6.0
    assert cost.each == 2.5


@pytest.mark.parametrize("each", [0.5, 2.0, 5.0, 60.0])
def test_verification_is_kept_within_what_is_left(each: float) -> None:
    plan = make_plan(Budget(seconds=180), COSTS)
    left = 130.0
    again = with_verification(plan, VerificationCost(once=6.0, each=each), left)
    later = sum(again.seconds[n] for n in ("price", "elasticise", "search", "finalise"))
    assert again.seconds["verify"] == pytest.approx(6.0 + again.models * each)
    assert 3 <= again.models <= 16
    if again.models > 3:
        assert again.seconds["verify"] <= 0.35 * left
        assert later + again.seconds["verify"] == pytest.approx(left)


def test_cheaper_models_are_more_models() -> None:
    plan = make_plan(Budget(seconds=180), COSTS)
    dear, cheap = (with_verification(plan, VerificationCost(6.0, e), 130.0) for e in (8.0, 2.0))
    assert cheap.models > dear.models


def test_a_budget_in_trials_depends_on_no_clock() -> None:
    plan = make_plan(Budget(trials=8), COSTS)
    assert with_verification(plan, VerificationCost(6.0, 2.0), float("inf")) is plan


@pytest.mark.parametrize(
    "budget",
    [Budget(seconds=180, models=2), Budget(trials=30, models=2)],
    ids=["seconds", "trials"],
)
def test_no_more_models_than_asked_for_share_the_time(budget: Budget) -> None:
    plan = make_plan(budget, COSTS)
    assert plan.models == 2
    again = with_verification(plan, VerificationCost(6.0, 1.0), 130.0, budget.models)
    assert again.models == 2
    if budget.seconds:
        usual = make_plan(Budget(seconds=budget.seconds), COSTS)
        assert plan.effort.final_steps > usual.effort.final_steps
