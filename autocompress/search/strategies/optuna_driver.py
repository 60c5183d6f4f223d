"""Any Optuna sampler as a strategy: ask and tell on a study in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from autocompress.core.objective import Objective
from autocompress.core.space import Choice, Genome, SearchSpace
from autocompress.errors import RequestError
from autocompress.search.strategies.base import Outcome, SearchStrategy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

#: Makes the sampler of a study from the study's seed.
SamplerFactory: TypeAlias = "Callable[[int], BaseSampler]"

#: Optuna accepts any float, but sums of infinite violations cannot be compared.
_LARGEST_VIOLATION = 1e9


class OptunaStrategy(SearchStrategy):
    """Drives an Optuna sampler.

    Genes are parameters: integers where the options form a scale, categories where they do not;
    genes with one option are left out. A proposal that is evaluated as it is becomes a finished
    Optuna trial. One that the study dropped or changed is told as failed, which samplers ignore,
    and the genome evaluated in its stead is added as a trial of its own, with the proposal's
    system attributes, so that it takes the proposal's place in a population.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int,
        *,
        sampler: SamplerFactory,
        name: str,
    ) -> None:
        """Start an empty study in memory.

        Args:
            space: where proposals come from.
            objectives: what is minimised.
            seed: given to ``sampler``.
            sampler: makes the Optuna sampler.
            name: the strategy's name.
        """
        super().__init__(space, objectives, seed)
        import optuna

        self.name = name
        self._genes = [i for i, c in enumerate(space.choices) if len(c.options) > 1]
        self._distributions = {_parameter(i): _distribution(space.choices[i]) for i in self._genes}
        with _quiet():
            self._sampler = sampler(seed)
            self._study = optuna.create_study(
                directions=["minimize"] * len(self.objectives), sampler=self._sampler
            )
        self._asked: dict[int, Trial] = {}

    def ask(self, index: int) -> Genome:
        """The sampler's next proposal.

        Raises:
            RequestError: the sampler cannot propose, for example because it supports neither
                several objectives nor categories.
        """
        self._drop(index)
        try:
            with _quiet():
                trial = self._study.ask(self._distributions)
        except Exception as error:
            raise RequestError(
                f"the sampler {self.name} failed to propose a trial: {error}; use another strategy"
            ) from error
        self._asked[index] = trial
        return self._genome(trial.params)

    def tell(self, outcome: Outcome) -> None:
        """Finish the proposal, or add what was evaluated instead of it."""
        trial = self._asked.get(outcome.index)
        if trial is not None and np.array_equal(self._genome(trial.params), outcome.genome):
            del self._asked[outcome.index]
            self._finish(trial, outcome)
            return
        dropped = self._drop(outcome.index)
        if outcome.losses is not None:
            self._add(outcome, {} if dropped is None else dict(dropped.system_attrs))

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        with _quiet():
            if outcome.losses is None:
                self._study.tell(trial, state=_states().FAIL)
                return
            for key, value in _violations(outcome).items():
                trial.set_constraint(key, value)
            self._study.tell(trial, list(outcome.losses))

    def _add(self, outcome: Outcome, attributes: dict[str, Any]) -> None:
        import optuna

        with _quiet():
            self._study.add_trial(
                optuna.trial.create_trial(
                    values=list(outcome.losses or ()),
                    params={_parameter(i): int(outcome.genome[i]) for i in self._genes},
                    distributions=self._distributions,
                    system_attrs={**self._first_generation(), **attributes},
                    constraints=_violations(outcome),
                )
            )

    def _first_generation(self) -> dict[str, Any]:
        """Marks a trial nobody asked for as a member of a genetic sampler's first population.

        Without the mark such samplers never look at it. The attribute is Optuna's own name for
        it; a test fails when a new version calls it otherwise.
        """
        from optuna.samplers import NSGAIIISampler, NSGAIISampler

        for kind in (NSGAIISampler, NSGAIIISampler):
            if isinstance(self._sampler, kind):
                return {f"{kind.__name__}:generation": 0}
        return {}

    def _drop(self, index: int) -> FrozenTrial | None:
        """Fail the open proposal of ``index``, if there is one."""
        trial = self._asked.pop(index, None)
        if trial is None:
            return None
        with _quiet():
            return self._study.tell(trial, state=_states().FAIL)

    def _genome(self, parameters: dict[str, Any]) -> Genome:
        genome = np.zeros(len(self.space.choices), dtype=np.int64)
        for i in self._genes:
            genome[i] = parameters[_parameter(i)]
        return genome


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _parameter(gene: int) -> str:
    return f"g{gene:05d}"  # Optuna sorts parameters by name


def _distribution(choice: Choice) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if choice.ordered:
        return IntDistribution(0, len(choice.options) - 1)
    return CategoricalDistribution(tuple(range(len(choice.options))))


def _violations(outcome: Outcome) -> dict[str, float]:
    return {k: min(max(0.0, v), _LARGEST_VIOLATION) for k, v in outcome.violations.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log lines and warnings, leaving the user's settings as they were."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
