"""Inherited against trained accuracy in real runs: what is evaluated, chosen, kept and resumed."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocompress as ac
from autocompress.agent import pipeline
from autocompress.agent.context import Context
from autocompress.agent.planner import VAL_LIMIT, Plan
from autocompress.agent.stages import trust
from autocompress.agent.trust_sample import POOL, sample
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.events import Event, Observer
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.errors import DivergedError
from autocompress.evaluation.agreement import rank_agreement
from autocompress.evaluation.evaluator import CandidateEvaluator
from autocompress.search.store import read_trials
from tests.integration.runs import SEED, SmallCNN, content

TRIALS, COMPARED = 32, 8
BUDGET = ac.Budget(trials=TRIALS, train_steps=400)
UP_TO_TRUST = pipeline.STAGES[: [s.STAGE for s in pipeline.STAGES].index("trust") + 1]

Run = Callable[..., Path]


@pytest.fixture
def run(cnn: SmallCNN, fixed_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the stages up to the comparison."""
    monkeypatch.setattr(pipeline, "STAGES", UP_TO_TRUST)

    def go(name: str, *observers: Observer, **changes: Any) -> Path:
        ac.search(
            cnn, "digits", device=fixed_profile, seed=SEED, progress="none",
            run_dir=tmp_path / name, callbacks=observers, **{"budget": BUDGET, **changes},
        )  # fmt: skip
        return tmp_path / name

    return go


def examples() -> tuple[int, int]:
    """Of how many examples both accuracies are shares: all validation examples are looked at."""
    count = len(ac.Data.load("digits").val)
    assert count <= VAL_LIMIT
    return count, count


def compared(folder: Path) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads((folder / "trust.json").read_text())["comparisons"]
    return {c["stage"]: c for c in found}["trust"]


def decisions(folder: Path, stage: str) -> list[dict[str, Any]]:
    lines = (folder / "decisions.jsonl").read_text().splitlines()
    return [d for d in map(json.loads, lines) if d["stage"] == stage]


@pytest.fixture(scope="module")
def whole_run(
    cnn: SmallCNN, fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> ac.SearchResult:
    return ac.search(
        cnn, "digits", device=fixed_profile, seed=SEED, progress="none", budget=BUDGET,
        run_dir=tmp_path_factory.mktemp("runs") / "whole",
    )  # fmt: skip


def plan_of(folder: Path) -> Plan:
    return Plan.from_json(json.loads((folder / "plan.json").read_text()))


def test_every_candidate_is_evaluated_at_both_fidelities(whole_run: ac.SearchResult) -> None:
    trials = read_trials(whole_run.run_dir / "study.db")
    asked = [t for t in trials if t.origin == "chosen:trust"]
    assert trials[: len(asked)] == asked
    by_fidelity = {f: [t for t in asked if t.fidelity == f] for f in Fidelity}
    cheap, dear = by_fidelity[Fidelity.INHERITED], by_fidelity[Fidelity.SHORT]
    assert len(cheap) == len(dear) == len({t.candidate.id for t in cheap}) == COMPARED
    assert {t.candidate.id for t in cheap} == {t.candidate.id for t in dear}
    assert {t.train_steps for t in cheap} == {0}
    assert {t.train_steps for t in dear} == {plan_of(whole_run.run_dir).compared_steps}
    found = compared(whole_run.run_dir)
    scores = {t.candidate.id: t.metrics["accuracy"] for t in cheap}
    trained = {t.candidate.id: t.metrics["accuracy"] for t in dear}
    assert {row["id"]: row["before"] for row in found["candidates"]} == scores
    assert {row["id"]: row["after"] for row in found["candidates"]} == trained
    expected = rank_agreement(
        list(scores.values()), [trained[i] for i in scores], seed=SEED, examples=examples()
    )
    assert found["agreement"] == expected.to_json()


def test_the_search_goes_on_from_them(whole_run: ac.SearchResult) -> None:
    """At the fidelity that was chosen they are trials like others; none is evaluated twice."""
    plan = plan_of(whole_run.run_dir)
    assert plan.fidelity == compared(whole_run.run_dir)["fidelity"]
    trials = read_trials(whole_run.run_dir / "study.db")
    searched = [t for t in trials if not t.origin.startswith("chosen:")]
    assert len(searched) == TRIALS
    assert {t.fidelity for t in searched} == {plan.fidelity}
    known = [t for t in trials if t.origin == "chosen:trust" and t.fidelity == plan.fidelity]
    assert not {t.genome for t in searched} & {t.genome for t in known}
    (chosen,) = (d for d in decisions(whole_run.run_dir, "finalise") if "chosen" in d["evidence"])
    assert set(chosen["evidence"]["chosen"]) <= {t.number for t in (*searched, *known)}
    steps = sum(t.train_steps for t in trials)
    assert BUDGET.train_steps is not None
    assert steps <= BUDGET.train_steps


def test_the_search_is_compared_with_full_training(whole_run: ac.SearchResult) -> None:
    found = whole_run.trust
    plan = plan_of(whole_run.run_dir)
    assert list(found["before"]) == ["inherited", plan.fidelity.value]
    assert list(found["after"]) == ["short", "final"]
    assert found["pairs"].iloc[1] == plan.models
    trials = read_trials(whole_run.run_dir / "study.db")
    after = {t.genome: t.metrics["accuracy"] for t in trials if t.fidelity == Fidelity.FINAL}
    both = [(t.metrics["accuracy"], after[t.genome]) for t in trials if t.genome in after
            and t.fidelity == plan.fidelity]  # fmt: skip
    x, y = np.array(both).T
    again = rank_agreement(x.tolist(), y.tolist(), examples=examples())
    assert found["kendall"].iloc[1] == pytest.approx(again.kendall)
    assert found["mean_gap"].iloc[1] == pytest.approx(again.mean_gap)
    report = (whole_run.run_dir / "report.html").read_text()
    assert "Trust in cheap accuracies" in report
    assert all(html.escape(sentence) in report for sentence in found["sentence"])


def test_a_retargeted_run_takes_it_over(
    whole_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    again = whole_run.retarget("raspberry_pi_4", run_dir=tmp_path / "again", progress="none")
    assert again.trust.equals(whole_run.trust)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_seed_gives_the_same_comparison(
    run: Run, whole_run: ac.SearchResult, workers: int
) -> None:
    folder = run("again", workers=workers)
    assert content(folder) == content(whole_run.run_dir)[: 2 * COMPARED]
    one, two = compared(folder), compared(whole_run.run_dir)
    assert one["agreement"] == two["agreement"]
    assert one["sentence"] == two["sentence"]


@pytest.mark.parametrize("moment", [1, COMPARED, 2 * COMPARED - 1])
def test_resuming_evaluates_what_is_missing(
    run: Run, whole_run: ac.SearchResult, moment: int
) -> None:
    events: list[int] = []

    def interrupt(event: Event) -> None:
        if (event.stage, event.kind) == ("trust", "progress"):
            events.append(int(event.data["done"]))
            if event.data["done"] == moment and len(events) == moment:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("cut", interrupt)
    folder = run("cut", interrupt)
    assert events == list(range(1, 2 * COMPARED + 1))
    assert content(folder) == content(whole_run.run_dir)[: 2 * COMPARED]
    assert compared(folder)["agreement"] == compared(whole_run.run_dir)["agreement"]
    run("cut", interrupt)
    assert len(events) == 2 * COMPARED


def test_a_candidate_that_fails_is_left_out_and_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = CandidateEvaluator.evaluate
    trained: list[str] = []

    def faulty(
        self: CandidateEvaluator, candidate: Candidate, *, fidelity: Fidelity, seed: int
    ) -> Evaluation:
        if fidelity == Fidelity.SHORT:
            trained.append(candidate.id)
            if len(trained) == 2:
                raise DivergedError("the loss became nan at step 1")
        return evaluate(self, candidate, fidelity=fidelity, seed=seed)

    monkeypatch.setattr(CandidateEvaluator, "evaluate", faulty)
    folder = run("failing")
    found = compared(folder)
    assert found["agreement"]["pairs"] == COMPARED - 1
    (left_out,) = found["left_out"]
    assert left_out["id"] == trained[1]
    assert "the loss became nan at step 1" in left_out["reason"]
    assert trained[1] in found["sentence"]
    assert found["fidelity"] == plan_of(folder).fidelity == Fidelity.SHORT  # too few are left


def test_accuracies_that_are_all_equal_are_no_reason_to_fail(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = CandidateEvaluator.evaluate

    def constant(self: CandidateEvaluator, candidate: Candidate, **given: Any) -> Evaluation:
        if given["fidelity"] == Fidelity.INHERITED:
            return Evaluation({"accuracy": 0.1})
        return evaluate(self, candidate, **given)

    monkeypatch.setattr(CandidateEvaluator, "evaluate", constant)
    folder = run("constant")
    found = compared(folder)
    assert found["agreement"]["spearman"] is None
    assert "the same first score, 0.1" in found["sentence"]
    assert found["fidelity"] == Fidelity.SHORT


def test_random_search_is_not_given_a_better_start(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared before it may be finalised, too: it is drawn as its own trials are."""
    seen: list[Context] = []

    def watched(context: Context, *given: Any, **named: Any) -> Any:
        seen.append(context)
        return sample(context, *given, **named)

    monkeypatch.setattr(trust, "sample", watched)
    folder = run("random", strategy="random")
    space = seen[0].space
    rng = np.random.default_rng([SEED, 0x7257])
    draws = [tuple(space.sample(rng).tolist()) for _ in range(POOL * COMPARED)]
    asked = {t.genome for t in read_trials(folder / "study.db") if t.origin == "chosen:trust"}
    assert asked == set(draws[:COMPARED])


def test_too_small_a_budget_says_so_once(run: Run) -> None:
    def interrupt(event: Event) -> None:
        if (event.stage, event.kind) == ("trust", "stage_finished"):
            raise KeyboardInterrupt

    budget = ac.Budget(trials=6, train_steps=90)
    with pytest.raises(KeyboardInterrupt):
        run("small", interrupt, budget=budget)
    folder = run("small", budget=budget)
    assert not (folder / "trust.json").exists()
    assert not (folder / "study.db").exists()
    (said,) = decisions(folder, "trust")
    assert said["decision"] == "no comparison"
    assert "a quarter of 6 trials is fewer than 8 candidates" in said["sentence"]


def test_a_budget_in_seconds_pays_its_share(run: Run) -> None:
    seconds = 60.0
    folder = run("timed", budget=ac.Budget(seconds=seconds))
    plan = plan_of(folder)
    found = compared(folder)
    assert 8 <= plan.compared <= 12
    (said,) = decisions(folder, "trust")
    asked: list[TrialRecord] = read_trials(folder / "study.db")
    slowest = max(t.seconds for t in asked)
    assert said["evidence"]["seconds"] <= 0.08 * seconds + 2 * slowest + 2.0
    if found["fidelity"] == Fidelity.INHERITED:
        short = [row["seconds_after"] for row in found["candidates"]]
        cheap = [row["seconds_before"] for row in found["candidates"]]
        assert plan.trials > 0.5 * plan.seconds["search"] / np.mean(cheap)
        assert np.mean(cheap) < np.mean(short)
