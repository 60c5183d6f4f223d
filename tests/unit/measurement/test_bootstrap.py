"""The interval of a figure that varies by process, pass and batch."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.measurement.bootstrap import bootstrap_interval


def times(rng: np.random.Generator, processes: int, spread: float) -> list[list[list[float]]]:
    """A microsecond per batch, processes apart by ``spread``, batches by a tenth of it."""
    return [
        [
            (level + 0.1 * spread * np.abs(rng.standard_normal(40))).tolist()
            for level in [1.0 + spread * rng.standard_normal()] * 2
        ]
        for _ in range(processes)
    ]


def test_constant_times_leave_no_doubt() -> None:
    assert bootstrap_interval([[[2.0] * 5] * 2] * 3, 0.25) == (2.0, 2.0)


def test_few_processes_span_them() -> None:
    """Three processes: the interval reaches from the fastest of them to the slowest."""
    found = bootstrap_interval([[[1.0] * 9] * 2, [[1.1] * 9] * 2, [[1.3] * 9] * 2], 0.25)
    assert found == pytest.approx((1.0, 1.3))


def test_the_smallest_pass_counts() -> None:
    low, high = bootstrap_interval([[[1.0] * 9, [5.0] * 9]] * 3, 0.25)
    assert low == pytest.approx(1.0)
    assert high <= 5.0


def test_more_processes_narrow_it() -> None:
    rng = np.random.default_rng(0)
    widths = [
        np.mean(
            [np.ptp(bootstrap_interval(times(rng, n, 0.05), 0.25, resamples=400)) for _ in range(9)]
        )
        for n in (4, 30)
    ]
    assert widths[1] < 0.75 * widths[0]


def test_it_holds_the_figure_as_often_as_it_says() -> None:
    """With 15 processes of one population, whose median figure is known, nearly 95 %."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(120):
        levels = 1.0 + 0.05 * rng.standard_normal(15)
        low, high = bootstrap_interval([[[v] * 3] for v in levels], 0.25, resamples=500)
        held += low <= 1.0 <= high
    assert 0.85 <= held / 120 <= 1.0


def test_the_same_times_give_the_same_interval() -> None:
    found = times(np.random.default_rng(2), 3, 0.1)
    assert bootstrap_interval(found, 0.25) == bootstrap_interval(found, 0.25)
