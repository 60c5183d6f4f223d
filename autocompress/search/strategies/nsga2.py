"""NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017) by Optuna's sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autocompress.core.objective import Objective
from autocompress.core.space import SearchSpace
from autocompress.search.strategies.optuna_driver import OptunaStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

#: Trials a generation; Optuna's default of 50 leaves a search of 100 trials one generation.
POPULATION = 24


class NSGA2Strategy(OptunaStrategy):
    """A population that breeds; cheap at any number of trials, good with good seeds."""

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int) -> None:
        super().__init__(space, objectives, seed, sampler=_sampler, name="nsga2")


def _sampler(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=POPULATION)
