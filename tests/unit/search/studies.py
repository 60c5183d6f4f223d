"""Studies over problems with known fronts, for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.trial import Evaluation, Evaluator, TrialRecord
from autocompress.search.executors import Executor
from autocompress.search.executors.guarded import evaluate
from autocompress.search.executors.local import local_executor
from autocompress.search.store import TrialStore, plain
from autocompress.search.study import Study
from autocompress.testing.problems import AdditiveProblem

PROBLEM = AdditiveProblem(10, 4, seed=3)


class Shuffled(Executor):
    """Brings results back in a random order."""

    def __init__(self, evaluator: Evaluator, *, order: int, slots: int = 4) -> None:
        self._evaluator = evaluator
        self._random = random.Random(order)
        self._slots = slots
        self._queue: list[tuple[int, Candidate, Fidelity, int]] = []

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def pending(self) -> int:
        return len(self._queue)

    def submit(self, number: int, candidate: Candidate, fidelity: Fidelity, seed: int) -> None:
        self._queue.append((number, candidate, fidelity, seed))

    def wait(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        if not self._queue:
            return []
        task = self._queue.pop(self._random.randrange(len(self._queue)))
        number, candidate, fidelity, seed = task
        return [(number, evaluate(self._evaluator, candidate, fidelity=fidelity, seed=seed))]

    def cancel(self) -> None:
        self._queue.clear()

    def close(self) -> None:
        self._queue.clear()


def make_study(
    path: Path,
    *,
    problem: AdditiveProblem = PROBLEM,
    evaluator: Evaluator | None = None,
    executor: Executor | None = None,
    constraints: dict[str, float] | None = None,
    objectives: Sequence[str] = ("accuracy", "latency_ms"),
    strategy: Any = "nsga2",
    **arguments: Any,
) -> Study:
    """A study over ``path``, in this process unless an executor is given."""
    return Study(
        problem,
        objectives=parse_objectives(objectives),
        constraints=parse_constraints(constraints),
        price=arguments.pop("price", problem.price),
        executor=executor or local_executor(evaluator or problem.evaluator()),
        store=TrialStore(path),
        strategy=strategy,
        reference=arguments.pop("reference", {"accuracy": 0.95}),
        **arguments,
    )


def essence(trials: Sequence[TrialRecord]) -> list[tuple[Any, ...]]:
    """What must be equal between equal searches: all but times and attempts."""
    return [
        tuple(
            plain(getattr(trial, field.name))
            if field.name in ("metrics", "details")
            else getattr(trial, field.name)
            for field in fields(trial)
            if field.name not in ("seconds", "attempts")
        )
        for trial in trials
    ]


Stop = Callable[[], bool]


def stop_after(trials: int, study: Study) -> Stop:
    """A ``should_stop`` that says so once there are so many trials."""
    return lambda: len(study.trials) >= trials
