"""The shipped contract over every built-in strategy and a few Optuna samplers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from optuna.samplers import NSGAIIISampler, QMCSampler

from autocompress.core.objective import Objective
from autocompress.core.space import SearchSpace
from autocompress.search.strategies import SearchStrategy, make_strategy
from autocompress.testing.strategies import StrategyContract


class _ByName(StrategyContract):
    name = ""

    def make(
        self, space: SearchSpace, objectives: Sequence[Objective], seed: int
    ) -> SearchStrategy:
        return make_strategy(self.name, space, objectives=objectives, seed=seed)


class TestRandom(_ByName):
    name = "random"


class TestNSGA2(_ByName):
    name = "nsga2"


class TestTPE(_ByName):
    name = "tpe"


class TestAuto(_ByName):
    name = "auto"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
class TestNSGA3Sampler(StrategyContract):
    def make(
        self, space: SearchSpace, objectives: Sequence[Objective], seed: int
    ) -> SearchStrategy:
        sampler = NSGAIIISampler(seed=seed, population_size=10)
        return make_strategy(sampler, space, objectives=objectives, seed=seed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
class TestQMCSampler(StrategyContract):
    def make(
        self, space: SearchSpace, objectives: Sequence[Objective], seed: int
    ) -> SearchStrategy:
        sampler = QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return make_strategy(sampler, space, objectives=objectives, seed=seed)
