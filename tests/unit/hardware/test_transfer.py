"""A device that differs from a known one kind by kind is found from a few networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from autocompress.errors import RequestError
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile, RuntimeSpec
from autocompress.hardware.profiles import load_profile
from autocompress.hardware.table import LatencyTable
from autocompress.hardware.transfer import FEWEST, MeasuredNetwork, adapt, most_telling
from autocompress.hardware.work_scale import work_kind
from autocompress.measurement.networks import Network, reference_networks

KNOWN = load_profile("amd_epyc_zen5_avx512")
NETWORKS = reference_networks(44, seed=5)
FACTORS = {
    "dense float": 9.0,
    "dense integer": 6.0,
    "depthwise": 14.0,
    "linear": 7.0,
    "other": 8.0,
}


def truth_ms(network: Network, rng: np.random.Generator) -> float:
    """A slower device: every kind by its own factor, and 3 % of noise."""
    predictor = LatencyPredictor(KNOWN)
    kernels = predictor.kernels(network.ops)
    us = 12.0 + 0.8 * len(kernels)
    us += sum(FACTORS[work_kind(k)] * predictor.price(k).hot_us for k in kernels)
    return float(us * (1 + 0.03 * rng.standard_normal()) / 1e3)


def measured(count: int) -> list[MeasuredNetwork]:
    rng = np.random.default_rng(1)
    return [MeasuredNetwork(n.name, n.ops, truth_ms(n, rng)) for n in NETWORKS[:count]]


def errors(profile: HardwareProfile) -> tuple[float, float]:
    """Median relative error and rank correlation on networks that were not measured."""
    rng = np.random.default_rng(2)
    truth = np.array([truth_ms(n, rng) for n in NETWORKS[20:]])
    found = LatencyPredictor(profile)
    estimates = np.array([found.estimate(n.ops).value for n in NETWORKS[20:]])
    return float(np.median(abs(estimates / truth - 1))), float(spearmanr(estimates, truth)[0])


@pytest.mark.parametrize(("count", "worst"), [(5, 0.15), (10, 0.08), (20, 0.05)])
def test_few_networks_are_enough(count: int, worst: float) -> None:
    found = adapt("board", measured(count), [KNOWN])
    median, spearman = errors(found.profile)
    assert median < worst
    assert spearman > 0.97
    assert found.profile.kind == "transferred"
    assert found.profile.provenance.base == (KNOWN.id,)
    assert not found.profile.proves_constraints
    assert found.profile.validation.networks == count


@pytest.mark.parametrize("base", ["raspberry_pi_5", "phone_cortex_a78"])
def test_from_a_data_sheet(base: str, tmp_path: Path) -> None:
    """Where nothing was measured on the known device, its peaks take the factors."""
    known = load_profile(base)
    found = adapt("board", measured(20), [known])
    before = errors(known)[0]
    median, spearman = errors(found.profile)
    assert median < before / 2
    assert median < 0.25
    assert spearman > 0.9
    assert found.profile.roofline is not None
    folder = tmp_path / "board"
    found.profile.save(folder)
    assert load_profile(folder).roofline == found.profile.roofline


def test_the_rules_that_fit_are_chosen() -> None:
    """Of two known devices with the same kernels, the one whose kinds behave alike."""
    other = replace(
        KNOWN,
        id="other",
        runtime=RuntimeSpec(lowering="plain", run_us=1.0),
        calibration=Calibration(),
    )
    found = adapt("board", measured(12), [other, KNOWN])
    assert found.base == KNOWN.id
    assert set(found.errors) == {"other", KNOWN.id}
    assert found.errors[KNOWN.id] < found.errors["other"]


def test_it_is_kept_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    found = adapt("board", measured(10), [KNOWN])
    found.profile.save(folder)
    again = load_profile(folder)
    ops = NETWORKS[30].ops
    assert LatencyPredictor(again).estimate(ops).value == pytest.approx(
        LatencyPredictor(found.profile).estimate(ops).value, rel=1e-3
    )


def test_the_most_telling_come_first() -> None:
    """After networks in floats only, one in integers teaches most."""
    floats = [n for n in NETWORKS if "fp32" in n.name]
    pool = [*floats[6:9], next(n for n in NETWORKS if "inverted-cifar-int8" in n.name)]
    order = most_telling([n.ops for n in floats[:6]], [n.ops for n in pool], KNOWN)
    assert sorted(order) == list(range(len(pool)))
    assert order[0] == len(pool) - 1


def test_refused() -> None:
    with pytest.raises(RequestError, match=f"at least {FEWEST} are needed"):
        adapt("board", measured(2), [KNOWN])
    with pytest.raises(RequestError, match="no known device"):
        adapt("board", measured(5), [])
    wrong = [*measured(4), MeasuredNetwork("odd", NETWORKS[9].ops, -1.0)]
    with pytest.raises(RequestError, match=r"'odd' has latency_ms = -1\.0"):
        adapt("board", wrong, [KNOWN])


def test_what_was_validated_is_what_is_saved(tmp_path: Path) -> None:
    """Also for kernels that the known device has no row of."""
    bare = replace(KNOWN, table=LatencyTable([*KNOWN.table][:40]))
    found = adapt("board", measured(12), [bare])
    known, new = LatencyPredictor(bare), LatencyPredictor(found.profile)
    for network in NETWORKS[20:30]:
        for kernel in known.kernels(network.ops):
            if not kernel.is_view:
                factor = found.factors[work_kind(kernel)] * bare.calibration.a
                assert new.price(kernel).hot_us == pytest.approx(
                    factor * known.price(kernel).hot_us
                )


def test_nothing_of_the_other_device_binds() -> None:
    known = load_profile("stm32f4_cortex_m4")
    assert known.limits.bounds
    found = adapt("board", measured(6), [known])
    assert not found.profile.limits.bounds
    assert found.profile.provenance.sources == known.provenance.sources


def test_a_device_without_prices_is_refused() -> None:
    empty = replace(KNOWN, id="empty", table=LatencyTable())
    with pytest.raises(RequestError, match="empty has neither a latency table nor a roofline"):
        adapt("board", measured(5), [KNOWN, empty])
    with pytest.raises(RequestError, match="are not all different"):
        adapt("board", measured(5), [KNOWN, KNOWN])


def test_a_transferred_device_can_be_known_to_the_next() -> None:
    first = adapt("board", measured(20), [KNOWN]).profile
    again = adapt("copy", measured(20), [first]).profile
    ops = NETWORKS[25].ops
    assert LatencyPredictor(again).estimate(ops).value == pytest.approx(
        LatencyPredictor(first).estimate(ops).value, rel=0.1
    )
