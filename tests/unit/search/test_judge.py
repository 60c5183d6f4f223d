"""What a finished trial is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import Objective, parse_constraints, parse_objectives
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.search.judge import Judge

OBJECTIVES = parse_objectives(["accuracy", "latency_ms"])


def judge(objectives: tuple[Objective, ...] = OBJECTIVES, **bounds: float) -> Judge:
    return Judge(objectives, parse_constraints(bounds), {"accuracy": 0.9})


def record(by: Judge, evaluation: Evaluation, **priced: float) -> TrialRecord:
    return by.record(
        number=0,
        genome=np.array([1, 2]),
        candidate=Candidate(),
        fidelity=Fidelity.TABLE,
        seed=1,
        attempts=2,
        origin="x",
        priced={"latency_ms": 1.5, **priced},
        evaluation=evaluation,
    )


def test_metrics_together() -> None:
    by = judge(accuracy_drop=0.1)
    trial = record(by, Evaluation({"accuracy": 0.85}, seconds=2, train_steps=3))
    assert trial.metrics == {
        "accuracy": 0.85,
        "latency_ms": 1.5,
        "accuracy_drop": pytest.approx(0.05),
    }
    assert (trial.state, trial.genome, trial.seconds) == ("complete", (1, 2), 2)
    assert by.losses(trial) == (-0.85, 1.5)
    assert by.violations(trial) == {"accuracy_drop": 0.0}
    assert by.feasible(trial)


def test_a_measured_metric_counts_more_than_a_priced_one() -> None:
    trial = record(judge(), Evaluation({"accuracy": 0.5, "latency_ms": 9.0}))
    assert trial.metrics["latency_ms"] == 9.0


@pytest.mark.parametrize(
    ("evaluation", "reason"),
    [
        pytest.param(Evaluation(error="ValueError: x"), "ValueError: x", id="error"),
        pytest.param(Evaluation({"accuracy": math.nan}), "accuracy is nan", id="nan"),
        pytest.param(Evaluation({"accuracy": math.inf}), "accuracy is inf", id="inf"),
        pytest.param(
            Evaluation({"accuracy": 0.5, "energy_mj": math.nan}), "energy_mj is nan", id="other"
        ),
        pytest.param(Evaluation(), "the evaluation gave no accuracy", id="missing"),
    ],
)
def test_failed(evaluation: Evaluation, reason: str) -> None:
    by = judge(accuracy_drop=0.1)
    trial = record(by, evaluation)
    assert (trial.state, str(trial.error).startswith(reason)) == ("failed", True)
    assert by.losses(trial) is None
    assert not by.feasible(trial)
    assert all(math.isfinite(v) for v in trial.metrics.values())


@pytest.mark.parametrize(
    ("accuracy", "feasible"), [(0.85, True), (0.75, False), (0.95, True)], ids=str
)
def test_accuracy_drop(accuracy: float, feasible: bool) -> None:
    by = judge(accuracy_drop=0.1)
    assert by.feasible(record(by, Evaluation({"accuracy": accuracy}))) is feasible


def test_drop_of_a_metric_that_is_minimised() -> None:
    """A regression's error as "accuracy": a larger one is a drop."""
    by = judge((Objective("accuracy", "minimize"), OBJECTIVES[1]), accuracy_drop=0.1)
    worse = record(by, Evaluation({"accuracy": 1.1}))
    assert worse.metrics["accuracy_drop"] == pytest.approx(0.2)
    assert by.losses(worse) == (1.1, 1.5)
    assert not by.feasible(worse)


def test_attempts_of_executor_and_driver_add_up() -> None:
    trial = record(judge(), Evaluation({"accuracy": 0.5}, details={"attempts": 3, "note": 1}))
    assert trial.attempts == 4
    assert trial.details == {"note": 1}
