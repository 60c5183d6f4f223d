"""The formula from kernel times to network times."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.errors import ProfileError
from autocompress.hardware.calibration import PRIOR, Calibration, NetworkSums, as_row, fit


def sums(hot: float, kernels: int, megabytes: float = 0.1) -> NetworkSums:
    return NetworkSums(hot, 1.5 * hot, megabytes * 1e6, 2e5, kernels, 1e5)


def total(calibration: Calibration, one: NetworkSums) -> float:
    return float(calibration.total_us(np.array([as_row(one)]), 1.0)[0])


def test_small_networks_are_hot_and_large_ones_are_not() -> None:
    plain = Calibration(kernel_us=0, t0_us=0)
    assert total(plain, sums(100, 10)) == pytest.approx(101, rel=1e-3)
    assert total(plain, sums(100, 10, megabytes=100)) > 151


def test_networks_leave_the_nearest_cache_first() -> None:
    between = sums(100, 10, megabytes=4)
    assert total(Calibration(), between) < 105
    assert total(PRIOR, between) > 1.4 * 100
    assert total(PRIOR, between) < total(PRIOR, sums(100, 10, megabytes=40))


def test_no_data_keeps_the_prior() -> None:
    assert fit([], [], 1.0) == PRIOR


def test_known_coefficients_are_found() -> None:
    truth = Calibration(a=1.05, kernel_us=0.2, t0_us=0.8)
    rng = np.random.default_rng(0)
    networks = [sums(float(h), int(n)) for h, n in rng.uniform([5, 5], [500, 50], (30, 2))]
    found = fit(networks, [total(truth, n) for n in networks], 1.0)
    for one in networks:
        assert total(found, one) == pytest.approx(total(truth, one), rel=0.02)


def test_round_trip_and_nonsense() -> None:
    value = Calibration(a=1.2)
    assert Calibration.from_json(value.to_json()) == value
    with pytest.raises(ProfileError, match="colour"):
        Calibration.from_json({"colour": 1.0})
