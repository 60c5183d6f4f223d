"""The fakes are right about their own optima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.budget import Fidelity
from autocompress.core.objective import METRICS
from autocompress.core.pareto import non_dominated
from autocompress.errors import RequestError
from autocompress.testing.problems import AdditiveProblem

OBJECTIVES = [("accuracy", "latency_ms"), ("accuracy", "latency_ms", "size_bytes")]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(2, 4), st.sampled_from(OBJECTIVES))
def test_front_equals_enumeration(
    seed: int, genes: int, options: int, objectives: tuple[str, ...]
) -> None:
    problem = AdditiveProblem(genes, options, seed=seed)
    rows = problem.metrics(problem.enumerate())
    values = np.array([[row[m] for m in objectives] for row in rows])
    signs = np.array([-1 if METRICS[m].direction == "maximize" else 1 for m in objectives])
    expected = values[non_dominated(np.round(values * signs, 9))]
    found = problem.front(objectives)
    assert np.allclose(np.unique(found, axis=0), np.unique(expected, axis=0))
    assert (np.diff(found[:, 0]) >= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3))
def test_decode_and_encode(seed: int, blocks: int) -> None:
    problem = AdditiveProblem(5, 4, seed=seed, blocks=blocks)
    genome = problem.sample(np.random.default_rng(seed))
    assert problem.encode(problem.decode(genome)).tolist() == genome.tolist()


def test_inactive_genes_have_no_influence() -> None:
    problem = AdditiveProblem(4, 3, blocks=2)
    raw = np.array([2, 1, 1, 2, 2])  # the depth gene switches the last two off
    assert problem.metrics([raw]) == problem.metrics([problem.canonical(raw)])
    assert problem.canonical(raw).tolist() == [2, 1, 1, 0, 0]
    shallow, deep = problem.metrics([np.array([2, 0, 0, 0, 0]), problem.original])
    assert shallow["latency_ms"] < deep["latency_ms"]
    assert shallow["accuracy"] < deep["accuracy"]


def test_price_and_evaluation_together_are_the_metrics() -> None:
    problem = AdditiveProblem()
    genome = problem.sample(np.random.default_rng(0))
    told = problem.evaluator().evaluate(problem.decode(genome), fidelity=Fidelity.TABLE, seed=0)
    assert {**problem.price([genome])[0], **told.metrics} == problem.metrics([genome])[0]
    assert problem.price([]) == []


def test_refusals() -> None:
    with pytest.raises(RequestError, match="no problem has genes=0"):
        AdditiveProblem(0)
    with pytest.raises(RequestError, match="too large"):
        AdditiveProblem(20, 4).enumerate()
    with pytest.raises(RequestError, match="no network"):
        AdditiveProblem().build(AdditiveProblem().decode(AdditiveProblem().original))
