"""What Optuna is told, and that it notices."""

from __future__ import annotations

import logging

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autocompress.core.objective import parse_objectives
from autocompress.search.strategies.base import Outcome
from autocompress.search.strategies.nsga2 import POPULATION, NSGA2Strategy
from autocompress.testing.problems import AdditiveProblem
from autocompress.testing.strategies import outcome

OBJECTIVES = parse_objectives(["accuracy", "latency_ms"])
PROBLEM = AdditiveProblem()


def optuna_study(strategy: NSGA2Strategy) -> optuna.Study:
    return strategy._study


def test_seeds_join_the_first_population() -> None:
    """Guards the name of Optuna's attribute: seeds must become parents."""
    strategy = NSGA2Strategy(PROBLEM, OBJECTIVES, 0)
    rng = np.random.default_rng(0)
    seeds = [PROBLEM.sample(rng) for _ in range(POPULATION)]
    for index, seed in enumerate(seeds):
        strategy.tell(outcome(PROBLEM, index, seed, OBJECTIVES))
    strategy.ask(POPULATION)
    sampler = optuna_study(strategy).sampler
    assert isinstance(sampler, optuna.samplers.NSGAIISampler)
    parents = sampler.get_parent_population(optuna_study(strategy), 1)
    assert len(parents) == POPULATION


def test_repaired_proposals_keep_their_place_in_the_population() -> None:
    strategy = NSGA2Strategy(PROBLEM, OBJECTIVES, 0)
    rng = np.random.default_rng(0)
    for index in range(POPULATION + 1):
        strategy.ask(index)
        strategy.tell(outcome(PROBLEM, index, PROBLEM.sample(rng), OBJECTIVES))
    told = [t for t in optuna_study(strategy).trials if t.state == TrialState.COMPLETE]
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in told]
    assert generations == [0] * POPULATION + [1]


def test_infeasible_and_failed_are_told_as_such() -> None:
    strategy = NSGA2Strategy(PROBLEM, OBJECTIVES, 0)
    told: list[tuple[tuple[float, float] | None, float]] = [
        ((0.0, 0.0), 0.5),
        (None, 0.0),
        ((1.0, 1.0), 0.0),
    ]
    for index, (losses, violation) in enumerate(told):
        genome = PROBLEM.canonical(strategy.ask(index))
        strategy.tell(Outcome(index, genome, losses, {"accuracy_drop": violation}))
    states = [t.state for t in optuna_study(strategy).trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert [t.number for t in optuna_study(strategy).best_trials] == [2]


def test_ordered_genes_are_integers_and_sets_are_categories() -> None:
    strategy = NSGA2Strategy(PROBLEM, OBJECTIVES, 0)
    strategy.ask(0)
    kinds = [type(d).__name__ for _, d in sorted(strategy._distributions.items())]
    expected = [
        "IntDistribution" if c.ordered else "CategoricalDistribution" for c in PROBLEM.choices
    ]
    assert kinds == expected


def test_quiet_and_users_settings_kept(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    strategy = NSGA2Strategy(PROBLEM, OBJECTIVES, 0)
    strategy.tell(outcome(PROBLEM, 0, strategy.ask(0), OBJECTIVES))
    assert optuna.logging.get_verbosity() == logging.INFO
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
