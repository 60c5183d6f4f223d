"""What every strategy can do, and what it owes its study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from autocompress.core.objective import Objective
from autocompress.core.space import Genome, SearchSpace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial, as a strategy sees it.

    Attributes:
        index: the proposal it answers; the first argument of :meth:`SearchStrategy.ask`. Below 0
            for trials that were finished before the search began.
        genome: what was evaluated, canonical. It differs from the proposal when that was
            infeasible and has been repaired, or was a duplicate.
        losses: one number per objective, smaller is better; None when the trial failed.
        violations: by constraint, how far it is beyond its bound; 0 when it is met.
    """

    index: int
    genome: Genome
    losses: tuple[float, ...] | None
    violations: Mapping[str, float] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether it has losses and meets every constraint."""
        return self.losses is not None and all(v <= 0 for v in self.violations.values())


class SearchStrategy(ABC):
    """Proposes genomes, and learns from what came of them.

    A subclass is constructed with ``(space, objectives, seed)``. The study calls it from one
    thread, in an order that depends only on the seed and the number of trials in flight:

    - :meth:`ask` with index 0, 1, 2 …; with the *same* index again when the last proposal was a
      duplicate or could not be made feasible: it should then propose something else.
    - :meth:`tell` once for each index, in ascending order, while later ones may be in flight.
    - :meth:`tell` without a preceding :meth:`ask` for indices that somebody else proposed
      (seeds), and for negative ones before the first :meth:`ask` (trials that were finished before
      the search began). A strategy must learn from them as from its own.

    Obligations:

    - **Deterministic.** The same constructor arguments and the same calls give the same
      proposals. Draw random numbers only from generators derived from ``seed``, never from the
      clock, hashes of strings, or global state. A study is resumed by repeating the calls, so
      there is nothing to save.
    - **Robust.** Failed trials (``losses is None``), infeasible ones, repeated genomes and
      genomes it did not propose are normal and never raise.
    - **Valid.** Every proposal is a genome of the space; it need not be canonical.
    - It never evaluates, prices or prints anything.
    """

    #: The name it is looked up by; recorded as the origin of its trials.
    name: str = ""
    #: Whether a search begins with seeds: uniform settings and those that sensitivity points to.
    takes_seeds: ClassVar[bool] = True

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int) -> None:
        """Start without knowledge.

        Args:
            space: where proposals come from.
            objectives: what :attr:`Outcome.losses` are, in this order.
            seed: the only source of randomness.
        """
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed

    @abstractmethod
    def ask(self, index: int) -> Genome:
        """A proposal for trial ``index``, shape ``(len(space.choices),)``."""

    @abstractmethod
    def tell(self, outcome: Outcome) -> None:
        """Learn what came of a trial."""
