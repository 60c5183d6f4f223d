"""Repair, and what is said when nothing helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.objective import Constraint, parse_constraints
from autocompress.core.space import Genome
from autocompress.errors import InfeasibleError, RequestError
from autocompress.search.feasibility import (
    NoFeasibleCandidateError,
    all_genomes,
    find_feasible,
    repair,
)
from autocompress.search.pricing import Pricer, describe
from autocompress.testing.problems import AdditiveProblem


def pricer(problem: AdditiveProblem, **bounds: float) -> Pricer:
    return Pricer(problem.price, parse_constraints(bounds))


def cheapest(problem: AdditiveProblem) -> dict[str, float]:
    return problem.price([problem.canonical(problem.sizes - 1)])[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.booleans())
def test_repair_meets_the_bounds_when_they_can_be_met(
    seed: int, slack_ms: float, slack_bytes: float, conditional: bool
) -> None:
    """The last options are the cheapest of every gene, so any bound above theirs can be met."""
    problem = AdditiveProblem(10, 4, seed=seed, blocks=0 if not conditional else 3)
    rng = np.random.default_rng(seed)
    original, least = problem.price([problem.original])[0], cheapest(problem)
    bounds = {
        name: least[name] + slack * (original[name] - least[name])
        for name, slack in (("latency_ms", slack_ms), ("size_bytes", slack_bytes))
    }
    judge = pricer(problem, **bounds)
    start = problem.sample(rng)
    found = repair(problem, judge, start, rng=rng)
    assert found is not None
    assert problem.canonical(found).tolist() == found.tolist()
    assert not judge.violations([found]).any()
    if not judge.violations([start]).any():
        assert found.tolist() == start.tolist()


def test_repair_is_deterministic_and_varied() -> None:
    problem = AdditiveProblem(12, 4)
    judge = pricer(problem, latency_ms=1.2)

    def go(seed: int) -> list[int]:
        found = repair(problem, judge, problem.original, rng=np.random.default_rng(seed))
        assert found is not None
        return [int(gene) for gene in found]

    assert go(1) == go(1)
    assert len({tuple(go(seed)) for seed in range(10)}) > 5


def test_repair_prices_in_few_calls() -> None:
    problem = AdditiveProblem(40, 5)
    calls: list[int] = []

    def price(genomes: Sequence[Genome]) -> list[dict[str, float]]:
        calls.append(len(genomes))
        return problem.price(genomes)

    judge = Pricer(price, parse_constraints({"latency_ms": 0.8}))
    assert repair(problem, judge, problem.original, rng=np.random.default_rng(0)) is not None
    assert len(calls) <= 12


@pytest.mark.parametrize("genes", [4, 14], ids=["enumerated", "sampled"])
def test_nearest_and_relaxations(genes: int) -> None:
    problem = AdditiveProblem(genes, 4)
    least = cheapest(problem)
    judge = pricer(problem, latency_ms=least["latency_ms"] * 0.5, size_bytes=1e9)
    with pytest.raises(NoFeasibleCandidateError) as caught:
        find_feasible(problem, judge, rng=np.random.default_rng(0))
    error = caught.value
    assert isinstance(error, InfeasibleError)
    assert error.exit_code == 3
    assert error.relaxations == {"latency_ms": pytest.approx(least["latency_ms"])}
    assert 1 <= len(error.nearest) <= 3
    assert error.nearest[0].metrics["latency_ms"] == pytest.approx(least["latency_ms"])
    assert error.nearest[0].violations == {"latency_ms": pytest.approx(1.0)}
    assert "no candidate meets latency_ms <= " in str(error)
    assert "relax latency_ms to" in str(error)


def test_either_relaxation_is_enough() -> None:
    """Two bounds that exclude each other only together."""
    problem = _TradeOff()
    judge = pricer(problem, latency_ms=1.0, size_bytes=100.0)
    with pytest.raises(NoFeasibleCandidateError) as caught:
        find_feasible(problem, judge, rng=np.random.default_rng(0))
    assert caught.value.relaxations == {"latency_ms": 3.0, "size_bytes": 300.0}
    assert "(one of them is enough)" in str(caught.value)


def test_no_single_relaxation_is_enough() -> None:
    problem = AdditiveProblem(4, 3)
    with pytest.raises(NoFeasibleCandidateError, match="relax all of") as caught:
        find_feasible(
            problem, pricer(problem, latency_ms=1e-6, size_bytes=1.0), rng=np.random.default_rng(0)
        )
    assert caught.value.relaxations == {}


class _TradeOff(AdditiveProblem):
    """Fast is big and small is slow."""

    def __init__(self) -> None:
        super().__init__(1, 3)

    def price(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        table = [(1.0, 300.0), (2.0, 200.0), (3.0, 100.0)]
        return [
            {"latency_ms": table[int(g[0])][0], "size_bytes": table[int(g[0])][1]} for g in genomes
        ]


def test_find_feasible_finds() -> None:
    problem = AdditiveProblem(14, 4)
    judge = pricer(problem, latency_ms=cheapest(problem)["latency_ms"] * 1.05)
    genome = find_feasible(problem, judge, rng=np.random.default_rng(0))
    assert not judge.violations([genome]).any()


def test_all_genomes() -> None:
    problem = AdditiveProblem(4, 3, blocks=2)
    found = all_genomes(problem)
    assert found is not None
    assert found.tolist() == [g.tolist() for g in problem.enumerate()]
    assert all_genomes(AdditiveProblem(20, 4)) is None


def test_pricer_refuses_what_cannot_be_priced() -> None:
    problem = AdditiveProblem()
    with pytest.raises(RequestError, match=r"energy_mj is constrained.*latency_ms, size_bytes"):
        pricer(problem, energy_mj=1.0).violations([problem.original])
    with pytest.raises(RequestError, match="0 answers for 1 genomes"):
        Pricer(lambda genomes: [], parse_constraints({"macs": 1})).violations([problem.original])


def test_pricer_unknown_is_infinitely_far() -> None:
    problem = AdditiveProblem()

    def price(genomes: Sequence[Genome]) -> list[dict[str, float]]:
        return [{"latency_ms": 1.0}, {"latency_ms": float("nan")}][: len(genomes)]

    judge = Pricer(price, [Constraint("latency_ms", 2.0), Constraint("accuracy_drop", 0.1)])
    assert judge.violations([problem.original] * 2).tolist() == [[0.0], [np.inf]]
    assert judge.metrics([problem.original] * 2) == [{"latency_ms": 1.0}, {}]


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint("latency_ms", 2.0), "latency_ms <= 2"),
        (Constraint("accuracy", 0.9), "accuracy >= 0.9"),
        (Constraint("accuracy_drop", 0.01), "accuracy_drop <= 0.01"),
    ],
    ids=str,
)
def test_describe(constraint: Constraint, words: str) -> None:
    assert describe(constraint) == words
