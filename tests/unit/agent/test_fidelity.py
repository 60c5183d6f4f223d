"""At which fidelity the search's trials run, by how far accuracies agree."""

from __future__ import annotations

import pytest

from autocompress.agent.fidelity import Levels, choose_fidelity, with_fidelity
from autocompress.agent.planner import Plan, make_plan
from autocompress.core.budget import Budget, Fidelity
from autocompress.evaluation.agreement import Agreement, rank_agreement
from tests.unit.agent.test_planner import COSTS

SECONDS = Budget(seconds=600)


#: Inherited accuracies as high as trained ones.
LEVEL = Levels(8, 8, 0.0)


def agreed(
    spearman: float, low: float, pairs: int = 8, *, distinct: int = 8, kendall: float | None = None
) -> Agreement:
    tau = spearman if kendall is None else kendall
    return Agreement(pairs, distinct, spearman, low, 1.0, tau, min(tau, low), 1.0)


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
        (agreed(0.95, 0.9, pairs=7, distinct=7), Fidelity.SHORT),
        (agreed(0.95, 0.9, distinct=6), Fidelity.INHERITED),
        (agreed(0.95, 0.9, distinct=5), Fidelity.SHORT),
        (agreed(0.8, 0.5, kendall=0.49), Fidelity.SHORT),
        (agreed(0.8, 0.5, kendall=0.5), Fidelity.INHERITED),
        (agreed(-0.95, -1.0), Fidelity.SHORT),
        (Agreement(8, unknown="all are equal"), Fidelity.SHORT),
        (None, Fidelity.SHORT),
    ],
)
def test_the_order_of_inherited_accuracies_decides(
    agreement: Agreement | None, expected: Fidelity
) -> None:
    fidelity, said = choose_fidelity(short_plan(), SECONDS, agreement, levels=LEVEL)
    assert fidelity == expected
    assert "can be trusted" in said or expected == Fidelity.SHORT
    if agreement is not None:
        assert agreement.words in said


@pytest.mark.parametrize(
    ("agreement", "said"),
    [
        (agreed(0.95, 0.9, pairs=5, distinct=5), "of 5 candidates alone, fewer than 8"),
        (agreed(0.95, 0.9, distinct=3), "8 candidates have 3 different accuracies"),
    ],
)
def test_why_a_high_correlation_is_not_enough(agreement: Agreement, said: str) -> None:
    assert said in choose_fidelity(short_plan(), SECONDS, agreement, levels=LEVEL)[1]


def test_one_good_candidate_among_those_at_chance_decides_nothing() -> None:
    first = [0.1, 0.101, 0.102, 0.1, 0.099, 0.1, 0.101, 0.9]
    found = rank_agreement(first, [0.3, 0.4, 0.5, 0.2, 0.1, 0.35, 0.45, 0.9], examples=(300, 300))
    assert choose_fidelity(short_plan(), SECONDS, found, levels=LEVEL)[0] == Fidelity.SHORT


def test_a_bound_on_accuracy_is_held_against_trained_accuracy() -> None:
    fidelity, said = choose_fidelity(
        short_plan(), SECONDS, agreed(1.0, 1.0), levels=LEVEL, bounded=True
    )
    assert fidelity == Fidelity.SHORT
    assert "can be trusted" in said
    assert "a bound on accuracy is held against how high it is" in said


TRAINED = [0.60, 0.66, 0.70, 0.74, 0.80, 0.84, 0.88, 0.90]


@pytest.mark.parametrize(
    ("below", "expected"), [(0.0, Fidelity.INHERITED), (0.02, Fidelity.INHERITED),
                            (0.1, Fidelity.SHORT), (0.5, Fidelity.SHORT)],
)  # fmt: skip
def test_a_perfect_order_at_another_level_is_not_enough(below: float, expected: Fidelity) -> None:
    """Finalists are chosen by how near to the original trials are."""
    inherited = [score - below for score in TRAINED]
    found = rank_agreement(inherited, TRAINED)
    assert found.spearman == pytest.approx(1.0)
    levels = Levels.of(inherited, TRAINED, original=0.9)
    fidelity, said = choose_fidelity(short_plan(), SECONDS, found, levels=levels)
    assert fidelity == expected
    if expected == Fidelity.SHORT:
        assert levels.words in said
    if below == 0.5:
        assert "1 of 8 are as near to the original untrained as trained" in said
        assert "changes them by +56% of its accuracy on average" in said


def test_levels_by_how_near_to_the_original_they_are() -> None:
    """Large changes do not matter among candidates that are useless both ways, or close."""
    levels = Levels.of([0.1, 0.2, 0.1, 0.88], [0.5, 0.55, 0.6, 0.9], original=0.9)
    assert (levels.pairs, levels.same) == (4, 4)
    assert levels.change > 0.3
    assert levels.agree
    errors = Levels.of([-0.9, -0.5], [-0.4, -0.1], original=-0.2)  # no share of it can be taken
    assert errors.agree
    assert "%" not in errors.words
    nothing = Levels.of([], [], original=0.9)
    assert not nothing.agree
    unknown = choose_fidelity(short_plan(), SECONDS, agreed(1.0, 1.0))
    assert unknown[0] == Fidelity.SHORT
    assert "not known how high" in unknown[1]


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
    plan = short_plan(budget)
    fidelity, sentence = choose_fidelity(plan, budget, agreed(0.9, 0.8), levels=LEVEL)
    assert fidelity == expected
    assert said in sentence


def test_recipes_show_in_trained_trials_only() -> None:
    fidelity, said = choose_fidelity(
        short_plan(), SECONDS, agreed(0.9, 0.8), levels=LEVEL, recipes=True
    )
    assert fidelity == Fidelity.SHORT
    assert "ways of training back" in said


@pytest.mark.parametrize(
    ("agreement", "said"),
    [
        (None, "although its trust is not known"),
        (
            agreed(0.2, -0.3),
            "its trust is low: its order cannot be relied on (Spearman 0.20 [-0.30",
        ),
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
