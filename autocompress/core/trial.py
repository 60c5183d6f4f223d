"""Trials: what is evaluated, by whom, and what came of it. Failure is data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate

TrialState = Literal["complete", "failed"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A candidate's metrics at a fidelity, or the reason there are none.

    Attributes:
        metrics: metric name to value (see :data:`autocompress.core.objective.METRICS`).
        seconds: wall-clock seconds it took.
        train_steps: optimiser steps it took.
        error: why it failed, or None.
        details: anything else worth keeping, as plain JSON values.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    train_steps: int = 0
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it has metrics."""
        return self.error is None


class Evaluator(Protocol):
    """Evaluates candidates; lives in a worker process for as long as the search.

    Implementations must be picklable with cloudpickle, deterministic given ``seed``, keep no
    state that changes a later result, and may raise: the executor turns that into a failed trial.
    """

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        """Evaluate one candidate."""
        ...


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial: one row of the study's store.

    Attributes:
        number: trial number, from 0, without gaps in ask order.
        genome: the canonical genome, one option index per gene.
        candidate: what was evaluated.
        fidelity: effort spent.
        state: "complete" or "failed".
        metrics: evaluated and priced metrics together.
        error: the reason of a failure.
        seconds: wall-clock seconds of the evaluation.
        train_steps: optimiser steps of the evaluation.
        seed: the trial's own seed.
        attempts: how often it was started.
        origin: who proposed it: a strategy's name, or "seed:<what>".
        details: whatever else the evaluator told.
    """

    number: int
    genome: tuple[int, ...]
    candidate: Candidate
    fidelity: Fidelity
    state: TrialState
    metrics: Mapping[str, float]
    error: str | None = None
    seconds: float = 0.0
    train_steps: int = 0
    seed: int = 0
    attempts: int = 1
    origin: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
