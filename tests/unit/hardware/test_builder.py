"""What a space reaches, in the order in which it is worth measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import DeviceError
from autocompress.graph.ops import Op
from autocompress.hardware import local as local_module
from autocompress.hardware.builder import TableBuilder
from autocompress.hardware.local import local_profile
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernel_models import KernelTime
from autocompress.measurement.networks import reference_networks
from tests.unit.hardware.helpers import TinySpace, profile, row

SPACE = TinySpace()


def candidates(count: int, seed: int = 0) -> list[tuple[Op, ...]]:
    rng = np.random.default_rng(seed)
    return [SPACE.operations(SPACE.sample(rng)) for _ in range(count)]


def test_the_most_frequent_come_first_and_baselines_before_them() -> None:
    builder = TableBuilder(LatencyPredictor(profile()))
    original = SPACE.operations(SPACE.original)
    builder.add(candidates(40))
    builder.add([original], first=True)
    kernels = builder.kernels()
    own = {k.key for k in builder.predictor.kernels(original) if not k.is_view}
    assert {k.key for k in kernels[: len(own)]} == own
    rest = [builder._counts[k] for k in kernels[len(own) :]]
    assert rest == sorted(rest, reverse=True)
    assert builder.candidates == 41


def test_the_plan_counts_rows_and_minutes() -> None:
    empty = TableBuilder(LatencyPredictor(profile()))
    empty.add(candidates(30))
    plan = empty.plan()
    assert plan.missing == plan.reached == len(empty.kernels())
    assert plan.seconds > 0
    assert f"{plan.missing} are missing" in plan.sentence()
    known = TableBuilder(LatencyPredictor(profile([row(k) for k in empty.kernels()[5:]])))
    known.add(candidates(30))
    assert known.plan().missing == 5
    assert known.plan().known == plan.reached - 5


def test_coverage_says_how_much_of_the_rest_was_met() -> None:
    """Against the truth: the share of fresh candidates' kernels among those reached."""
    few, many = (TableBuilder(LatencyPredictor(profile())) for _ in range(2))
    few.add(candidates(20))
    many.add(candidates(300))
    assert few.plan().coverage < many.plan().coverage
    fresh = [k for ops in candidates(200, seed=9) for k in set(few.predictor.kernels(ops))]
    fresh = [k for k in fresh if not k.is_view]
    for builder in (few, many):
        reached = {k.key for k in builder.kernels()}
        truth = np.mean([k.key in reached for k in fresh])
        assert builder.plan().coverage == pytest.approx(truth, abs=0.1)


def test_nothing_is_measured_where_the_device_is_not_at_hand() -> None:
    builder = TableBuilder(LatencyPredictor(profile()))
    builder.add(candidates(3))
    built = builder.build()
    assert built.measured == 0
    assert built.missing == built.reached
    assert built.covered == 0.0


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(
        local_module, "time_kernels",
        lambda wanted, *_a, **_k: [KernelTime(1.0, 1.0, 1.0, 1.0, 5) for _ in wanted],
    )  # fmt: skip

    def builder() -> TableBuilder:
        found = TableBuilder(LatencyPredictor.for_device(local_profile()))
        found.add([network.ops for network in reference_networks(4, seed=3)])
        return found

    first = builder()
    whole = first.plan().missing
    half = first.missing()[: whole // 2]
    first.predictor.measure(half)
    second = builder()
    assert second.plan().missing == whole - len(half)
    built = second.build()
    assert built.measured == whole - len(half)
    assert built.missing == 0
    assert built.covered == 1.0


def test_what_the_runtime_cannot_run_stays_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(
        local_module, "time_kernels",
        lambda wanted, *_a, **_k: [DeviceError("no such kernel") for _ in wanted],
    )  # fmt: skip
    builder = TableBuilder(LatencyPredictor.for_device(local_profile()))
    builder.add([network.ops for network in reference_networks(1, seed=3)])
    built = builder.build()
    assert built.measured == 0
    assert built.missing == built.reached
    assert builder.predictor.estimate(reference_networks(1, seed=3)[0].ops).value > 0
