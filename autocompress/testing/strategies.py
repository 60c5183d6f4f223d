# ruff: noqa: S101 - these are tests, shipped to whoever writes a strategy
"""The contract of :class:`~autocompress.search.strategies.SearchStrategy`, as tests to inherit.

Example::

    class TestMine(StrategyContract):
        def make(self, space, objectives, seed):
            return MyStrategy(space, objectives, seed)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from autocompress.core.objective import Objective, parse_objectives
from autocompress.core.space import Choice, Genome, SearchSpace
from autocompress.search.strategies.base import Outcome, SearchStrategy
from autocompress.testing.problems import AdditiveProblem

_OBJECTIVES = parse_objectives(["accuracy", "latency_ms"])
_TRIALS = 40


class StrategyContract(ABC):
    """Inherit it, name the class ``Test…``, give :meth:`make`; pytest does the rest."""

    @abstractmethod
    def make(
        self, space: SearchSpace, objectives: Sequence[Objective], seed: int
    ) -> SearchStrategy:
        """A fresh strategy."""

    def play(
        self,
        problem: AdditiveProblem,
        *,
        seed: int = 0,
        trials: int = _TRIALS,
        in_flight: int = 1,
        objectives: Sequence[Objective] = _OBJECTIVES,
        fail_every: int = 0,
    ) -> list[list[int]]:
        """The proposals of a study with ``in_flight`` trials that are told in order."""
        strategy = self.make(problem, objectives, seed)
        proposals: list[Genome] = []
        for index in range(trials + in_flight - 1):
            if index >= in_flight:
                told = index - in_flight
                failed = fail_every > 0 and told % fail_every == 0
                strategy.tell(outcome(problem, told, proposals[told], objectives, failed=failed))
            proposals.append(problem.check(strategy.ask(index)))
        return [p.tolist() for p in proposals]

    def test_it_has_a_name(self) -> None:
        """Its trials say who proposed them."""
        assert self.make(AdditiveProblem(), _OBJECTIVES, 0).name

    def test_proposals_are_genomes_of_the_space(self) -> None:
        """Inactive genes and three objectives included; `check` raises otherwise."""
        objectives = parse_objectives(["accuracy", "latency_ms", "size_bytes"])
        problem = AdditiveProblem(6, 3, blocks=2)
        assert len(self.play(problem, objectives=objectives)) == _TRIALS

    def test_same_seed_same_proposals(self) -> None:
        """Nothing but the seed and the calls decides."""
        assert self.play(AdditiveProblem(), seed=3) == self.play(AdditiveProblem(), seed=3)

    def test_same_seed_same_proposals_with_several_in_flight(self) -> None:
        """Open proposals are no reason to be random."""
        once = self.play(AdditiveProblem(), in_flight=4)
        assert once == self.play(AdditiveProblem(), in_flight=4)

    def test_other_seed_other_proposals(self) -> None:
        """The seed is used."""
        assert self.play(AdditiveProblem(), seed=0) != self.play(AdditiveProblem(), seed=1)

    def test_global_random_state_is_not_used(self) -> None:
        """Nor touched."""
        np.random.seed(0)
        before = np.random.get_state(legacy=False)["state"]["pos"]
        once = self.play(AdditiveProblem())
        assert np.random.get_state(legacy=False)["state"]["pos"] == before
        np.random.seed(1)
        assert self.play(AdditiveProblem()) == once

    def test_asking_again_gives_something_else(self) -> None:
        """An index is asked for again when its proposal was of no use."""
        problem = AdditiveProblem(12, 4)
        strategy = self.make(problem, _OBJECTIVES, 0)
        asked = {tuple(strategy.ask(0).tolist()) for _ in range(10)}
        assert len(asked) > 1
        strategy.tell(outcome(problem, 0, strategy.ask(0), _OBJECTIVES))
        problem.check(strategy.ask(1))

    def test_failed_trials_are_normal(self) -> None:
        """Some, or all of them."""
        self.play(AdditiveProblem(), fail_every=3)
        self.play(AdditiveProblem(), fail_every=1)

    def test_it_is_told_what_it_did_not_propose(self) -> None:
        """Seeds come without `ask`; repaired genomes differ from what was asked."""
        problem = AdditiveProblem()
        strategy = self.make(problem, _OBJECTIVES, 0)
        rng = np.random.default_rng(0)
        for index in range(_TRIALS):
            if index >= 5:
                problem.check(strategy.ask(index))
            strategy.tell(outcome(problem, index, problem.sample(rng), _OBJECTIVES))

    def test_it_is_told_what_was_known_before(self) -> None:
        """Trials that were finished before the search began have indices below 0."""
        problem = AdditiveProblem()
        strategy = self.make(problem, _OBJECTIVES, 0)
        rng = np.random.default_rng(0)
        for index in range(-6, 0):
            failed = index == -3
            told = outcome(problem, index, problem.sample(rng), _OBJECTIVES, failed=failed)
            strategy.tell(told)
        for index in range(10):
            strategy.tell(outcome(problem, index, strategy.ask(index), _OBJECTIVES))

    def test_infeasible_trials_are_normal(self) -> None:
        """Whatever the size of the violation."""
        problem = AdditiveProblem()
        strategy = self.make(problem, _OBJECTIVES, 0)
        for index in range(_TRIALS):
            genome = strategy.ask(index)
            violations = {"accuracy_drop": (0.0, 0.5, float("inf"))[index % 3]}
            told = outcome(problem, index, genome, _OBJECTIVES)
            strategy.tell(Outcome(index, problem.canonical(genome), told.losses, violations))

    def test_genes_with_one_option(self) -> None:
        """They have nothing to choose."""
        space = _Narrow()
        strategy = self.make(space, _OBJECTIVES, 0)
        for index in range(20):
            genome = space.check(strategy.ask(index))
            strategy.tell(Outcome(index, genome, (float(genome[0]), -float(genome[0]))))


class _Narrow(AdditiveProblem):
    """A problem whose last gene has one option."""

    @property
    def choices(self) -> Sequence[Choice]:
        """All but the last as they were."""
        *rest, last = super().choices
        return (*rest, Choice(last.name, last.options[:1]))


def outcome(
    problem: AdditiveProblem,
    index: int,
    genome: Genome,
    objectives: Sequence[Objective],
    *,
    failed: bool = False,
) -> Outcome:
    """What a study would tell about a genome of ``problem``."""
    canonical = problem.canonical(genome)
    row = problem.metrics([canonical])[0]
    losses = None if failed else tuple(o.loss(row[o.metric]) for o in objectives)
    return Outcome(index, canonical, losses, {"accuracy_drop": 0.0})
