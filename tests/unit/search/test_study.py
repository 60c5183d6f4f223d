"""The loop: order, seeds, constraints, duplicates, failures, stopping, fronts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.samplers import TPESampler

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.pareto import hypervolume, non_dominated
from autocompress.core.space import Choice, Genome
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.errors import AutocompressError, InfeasibleError, RequestError
from autocompress.search.executors.local import local_executor
from autocompress.search.proposals import DUPLICATE
from autocompress.search.store import read_trials
from autocompress.search.study import Study
from autocompress.testing.problems import AdditiveProblem, FaultyEvaluator, ProblemEvaluator
from tests.unit.search.studies import PROBLEM, Shuffled, essence, make_study, stop_after

F = Fidelity.INHERITED


def genomes(trials: Sequence[TrialRecord]) -> list[tuple[int, ...]]:
    return [t.genome for t in trials]


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
def test_trials_are_numbered_stored_and_handed_out(tmp_path: Path, strategy: str) -> None:
    study = make_study(tmp_path / "db", strategy=strategy)
    heard: list[TrialRecord] = []
    assert study.run(F, max_trials=30, on_trial=heard.append) == "trials"
    assert [t.number for t in study.trials] == list(range(30))
    assert heard == study.trials == read_trials(tmp_path / "db")
    assert {t.origin for t in heard} == {strategy}
    assert {t.fidelity for t in heard} == {F}
    assert len({t.seed for t in heard}) == 30
    for trial in heard:
        genome = np.array(trial.genome)
        expected = PROBLEM.metrics([genome])[0]
        assert trial.metrics == {
            **expected,
            "accuracy_drop": pytest.approx(0.95 - expected["accuracy"]),
        }
        assert trial.candidate == PROBLEM.decode(genome)


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_same_seed_same_trials(tmp_path: Path, strategy: str, in_flight: int) -> None:
    found = []
    for name in ("one", "two"):
        study = make_study(
            tmp_path / name,
            strategy=strategy,
            in_flight=in_flight,
            seed=5,
            constraints={"latency_ms": 1.2, "accuracy_drop": 0.1},
        )
        study.run(F, max_trials=60, seeds=[PROBLEM.original])
        found.append(essence(study.trials))
    assert found[0] == found[1]
    other = make_study(tmp_path / "three", strategy=strategy, seed=6)
    other.run(F, max_trials=60)
    assert genomes(other.trials) != [row[1] for row in found[0]]


@pytest.mark.parametrize("strategy", ["nsga2", "tpe"])
def test_whatever_finishes_first(tmp_path: Path, strategy: str) -> None:
    found = []
    for order in range(3):
        executor = Shuffled(PROBLEM.evaluator(), order=order)
        study = make_study(tmp_path / str(order), executor=executor, strategy=strategy)
        study.run(F, max_trials=50)
        found.append(essence(study.trials))
    assert found[0] == found[1] == found[2]


def test_two_worker_processes_equal_each_other_and_one_with_the_same_in_flight(
    tmp_path: Path,
) -> None:
    found = []
    for name, workers in (("a", 2), ("b", 2), ("c", 1)):
        with local_executor(PROBLEM.evaluator(), workers=workers) as executor:
            study = make_study(tmp_path / name, executor=executor, in_flight=4)
            study.run(F, max_trials=40)
            found.append(essence(study.trials))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("in_flight", [1, 4])
def test_stopping_and_going_on_changes_nothing(tmp_path: Path, in_flight: int) -> None:
    whole = make_study(tmp_path / "whole", in_flight=in_flight)
    whole.run(F, max_trials=60)
    parts = make_study(tmp_path / "parts", in_flight=in_flight)
    assert parts.run(F, should_stop=stop_after(13, parts)) == "stopped"
    assert 13 <= len(parts.trials) <= 13 + in_flight
    parts.run(F, max_trials=30)
    assert len(parts.trials) == 30
    parts.run(F, max_trials=60)
    assert essence(parts.trials) == essence(whole.trials)


def test_deadline(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db")
    assert study.run(F, deadline=time.monotonic() - 1) == "deadline"
    assert study.trials == []


def test_a_run_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing ends this run"):
        make_study(tmp_path / "db").run(F)


# -- seeds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 4])
def test_seeds_come_first_and_once(tmp_path: Path, in_flight: int) -> None:
    half = PROBLEM.sizes // 2
    study = make_study(tmp_path / "db", in_flight=in_flight)
    named = {"original": PROBLEM.original, "again": PROBLEM.original, "half": half}
    study.run(F, max_trials=10, seeds=named)
    assert genomes(study.trials)[:2] == [tuple(PROBLEM.original), tuple(half)]
    origins = [t.origin for t in study.trials]
    assert origins == ["seed:original", "seed:half"] + ["nsga2"] * 8
    assert study.rejected[DUPLICATE] >= 1


def test_seeds_without_names_and_at_another_fidelity(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db")
    study.run(F, max_trials=3, seeds=[PROBLEM.original])
    study.run(Fidelity.SHORT, max_trials=5, seeds=[PROBLEM.original, PROBLEM.sizes - 1])
    study.run(Fidelity.SHORT, max_trials=6, seeds=[PROBLEM.original])
    again = [(t.origin, t.fidelity) for t in study.trials if t.genome == tuple(PROBLEM.original)]
    assert again == [("seed:0", F), ("seed:0", Fidelity.SHORT)]


def test_infeasible_seeds_are_repaired(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db", constraints={"latency_ms": 1.0})
    study.run(F, max_trials=1, seeds=[PROBLEM.original])
    assert study.trials[0].origin == "seed:0"
    assert study.trials[0].metrics["latency_ms"] <= 1.0
    assert study.repaired == 1


def test_a_seed_of_another_space(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="genome has shape"):
        make_study(tmp_path / "db").run(F, max_trials=1, seeds=[np.zeros(3, dtype=np.int64)])


# -- constraints -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
def test_priced_constraints_hold_before_anything_is_evaluated(
    tmp_path: Path, strategy: str
) -> None:
    bounds = {"latency_ms": 0.9, "size_bytes": 90_000.0}
    study = make_study(tmp_path / "db", strategy=strategy, constraints=bounds)
    study.run(F, max_trials=60)
    assert len(study.trials) == 60
    for trial in study.trials:
        assert all(trial.metrics[name] <= bound for name, bound in bounds.items())
    assert study.repaired > 0
    assert len(set(genomes(study.trials))) == 60


def test_unpriced_constraints_keep_trials_off_the_front(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db", constraints={"accuracy_drop": 0.05})
    study.run(F, max_trials=80)
    feasible = [t for t in study.trials if study.feasible(t)]
    assert 0 < len(feasible) < 80
    assert all(t.metrics["accuracy_drop"] <= 0.05 for t in feasible)
    losses = np.array([[-t.metrics["accuracy"], t.metrics["latency_ms"]] for t in feasible])
    expected = [feasible[i] for i in np.flatnonzero(non_dominated(losses))]
    assert study.front() == expected
    assert study.hypervolume([0.0, 9.0]) == pytest.approx(hypervolume(losses, [0.0, 9.0]))


def test_strategy_learns_from_violations(tmp_path: Path) -> None:
    """With a tight bound on the drop, later proposals are feasible more often."""
    study = make_study(tmp_path / "db", constraints={"accuracy_drop": 0.05})
    study.run(F, max_trials=200)
    feasible = [study.feasible(t) for t in study.trials]
    assert sum(feasible[100:]) > sum(feasible[:100])


def test_accuracy_drop_needs_the_baseline(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="baseline's accuracy"):
        make_study(tmp_path / "db", constraints={"accuracy_drop": 0.05}, reference={})


def test_nothing_is_feasible(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db", constraints={"latency_ms": 1e-3})
    with pytest.raises(InfeasibleError, match=r"no candidate meets latency_ms <= 0.001. Nearest"):
        study.run(F, max_trials=10)
    assert study.trials == []
    assert study.rejected["latency_ms <= 0.001 not met"] > 0


# -- duplicates --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_small_space_is_tried_completely_and_each_candidate_once(
    tmp_path: Path, strategy: str, in_flight: int
) -> None:
    problem = AdditiveProblem(3, 3, blocks=1)
    log = tmp_path / "log"
    study = make_study(
        tmp_path / "db",
        problem=problem,
        evaluator=ProblemEvaluator(problem, log=log),
        strategy=strategy,
        in_flight=in_flight,
    )
    assert study.run(F, max_trials=1000, seeds=[problem.original]) == "exhausted"
    everything = sorted(tuple(g) for g in problem.enumerate())
    assert sorted(genomes(study.trials)) == everything
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == len(everything)
    front = sorted((t.metrics["accuracy"], t.metrics["latency_ms"]) for t in study.front())
    assert np.allclose(front, problem.front())


def test_exhausted_within_the_constraints(tmp_path: Path) -> None:
    problem = AdditiveProblem(4, 3)
    bound = float(np.median([row["latency_ms"] for row in problem.price(problem.enumerate())]))
    study = make_study(tmp_path / "db", problem=problem, constraints={"latency_ms": bound})
    assert study.run(F, max_trials=1000) == "exhausted"
    good = [
        tuple(g)
        for g, row in zip(problem.enumerate(), problem.price(problem.enumerate()), strict=True)
        if row["latency_ms"] <= bound
    ]
    assert sorted(genomes(study.trials)) == sorted(good)


class _WithRecipes(AdditiveProblem):
    """Its last two genes say how a candidate is trained."""

    @property
    def choices(self) -> Sequence[Choice]:
        *first, one, other = super().choices
        return [*first, replace(one, kind="recipe"), replace(other, kind="recipe")]


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
def test_where_nothing_is_trained_recipes_make_no_candidates(tmp_path: Path, strategy: str) -> None:
    problem = _WithRecipes(4, 3)
    study = make_study(tmp_path / "db", problem=problem, strategy=strategy)
    assert study.run(Fidelity.INHERITED, max_trials=1000) == "exhausted"
    expected = [(i, j, 0, 0) for i in range(3) for j in range(3)]
    assert sorted(genomes(study.trials)) == expected
    trained = make_study(tmp_path / "trained", problem=problem, strategy=strategy)
    trained.run(Fidelity.SHORT, max_trials=20)
    assert any(genome[2:] != (0, 0) for genome in genomes(trained.trials))


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param("raise", "ValueError: no good", id="exception"),
        pytest.param("nan", "accuracy is nan", id="nan"),
        pytest.param("missing", "the evaluation gave no accuracy", id="missing"),
        pytest.param("wrong", "the evaluator returned a float", id="no-evaluation"),
    ],
)
def test_one_bad_trial_never_ends_a_search(tmp_path: Path, fault: str, reason: str) -> None:
    bad = PROBLEM.original
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {PROBLEM.decode(bad).id: fault})
    study = make_study(tmp_path / "db", evaluator=evaluator)
    study.run(F, max_trials=20, seeds=[bad])
    first, *others = study.trials
    assert first.state == "failed"
    assert str(first.error).startswith(reason)
    assert {t.state for t in others} == {"complete"}
    assert first not in study.front()
    assert not study.feasible(first)
    assert all(np.isfinite(list(t.metrics.values())).all() for t in study.trials)


def test_all_fail(tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {}, default="raise")
    study = make_study(tmp_path / "db", evaluator=evaluator)
    with pytest.raises(AutocompressError, match=r"all of the first 8 trials failed.*ValueError"):
        study.run(F, max_trials=100)
    assert len(study.trials) == 8
    fixed = make_study(tmp_path / "db")  # the user has repaired what was wrong
    assert fixed.run(F, max_trials=20) == "trials"
    assert [t.state for t in fixed.trials] == ["failed"] * 8 + ["complete"] * 12


def test_all_fail_names_the_commonest_reason(tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {}, default="nan")
    study = make_study(tmp_path / "db", evaluator=evaluator, fail_after=3)
    with pytest.raises(AutocompressError, match=r"first 3 .*\(3 of 3\): accuracy is nan"):
        study.run(F, max_trials=100)


def test_all_of_the_searchs_own_fail(tmp_path: Path) -> None:
    """That others chose trials before it, which worked, does not keep it going."""
    rng = np.random.default_rng(0)
    make_study(tmp_path / "db").evaluate(
        [PROBLEM.sample(rng) for _ in range(5)], fidelity=F, origin="trust"
    )
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {}, default="raise")
    study = make_study(tmp_path / "db", evaluator=evaluator)
    with pytest.raises(AutocompressError, match=r"all of the first 8 trials failed.*ValueError"):
        study.run(F, max_trials=100)
    assert len(study.trials) == 5 + 8


# -- interruptions -----------------------------------------------------------------------------


class _Interrupting:
    """Presses Ctrl-C in the evaluation of one candidate, until told otherwise."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        self.calls += 1
        if self.calls == self.number:
            raise KeyboardInterrupt
        return PROBLEM.evaluator().evaluate(candidate, fidelity=fidelity, seed=seed)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_interrupted_study_goes_on_here_and_elsewhere(tmp_path: Path, in_flight: int) -> None:
    whole = make_study(tmp_path / "whole", in_flight=in_flight)
    whole.run(F, max_trials=30)
    study = make_study(tmp_path / "db", evaluator=_Interrupting(12), in_flight=in_flight)
    with pytest.raises(KeyboardInterrupt):
        study.run(F, max_trials=30)
    assert essence(study.trials) == essence(whole.trials[:11])
    elsewhere = make_study(tmp_path / "db", in_flight=in_flight)
    elsewhere.run(F, max_trials=20)
    assert essence(elsewhere.trials) == essence(whole.trials[:20])
    assert {t.attempts for t in elsewhere.trials} == {1}  # giving up is no attempt


def test_interrupted_study_goes_on_in_the_same_process(tmp_path: Path) -> None:
    whole = make_study(tmp_path / "whole")
    whole.run(F, max_trials=20)
    study = make_study(tmp_path / "db", evaluator=_Interrupting(5))
    with pytest.raises(KeyboardInterrupt):
        study.run(F, max_trials=20)
    study.run(F, max_trials=20)
    assert essence(study.trials) == essence(whole.trials)


# -- chosen trials and fronts --------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 3])
def test_evaluate_chosen_genomes(tmp_path: Path, in_flight: int) -> None:
    study = make_study(tmp_path / "db", in_flight=in_flight)
    study.run(F, max_trials=10)
    chosen: list[Genome] = [np.array(t.genome) for t in study.trials[:4]]
    done = study.evaluate([*chosen, chosen[0]], fidelity=Fidelity.FINAL, origin="front")
    assert genomes(done) == [*genomes(study.trials[:4]), study.trials[0].genome]
    assert [t.number for t in study.trials[10:]] == [10, 11, 12, 13]
    assert {t.origin for t in study.trials[10:]} == {"chosen:front"}
    assert study.evaluate(chosen, fidelity=Fidelity.FINAL) == done[:4]
    assert len(study.trials) == 14
    assert {t.fidelity for t in study.front()} == {F}
    assert {t.fidelity for t in study.front(Fidelity.FINAL)} == {Fidelity.FINAL}
    assert study.front(Fidelity.TABLE) == []
    again = make_study(tmp_path / "db", in_flight=in_flight)
    assert again.front() == study.front()
    again.run(F, max_trials=10)
    assert again.evaluate(chosen, fidelity=Fidelity.FINAL) == done[:4]
    assert len(again.trials) == 14


def test_chosen_trials_do_not_disturb_the_search(tmp_path: Path) -> None:
    plain = make_study(tmp_path / "plain")
    plain.run(F, max_trials=40)
    mixed = make_study(tmp_path / "mixed")
    mixed.run(F, max_trials=20)
    mixed.evaluate([PROBLEM.original, PROBLEM.sizes - 1], fidelity=Fidelity.FINAL)
    again = make_study(tmp_path / "mixed")
    again.run(F, max_trials=40)
    stream = [t for t in again.trials if not t.origin.startswith("chosen:")]
    assert genomes(stream) == genomes(plain.trials)
    assert len(again.trials) == 42


def test_evaluate_can_be_stopped(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db")
    wanted = [np.full(10, k) for k in range(4)]
    done = study.evaluate(wanted, fidelity=F, should_stop=stop_after(2, study))
    assert genomes(done) == [tuple(w) for w in wanted[:2]]


# -- finding ---------------------------------------------------------------------------------------


def share_of_best(study: Study) -> float:
    corner = [-0.5, 3.0]
    best = hypervolume(PROBLEM.front() * np.array([-1, 1]), corner)
    return study.hypervolume(corner) / best


@pytest.mark.parametrize("strategy", ["nsga2", "tpe"])
def test_it_finds_more_of_the_known_front_than_chance(tmp_path: Path, strategy: str) -> None:
    study = make_study(tmp_path / "db", strategy=strategy)
    study.run(F, max_trials=250)
    uniform = make_study(tmp_path / "random", strategy="random")
    uniform.run(F, max_trials=250)
    assert 1 - share_of_best(study) < 0.8 * (1 - share_of_best(uniform))
    assert share_of_best(study) <= 1 + 1e-9


def test_an_optuna_sampler_drives_a_study(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        sampler = TPESampler(seed=4, multivariate=True)
        study = make_study(tmp_path / name, strategy=sampler)
        study.run(F, max_trials=30)
        found.append(study.trials)
    assert essence(found[0]) == essence(found[1])
    assert {t.origin for t in found[0]} == {"TPESampler"}


def test_three_objectives(tmp_path: Path) -> None:
    study = make_study(
        tmp_path / "db", objectives=("accuracy", "latency_ms", "size_bytes"), strategy="tpe"
    )
    study.run(F, max_trials=40)
    assert len(study.front()) > 1


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe"])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_trials_from_before_the_search_are_known_to_it(
    tmp_path: Path, strategy: str, in_flight: int
) -> None:
    """They are told to the strategy, never evaluated again, and resuming ends the same."""
    rng = np.random.default_rng(0)
    before = [PROBLEM.sample(rng) for _ in range(5)]

    def study_over(name: str) -> Study:
        study = make_study(tmp_path / name, strategy=strategy, in_flight=in_flight)
        study.evaluate(before, fidelity=F, origin="trust")
        study.evaluate(before[:3], fidelity=Fidelity.SHORT, origin="trust")
        return study

    calm = study_over("calm")
    told: list[int] = []
    tell = calm.strategy.tell
    calm.strategy.tell = lambda outcome: (told.append(outcome.index), tell(outcome))[1]  # type: ignore[method-assign, func-returns-value]
    assert calm.run(F, max_trials=20, seeds=[before[0]]) == "trials"
    assert told == [-8, -7, -6, -5, -4, *range(20)]
    searched = [t for t in calm.trials if not t.origin.startswith("chosen:")]
    assert len(searched) == 20
    assert not {t.genome for t in searched} & {tuple(g.tolist()) for g in before}
    assert calm.rejected[DUPLICATE] >= 1
    assert {t.number for t in calm.front()} <= {*range(5), *range(8, 28)}

    cut = study_over("cut")
    cut.run(F, max_trials=20, seeds=[before[0]], should_stop=stop_after(15, cut))
    resumed = study_over("cut")
    resumed.run(F, max_trials=20, seeds=[before[0]])
    resumed.run(F, max_trials=20)  # they are told once
    assert essence(resumed.trials) == essence(calm.trials)


def test_trials_of_another_fidelity_are_not(tmp_path: Path) -> None:
    study = make_study(tmp_path / "db")
    study.evaluate([PROBLEM.original], fidelity=Fidelity.SHORT, origin="trust")
    study.run(F, max_trials=4, seeds=[PROBLEM.original])
    assert study.trials[1].genome == study.trials[0].genome
