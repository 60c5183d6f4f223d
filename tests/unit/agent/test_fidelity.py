"""At which fidelity the search's trials run, by how far accuracies agree."""

from __future__ import annotations

import pytest

from autocompress.agent.fidelity import choose_fidelity, with_fidelity
from autocompress.agent.planner import Costs, Plan, make_plan
from autocompress.core.budget import Budget, Fidelity
from autocompress.evaluation.agreement import Agreement

COSTS = Costs(
    step_seconds=0.03,
    quantized_step_seconds=0.05,
    evaluation_seconds=0.5,
    spent_seconds=10.0,
    typical=0.4,
    epoch_steps=17,
    from_scratch=True,
)
SECONDS = Budget(seconds=600)


def agreed(spearman: float, low: float, pairs: int = 8) -> Agreement:
    return Agreement(pairs, spearman, low, 1.0, spearman, low, 1.0)


def short_plan(budget: Budget = SECONDS) -> Plan:
    plan = make_plan(budget, COSTS)
    assert plan.fidelity == Fidelity.SHORT
    return plan


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        (agreed(0.9, 0.6), Fidelity.INHERITED),
        (agreed(0.7, 0.4), Fidelity.INHERITED),
        (agreed(0.69, 0.5), Fidelity.SHORT),
        (agreed(0.95, 0.39), Fidelity.SHORT),
        (agreed(0.95, 0.9, pairs=4), Fidelity.SHORT),
        (agreed(-0.95, -1.0), Fidelity.SHORT),
        (Agreement(8, unknown="all are equal"), Fidelity.SHORT),
        (None, Fidelity.SHORT),
    ],
)
def test_the_order_of_inherited_accuracies_decides(
    agreement: Agreement | None, expected: Fidelity
) -> None:
    fidelity, said = choose_fidelity(short_plan(), SECONDS, agreement)
    assert fidelity == expected
    assert "can be trusted" in said or expected == Fidelity.SHORT
    if agreement is not None:
        assert agreement.words in said


@pytest.mark.parametrize(
    ("budget", "expected", "said"),
    [
        (Budget(seconds=600), Fidelity.INHERITED, "many more"),
        (Budget(seconds=600, trials=40), Fidelity.INHERITED, "more training for the models"),
        (Budget(trials=40, train_steps=9000), Fidelity.INHERITED, "more training for the models"),
        (Budget(trials=40), Fidelity.SHORT, "would save nothing"),
    ],
)
def test_trials_are_only_left_untrained_where_that_buys_something(
    budget: Budget, expected: Fidelity, said: str
) -> None:
    fidelity, sentence = choose_fidelity(short_plan(budget), budget, agreed(0.9, 0.8))
    assert fidelity == expected
    assert said in sentence


def test_recipes_show_in_trained_trials_only() -> None:
    fidelity, said = choose_fidelity(short_plan(), SECONDS, agreed(0.9, 0.8), recipes=True)
    assert fidelity == Fidelity.SHORT
    assert "ways of training back" in said


@pytest.mark.parametrize(
    ("agreement", "said"),
    [
        (None, "although its trust is not known"),
        (agreed(0.2, -0.3), "although its trust is low (Spearman 0.20 [-0.30"),
        (agreed(0.9, 0.8), "whose order can be trusted"),
    ],
)
def test_without_steps_inherited_accuracy_is_all_there_is(
    agreement: Agreement | None, said: str
) -> None:
    budget = Budget(trials=40, train_steps=30)
    plan = make_plan(budget, COSTS)
    assert plan.effort.short_steps == 0
    fidelity, sentence = choose_fidelity(plan, budget, agreement)
    assert fidelity == Fidelity.INHERITED
    assert said in sentence


def test_many_more_trials_fit_without_training() -> None:
    plan = short_plan()
    cheap = with_fidelity(plan, Fidelity.INHERITED, SECONDS, trial_seconds=0.1, left=100.0)
    assert cheap.trials == 1000
    assert cheap.effort == plan.effort
    two = with_fidelity(plan, Fidelity.INHERITED, SECONDS, trial_seconds=0.1, left=100.0, workers=2)
    assert two.trials == 2000
    asked = Budget(seconds=600, trials=40)
    kept = with_fidelity(
        short_plan(asked), Fidelity.INHERITED, asked, trial_seconds=0.1, left=100.0
    )
    assert kept.trials == 40


def test_steps_that_trials_do_not_take_go_to_the_models() -> None:
    budget = Budget(trials=40, train_steps=2000)
    plan = short_plan(budget)
    cheap = with_fidelity(plan, Fidelity.INHERITED, budget, trial_seconds=0.1, left=0.0)
    more = (cheap.effort.final_steps - plan.effort.final_steps) * plan.models
    assert 0 < more <= plan.trials * plan.effort.short_steps
    again = with_fidelity(cheap, Fidelity.INHERITED, budget, trial_seconds=0.1, left=0.0)
    assert again == cheap  # a run that was killed in between does it twice
    same = with_fidelity(plan, Fidelity.SHORT, budget, trial_seconds=1.0, left=0.0)
    assert same == plan
