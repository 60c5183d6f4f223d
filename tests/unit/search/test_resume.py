"""Resuming equals never having stopped, wherever it stopped."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.search.store import TrialStore
from autocompress.search.study import Study
from autocompress.testing.problems import ProblemEvaluator
from tests.unit.search.studies import PROBLEM, essence, make_study

F = Fidelity.INHERITED
CONSTRAINTS = {"latency_ms": 1.1, "accuracy_drop": 0.1}
SEEDS = {"original": PROBLEM.original, "half": PROBLEM.sizes // 2}


def fresh(path: Path, strategy: str, in_flight: int) -> Study:
    return make_study(path, strategy=strategy, in_flight=in_flight, constraints=CONSTRAINTS, seed=2)


def copy(trials: list[TrialRecord], path: Path) -> None:
    with TrialStore(path) as store:
        for trial in trials:
            store.append(trial)


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_resumed_after_any_trial(tmp_path: Path, strategy: str, in_flight: int) -> None:
    whole = fresh(tmp_path / "whole", strategy, in_flight)
    whole.run(F, max_trials=45, seeds=SEEDS)
    for finished in (0, 1, 13, 30, 44, 45):
        path = tmp_path / f"from-{finished}"
        copy(whole.trials[:finished], path)
        resumed = fresh(path, strategy, in_flight)
        heard: list[TrialRecord] = []
        resumed.run(F, max_trials=45, seeds=SEEDS, on_trial=heard.append)
        assert essence(resumed.trials) == essence(whole.trials)
        assert len(heard) == 45 - finished  # stored trials are not evaluated again
        assert resumed.rejected == whole.rejected
        assert resumed.repaired == whole.repaired
        assert resumed.front() == [resumed.trials[t.number] for t in whole.front()]


def test_two_runs_resumed_in_the_second(tmp_path: Path) -> None:
    def both(study: Study) -> Study:
        study.run(Fidelity.INHERITED, max_trials=20, seeds=SEEDS)
        study.run(Fidelity.SHORT, max_trials=40, seeds=SEEDS)
        return study

    whole = both(fresh(tmp_path / "whole", "nsga2", 1))
    for finished in (10, 20, 21, 33):
        path = tmp_path / f"from-{finished}"
        copy(whole.trials[:finished], path)
        assert essence(both(fresh(path, "nsga2", 1)).trials) == essence(whole.trials)


def test_first_run_had_ended_early(tmp_path: Path) -> None:
    """By its deadline, say: resuming does not put trials into the past."""
    study = fresh(tmp_path / "db", "nsga2", 1)
    study.run(Fidelity.INHERITED, max_trials=7)
    study.run(Fidelity.SHORT, max_trials=12)
    resumed = fresh(tmp_path / "db", "nsga2", 1)
    assert resumed.run(Fidelity.INHERITED, max_trials=10) == "trials"
    resumed.run(Fidelity.SHORT, max_trials=20)
    assert essence(resumed.trials[:12]) == essence(study.trials)
    assert [t.fidelity for t in resumed.trials[7:]] == [Fidelity.SHORT] * 13


def test_the_store_is_right_when_the_world_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another seed stands for anything that makes proposals differ."""
    first = make_study(tmp_path / "db", seed=1)
    first.run(F, max_trials=20)
    changed = make_study(tmp_path / "db", seed=2)
    with caplog.at_level(logging.WARNING):
        changed.run(F, max_trials=40, seeds=SEEDS)
    assert "the store is right" in caplog.text
    assert changed.trials[:20] == first.trials
    found = [t.genome for t in changed.trials]
    assert len(set(found)) == 40
    assert {tuple(seed) for seed in SEEDS.values()} <= set(found)  # not lost on the way


class _Dying(BaseException):
    """Ends the driver's work as a kill would: nothing is cleaned up."""


class _Deadly:
    """Takes the driver down at one candidate."""

    def __init__(self, victim: str, log: Path) -> None:
        self.victim = victim
        self.inner = ProblemEvaluator(PROBLEM, log=log)

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        evaluation = self.inner.evaluate(candidate, fidelity=fidelity, seed=seed)
        if candidate.id == self.victim:
            raise _Dying
        return evaluation


def test_poison_candidate_is_tried_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "_abandon", lambda self, items: None)
    whole = make_study(tmp_path / "whole")
    whole.run(F, max_trials=12)
    victim = whole.trials[5].candidate.id
    log = tmp_path / "log"
    for _ in range(3):
        with pytest.raises(_Dying):
            make_study(tmp_path / "db", evaluator=_Deadly(victim, log)).run(F, max_trials=12)
    study = make_study(tmp_path / "db", evaluator=_Deadly(victim, log))
    study.run(F, max_trials=12)
    poisoned = study.trials[5]
    assert poisoned.state == "failed"
    assert poisoned.error == "interrupted at each of 3 attempts; it is not tried again"
    assert poisoned.attempts == 3
    assert [t.state for t in study.trials].count("failed") == 1
    lines = log.read_text().splitlines()
    assert lines.count(victim) == 3
    assert len(lines) == len(set(lines)) + 2
    assert essence(study.trials[:5]) == essence(whole.trials[:5])


def test_a_chosen_trial_resumes_too(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db")
    wanted = [PROBLEM.original, PROBLEM.sizes - 1, PROBLEM.sizes // 2]
    whole = study.evaluate(wanted, fidelity=Fidelity.FINAL)
    copy([replace(t) for t in study.trials[:1]], tmp_path / "part")
    resumed = make_study(tmp_path / "part").evaluate(wanted, fidelity=Fidelity.FINAL)
    assert essence(resumed) == essence(whole)
