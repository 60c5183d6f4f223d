"""Estimates: additive, banded, never without an answer."""

from __future__ import annotations

import pytest

from autocompress.errors import RequestError
from autocompress.graph.ops import Op
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.predictor import LatencyPredictor, validation_of
from autocompress.hardware.profile import RuntimeSpec, Validation
from autocompress.hardware.quality import concerns
from autocompress.measurement.networks import reference_networks
from tests.unit.hardware.helpers import formula_us, profile, row, table_kernels

NETWORKS = reference_networks(12, seed=1)
KERNELS = table_kernels(12)
PLAIN = Calibration(kernel_us=0.0, t0_us=0.0, cache_mb=1e6, near_mb=1e6)


def predictor(share: float = 1.0) -> LatencyPredictor:
    # spread over all of them
    rows = [row(k) for i, k in enumerate(KERNELS) if int((i + 1) * share) > int(i * share)]
    return LatencyPredictor(
        profile(
            rows,
            runtime=RuntimeSpec(run_us=2.0, view_us=0.25),
            calibration=PLAIN,
            validation=Validation(9, 0.02, 0.05, 0.1, 0.9, 1.0),
        )
    )


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_a_covered_network_is_the_sum_of_its_kernels(network) -> None:  # type: ignore[no-untyped-def]
    found = predictor()
    kernels = found.kernels(network.ops)
    expected = 2.0 + sum(0.25 if k.is_view else round(formula_us(k), 4) for k in kernels)
    estimate = found.estimate(network.ops)
    assert estimate.value == pytest.approx(expected / 1e3)
    assert estimate.coverage == 1.0
    assert estimate.low == pytest.approx(estimate.value / 1.05)
    assert estimate.high == pytest.approx(estimate.value * 1.05)
    assert not found.missing(network.ops)


def test_missing_rows_widen_the_band() -> None:
    full, half = predictor(), predictor(0.5)
    ops = next(n.ops for n in NETWORKS if half.missing(n.ops))
    wide, narrow = half.estimate(ops), full.estimate(ops)
    assert wide.coverage < 1.0
    assert (wide.high - wide.low) / wide.value > (narrow.high - narrow.low) / narrow.value
    assert wide.value == pytest.approx(narrow.value, rel=0.3)


def test_an_empty_table_still_answers() -> None:
    empty = predictor(0.0)
    estimate = empty.estimate(NETWORKS[0].ops)
    assert 0 < estimate.low < estimate.value < estimate.high or estimate.low == 0
    assert estimate.coverage < 0.1
    odd = (
        Op("x", "input", (), (1, 8)),
        Op("o", "aten.erf", ("x",), (1, 8)),
        Op("y", "output", ("o",), (1, 8)),
    )
    assert empty.estimate(odd).value > 0


def test_elsewhere_nothing_is_measured() -> None:
    assert predictor(0.0).measure(KERNELS) == 0


def test_time_by_operation() -> None:
    found, ops = predictor(), NETWORKS[0].ops
    by_op = found.by_op(ops)
    assert set(by_op) <= {op.name for op in ops}
    assert sum(by_op.values()) == pytest.approx(found.estimate(ops).value - 2e-3)


def test_calibration_takes_out_a_constant_factor() -> None:
    found = predictor()
    pairs = [(n.ops, found.estimate(n.ops).value * 1.1 + 0.0002) for n in NETWORKS]
    before = max(abs(found.estimate(ops).value / ms - 1) for ops, ms in pairs)
    found.calibrate(pairs)
    after = max(abs(found.estimate(ops).value / ms - 1) for ops, ms in pairs)
    assert after < before / 3
    assert found.calibration.networks == len(pairs)
    assert found.validation.networks == len(pairs)
    assert found.validation.p90 < 0.05


@pytest.mark.parametrize("pairs", [[], [(NETWORKS[0].ops, 1.0)], [(NETWORKS[0].ops, 0.0)] * 2])
def test_what_cannot_be_calibrated(pairs: list[tuple[tuple[Op, ...], float]]) -> None:
    with pytest.raises(RequestError, match="at least two"):
        predictor().calibrate(pairs)


def test_validation_summary() -> None:
    found = validation_of([0.01, -0.02, 0.2, 0.07])
    assert (found.networks, found.worst) == (4, 0.2)
    assert (found.within5, found.within10) == (0.5, 0.75)


def test_validation_is_on_networks_that_were_never_fitted_to() -> None:
    found = predictor()
    others = [(n.ops, found.estimate(n.ops).value * 1.2) for n in NETWORKS]
    checked = found.validate(others)
    assert checked.networks == len(NETWORKS)
    assert checked.p50 == pytest.approx(1 - 1 / 1.2, abs=1e-6)
    assert checked.within10 == 0.0
    estimate = found.estimate(NETWORKS[0].ops)
    assert estimate.high == pytest.approx(estimate.value * (1 + checked.p90))
    assert any("do not rely" in text for text in concerns(found.calibrated_profile))
    with pytest.raises(RequestError, match="positive latencies"):
        found.validate([(NETWORKS[0].ops, 0.0)])
