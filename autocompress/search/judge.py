"""From what an evaluator says to a finished trial: complete or failed, feasible or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import ACCURACY_DROP, Constraint, Objective
from autocompress.core.space import Genome
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.errors import RequestError
from autocompress.search.executors.base import ATTEMPTS
from autocompress.search.store import plain


class Judge:
    """Knows the objectives, the constraints and the baseline; decides what a trial is worth."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        reference: Mapping[str, float],
    ) -> None:
        """Judge by ``objectives`` and ``constraints``.

        Args:
            objectives: what is optimised.
            constraints: bounds, priced or not.
            reference: the baseline's metrics; "accuracy" is needed to constrain accuracy_drop.

        Raises:
            RequestError: accuracy_drop is constrained and the baseline's accuracy is not given.
        """
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self._accuracy = float(reference.get("accuracy", math.nan))
        lower = any(o.metric == "accuracy" and o.direction == "minimize" for o in objectives)
        self._sign = -1.0 if lower else 1.0
        if any(c.metric == ACCURACY_DROP for c in constraints) and math.isnan(self._accuracy):
            raise RequestError(
                "accuracy_drop is constrained, but the baseline's accuracy is not known; "
                'pass reference={"accuracy": ...}'
            )

    def record(
        self,
        *,
        number: int,
        genome: Genome,
        candidate: Candidate,
        fidelity: Fidelity,
        seed: int,
        attempts: int,
        origin: str,
        priced: Mapping[str, float],
        evaluation: Evaluation,
    ) -> TrialRecord:
        """The finished trial of an evaluation; failed when a needed metric is missing or NaN."""
        told = {str(k): float(v) for k, v in evaluation.metrics.items()}
        metrics = {k: v for k, v in {**priced, **told}.items() if math.isfinite(v)}
        if "accuracy" in metrics and ACCURACY_DROP not in told and math.isfinite(self._accuracy):
            metrics[ACCURACY_DROP] = self._sign * (self._accuracy - metrics["accuracy"])
        error = evaluation.error or self._complaint(told, metrics)
        details: dict[str, Any] = dict(evaluation.details)
        return TrialRecord(
            number=number,
            genome=tuple(int(g) for g in genome),
            candidate=candidate,
            fidelity=fidelity,
            state="failed" if error else "complete",
            metrics=metrics,
            error=error,
            seconds=evaluation.seconds,
            train_steps=evaluation.train_steps,
            seed=seed,
            attempts=attempts + int(details.pop(ATTEMPTS, 1)) - 1,
            origin=origin,
            details=plain(details),
        )

    def _complaint(self, told: Mapping[str, float], metrics: Mapping[str, float]) -> str | None:
        for name, value in told.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
        needed = [o.metric for o in self.objectives] + [c.metric for c in self.constraints]
        missing = [name for name in dict.fromkeys(needed) if name not in metrics]
        return f"the evaluation gave no {', '.join(missing)}" if missing else None

    def losses(self, record: TrialRecord) -> tuple[float, ...] | None:
        """One loss an objective, smaller is better; None for a trial without them."""
        if record.state != "complete":
            return None
        values = [o.loss(record.metrics.get(o.metric, math.nan)) for o in self.objectives]
        return tuple(values) if np.isfinite(values).all() else None

    def violations(self, record: TrialRecord) -> dict[str, float]:
        """By constraint, how far the trial is beyond the bound, relative to it; 0 when met."""
        return {
            c.metric: c.violation(record.metrics.get(c.metric, math.nan)) for c in self.constraints
        }

    def feasible(self, record: TrialRecord) -> bool:
        """Whether it is complete and meets every constraint."""
        violations = self.violations(record).values()
        return self.losses(record) is not None and all(v == 0 for v in violations)
