"""Pareto routines against brute force, Optuna's own hypervolume and Monte Carlo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from autocompress.core.pareto import (
    ParetoArchive,
    crowding,
    hypervolume,
    largest_gains,
    non_dominated,
    ranks,
)
from autocompress.errors import RequestError

Losses = npt.NDArray[np.float64]


@st.composite
def losses(draw: st.DrawFn, *, finite: bool = True, rows: int = 24, least: int = 1) -> Losses:
    """Small integers make ties and duplicates common; the others are any floats."""
    shape = (draw(st.integers(0, rows)), draw(st.integers(least, 4)))
    elements = [
        st.integers(0, 4).map(float),
        st.floats(-1e6, 1e6, width=32),
    ]
    if not finite:
        elements.append(st.sampled_from([np.nan, np.inf, -np.inf]))
    return draw(
        arrays(
            np.float64,
            shape,
            elements=draw(st.sampled_from(elements[:2])) if finite else st.one_of(elements),
        )
    )


def brute_front(points: Losses) -> list[bool]:
    result = []
    for i, row in enumerate(points):
        beaten = not np.isfinite(row).all()
        for j, other in enumerate(points):
            if not np.isfinite(other).all():
                continue
            if (other <= row).all() and ((other < row).any() or j < i):
                beaten = True
        result.append(not beaten)
    return result


@given(losses(finite=False))
def test_non_dominated_equals_brute_force(points: Losses) -> None:
    assert non_dominated(points).tolist() == brute_front(points)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([[1, 2], [2, 1], [2, 2]], [True, True, False], id="one-dominated"),
        pytest.param([[1, 1], [1, 1]], [True, False], id="first-of-duplicates"),
        pytest.param([[np.nan, 0], [1, 1]], [False, True], id="nan"),
        pytest.param([[-np.inf, 0], [1, 1]], [False, True], id="minus-inf"),
        pytest.param([[np.inf, np.inf]], [False], id="only-inf"),
        pytest.param(np.empty((0, 3)), [], id="empty"),
    ],
)
def test_non_dominated_cases(points: npt.ArrayLike, expected: list[bool]) -> None:
    assert non_dominated(points).tolist() == expected


@given(losses())
def test_ranks_are_the_layers_of_peeling(points: Losses) -> None:
    rank = ranks(points)
    for i in range(len(points)):
        dominators = [
            rank[j]
            for j in range(len(points))
            if (points[j] <= points[i]).all() and (points[j] < points[i]).any()
        ]
        assert rank[i] == (max(dominators) + 1 if dominators else 0)


def test_rows_without_result_rank_last() -> None:
    points = np.array([[1, 1], [np.nan, 0], [2, 2], [np.inf, 0]])
    assert ranks(points).tolist() == [0, 2, 1, 2]
    assert ranks(points[1:2]).tolist() == [0]


def test_crowding() -> None:
    distance = crowding([[0, 4], [1, 2], [4, 0]])
    assert distance.tolist() == [np.inf, 2.0, np.inf]
    assert crowding([[1, 1], [1, 1]]).tolist() == [0, 0]
    assert crowding(np.empty((0, 2))).tolist() == []


@given(losses())
def test_hypervolume_equals_optuna(points: Losses) -> None:
    corner = np.full(points.shape[1], 3.0)
    inside = points[(points < corner).all(axis=1)]
    expected = compute_hypervolume(inside, corner) if len(inside) else 0.0
    assert hypervolume(points, corner) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_against_monte_carlo(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    points = rng.random((20, objectives))
    samples = rng.random((40_000, objectives))
    covered = (points[:, None] <= samples[None]).all(axis=2).any(axis=0)
    share, error = covered.mean(), 5 * covered.std() / np.sqrt(len(samples)) + 1e-12
    assert abs(hypervolume(points, np.ones(objectives)) - share) < error


@given(losses(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_hypervolume_ignores_order_duplicates_and_dominated(points: Losses, random: object) -> None:
    corner = np.full(points.shape[1], 5.0)
    whole = hypervolume(points, corner)
    assert hypervolume(np.vstack([points[::-1], points]), corner) == pytest.approx(whole)
    assert hypervolume(points[non_dominated(points)], corner) == pytest.approx(whole)
    assert whole >= 0


@pytest.mark.parametrize(
    ("points", "corner", "expected"),
    [
        pytest.param([[1.0, 1.0]], [3.0, 2.0], 2.0, id="one"),
        pytest.param([[3.0, 1.0]], [3.0, 2.0], 0.0, id="on-the-border"),
        pytest.param([[0, 0, 0, 0]], [1, 2, 3, 4], 24.0, id="four"),
        pytest.param([[np.nan, 0], [0, 1], [1, 0]], [2, 2], 3.0, id="nan-adds-nothing"),
        pytest.param(np.empty((0, 2)), [1, 1], 0.0, id="empty"),
    ],
)
def test_hypervolume_cases(points: npt.ArrayLike, corner: npt.ArrayLike, expected: float) -> None:
    assert hypervolume(points, corner) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("points", "corner"),
    [
        pytest.param([[1, 1]], [1, 1, 1], id="objectives-differ"),
        pytest.param([[1] * 5], [2] * 5, id="five"),
        pytest.param([[1, 1]], [np.inf, 1], id="infinite-reference"),
        pytest.param([1, 2, 3], [1, 1], id="not-a-matrix"),
    ],
)
def test_hypervolume_refuses(points: npt.ArrayLike, corner: npt.ArrayLike) -> None:
    with pytest.raises(RequestError):
        hypervolume(points, corner)


@given(losses(), st.integers(0, 4))
def test_largest_gains_are_what_trying_all_of_them_gives(points: Losses, held: int) -> None:
    held = min(held, len(points))
    corner = points.max(axis=0, initial=0.0) + 1.0
    given_points, rest = points[:held], points[held:]
    chosen = largest_gains(rest, corner, 3, given=given_points)
    assert len(set(chosen)) == len(chosen) <= 3
    for step, row in enumerate(chosen):
        before = np.vstack([given_points, rest[chosen[:step]]])
        best = max(hypervolume(np.vstack([before, p]), corner) for p in rest)
        assert hypervolume(np.vstack([before, rest[row]]), corner) == pytest.approx(best)
    if len(chosen) < 3:
        reached = hypervolume(np.vstack([given_points, rest[chosen]]), corner)
        assert reached == pytest.approx(hypervolume(points, corner))


@given(losses(finite=False))
def test_archive_equals_non_dominated(points: Losses) -> None:
    archive: ParetoArchive[int] = ParetoArchive(points.shape[1])
    for i, row in enumerate(points):
        archive.add(row, i)
    front = np.flatnonzero(non_dominated(points))
    assert archive.keys == front.tolist()
    assert archive.losses.tolist() == points[front].tolist()
    assert len(archive) == len(front)


def test_archive_tells_what_entered() -> None:
    archive: ParetoArchive[str] = ParetoArchive(2)
    assert archive.add([1, 2], "a")
    assert not archive.add([1, 2], "same")
    assert not archive.add([2, 2], "worse")
    assert archive.add([0, 0], "best")
    assert archive.keys == ["best"]
    assert archive.hypervolume([1, 1]) == 1.0
    with pytest.raises(RequestError, match="2 objectives"):
        archive.add([1, 2, 3], "long")


def test_largest_gains_over_equally_likely_outcomes() -> None:
    sure, likely = [0.5, 0.5], [0.4, 0.5]
    outcomes = [[sure, likely], [sure, [0.9, 0.5]], [sure, [0.9, 0.5]]]
    assert largest_gains(outcomes, [1.0, 1.0], 2) == [0, 1], "the second adds in one of three"
    assert largest_gains([[sure, [0.9, 0.5]]] * 3, [1.0, 1.0], 2) == [0]
    assert largest_gains([[sure, likely]], [1.0, 1.0], 2) == largest_gains(
        [sure, likely], [1.0, 1.0], 2
    )


def test_largest_gains_refuses_other_objectives() -> None:
    with pytest.raises(RequestError, match="losses have 2 objectives, what is given has 3"):
        largest_gains([[0.0, 0.0]], [1.0, 1.0], 1, given=[[0.0, 0.0, 0.0]])
    assert largest_gains([], [1.0, 1.0], 1, given=[[0.0, 0.0]]) == []
