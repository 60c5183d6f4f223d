"""Proposals that are worth evaluating: feasible as far as can be priced, and never seen before."""

from __future__ import annotations

from collections import Counter

import numpy as np

from autocompress.core.space import Genome, SearchSpace
from autocompress.search.feasibility import all_genomes, find_feasible, repair
from autocompress.search.pricing import Pricer
from autocompress.search.strategies.base import SearchStrategy

_ASKS = 8
_MUTATIONS = 32
_SAMPLES = 64

DUPLICATE = "duplicate of an earlier trial"


class Proposer:
    """Turns what a strategy asks for into genomes to evaluate.

    Samplers repeat themselves and know nothing of prices. For each trial the strategy is asked a
    few times; then its last proposal is mutated, a gene more every few tries; then random genomes
    are drawn; small spaces are finally enumerated. All randomness comes from the seed and the
    trial's index, so a proposal depends only on those and on what was seen before.

    Attributes:
        seen: genomes (as bytes) that are never proposed again; the study adds seeds to it.
        rejected: how many proposals were turned down, by reason.
        repaired: how many were changed to meet the priced constraints.
    """

    def __init__(
        self, space: SearchSpace, strategy: SearchStrategy, pricer: Pricer, *, seed: int
    ) -> None:
        self._space = space
        self._strategy = strategy
        self._pricer = pricer
        self._seed = seed
        self._any_feasible = False
        self.seen: set[bytes] = set()
        self.rejected: Counter[str] = Counter()
        self.repaired = 0
        self._recipes = np.array([c.kind == "recipe" for c in space.choices], dtype=bool)
        self._held = np.zeros(len(space.choices), dtype=bool)

    def hold_recipes(self, on: bool) -> None:
        """Whether genes of the recipe stay at their first option, as where nothing is trained.

        Candidates that differ only in how they would be trained are then one and the same.
        """
        self._held = self._recipes & on

    def next(self, index: int) -> Genome | None:
        """A new genome for trial ``index``, marked as seen; None when the space is exhausted.

        Raises:
            NoFeasibleCandidateError: nothing was ever found that meets the priced constraints.
        """
        rng = np.random.default_rng([self._seed, index, 1])
        genome = self._space.original
        for _ in range(_ASKS):
            genome = self._space.canonical(self._strategy.ask(index))
            if (found := self.accept(genome, rng)) is not None:
                return found
        if not self._any_feasible:
            feasible = find_feasible(self._space, self._pricer, rng=rng)
            if (found := self.accept(feasible, rng)) is not None:
                return found
        for step in range(_MUTATIONS):
            if (found := self.accept(self._mutated(genome, 1 + step // 8, rng), rng)) is not None:
                return found
        for _ in range(_SAMPLES):
            if (found := self.accept(self._space.sample(rng), rng)) is not None:
                return found
        return self._enumerated(rng)

    def accept(self, genome: Genome, rng: np.random.Generator) -> Genome | None:
        """The genome, or its repaired version, when feasible and new; it is then marked as seen.

        Args:
            genome: canonical.
            rng: the order of changes in a repair.
        """
        genome = np.where(self._held, 0, genome)
        violations = self._pricer.violations([genome])
        if violations.any():
            changed = repair(self._space, self._pricer, genome, rng=rng)
            if changed is None:
                self.rejected[self._pricer.reason(violations[0])] += 1
                return None
            self.repaired += 1
            genome = changed
        self._any_feasible = True
        key = genome_key(genome)
        if key in self.seen:
            self.rejected[DUPLICATE] += 1
            return None
        self.seen.add(key)
        return genome

    def _mutated(self, genome: Genome, genes: int, rng: np.random.Generator) -> Genome:
        free = np.flatnonzero((self._space.sizes > 1) & ~self._held)
        mutated = genome.copy()
        for gene in rng.choice(free, min(genes, len(free)), replace=False):
            mutated[gene] = rng.integers(self._space.sizes[gene])
        return self._space.canonical(mutated)

    def _enumerated(self, rng: np.random.Generator) -> Genome | None:
        everything = all_genomes(self._space)
        if everything is None:
            return None
        everything = everything[~everything[:, self._held].any(axis=1)]
        new = np.array([genome_key(g) not in self.seen for g in everything])
        good = ~self._pricer.violations(list(everything)).any(axis=1)
        left = everything[new & good]
        if not len(left):
            return None
        genome: Genome = left[int(rng.integers(len(left)))]
        self.seen.add(genome_key(genome))
        return genome


def genome_key(genome: Genome) -> bytes:
    """A genome as a hashable value."""
    return np.ascontiguousarray(genome, dtype=np.int64).tobytes()
