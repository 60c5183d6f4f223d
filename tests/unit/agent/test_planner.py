"""The plan keeps what verification was seen to cost, and pays for a comparison of accuracies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.agent.planner import (
    Costs,
    Plan,
    VerificationCost,
    make_plan,
    with_verification,
)
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
    later = sum(again.seconds[n] for n in ("price", "elasticise", "trust", "search", "finalise"))
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


@pytest.mark.parametrize(("trials", "compared"), [(6, 0), (20, 0), (31, 0), (32, 8), (200, 8)])
def test_a_budget_in_trials_has_a_fixed_comparison(trials: int, compared: int) -> None:
    plan = make_plan(Budget(trials=trials), COSTS)
    assert plan.compared == compared
    assert plan.trials == trials
    slower = replace(COSTS, step_seconds=9.0, evaluation_seconds=30.0)
    assert make_plan(Budget(trials=trials), slower).compared == compared
    assert plan.compared_note.startswith("compare" if compared else "left out")
    notes = {stage["name"]: stage["note"] for stage in plan.to_json()["stages"]}
    assert notes["trust"] == plan.compared_note


@pytest.mark.parametrize("seconds", [None, 600.0])
@pytest.mark.parametrize("steps", [100, 700, 3000, 10**6])
def test_the_comparison_counts_in_training_steps(steps: int, seconds: float | None) -> None:
    plan = make_plan(Budget(seconds=seconds, trials=40, train_steps=steps), COSTS)
    taken = plan.training_steps + plan.elastic_steps + plan.compared * plan.compared_steps
    taken += plan.trials * plan.effort.short_steps + plan.models * plan.effort.final_steps
    assert taken <= steps


@pytest.mark.parametrize("from_scratch", [True, False])
@pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0, 3600.0])
@pytest.mark.parametrize("step", [0.003, 0.03, 0.6])
def test_the_comparison_takes_its_share_at_most(
    from_scratch: bool, seconds: float, step: float
) -> None:
    costs = replace(
        COSTS, from_scratch=from_scratch, step_seconds=step, quantized_step_seconds=1.5 * step
    )
    plan = make_plan(Budget(seconds=seconds), costs)
    assert plan.compared == 0 or 8 <= plan.compared <= 12
    assert (plan.seconds["trust"] > 0) == (plan.compared > 0)
    each = 2 * costs.evaluation_seconds + plan.compared_steps * plan.step_seconds
    assert plan.compared * each <= 0.08 * seconds
    later = replace(plan, seconds=dict(plan.seconds))
    again = with_verification(later, VerificationCost(once=6.0, each=2.0), 0.7 * seconds)
    assert again.compared <= plan.compared
    assert again.compared == 0 or again.compared >= 8
    kept = Plan.from_json(again.to_json())
    assert replace(kept, seconds=again.seconds) == again
    assert kept.seconds == pytest.approx(again.seconds, abs=0.05)


def test_elastic_steps_are_as_many_as_the_measured_ones_allow() -> None:
    measured = replace(COSTS, from_scratch=True, elastic_step_seconds=0.5)
    plan = make_plan(Budget(seconds=600.0), measured)
    assert plan.elastic_steps == int(plan.seconds["elasticise"] / 0.5)
    twice = make_plan(Budget(seconds=600.0), replace(measured, elastic_step_seconds=1.0))
    assert twice.elastic_steps == plan.elastic_steps // 2


def test_a_plan_of_an_earlier_version_is_read() -> None:
    stored = make_plan(Budget(seconds=600), COSTS).to_json()
    for name in ("compared", "compared_steps", "compared_note"):
        del stored[name]
    assert Plan.from_json(stored).compared == 0
