"""Random search: every gene uniform; the strategy others must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autocompress.core.objective import Objective
from autocompress.core.space import Genome, SearchSpace
from autocompress.search.strategies.base import Outcome, SearchStrategy


class RandomStrategy(SearchStrategy):
    """Uniform over the options of each gene; learns nothing, and begins from nothing known.

    The generator of a proposal is made of the seed, its index and how often it was asked for, so
    that one proposal depends on no other.
    """

    name = "random"
    takes_seeds = False

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int) -> None:
        super().__init__(space, objectives, seed)
        self._last = (-1, 0)

    def ask(self, index: int) -> Genome:
        """A uniform genome."""
        again = self._last[1] + 1 if self._last[0] == index else 0
        self._last = (index, again)
        return self.space.sample(np.random.default_rng([self.seed, index, again]))

    def tell(self, outcome: Outcome) -> None:
        """Nothing to learn."""
