"""Energy from operations, bytes and power."""

from __future__ import annotations

from typing import Any

import pytest

from autocompress.errors import ProfileError
from autocompress.hardware.energy import EnergyModel
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernels import KernelSignature
from tests.unit.hardware.helpers import TinySpace, profile, row, table_kernels

LINEAR = KernelSignature.parse("plain:Gemm|f32[1,64];c:f32[10,64]|f32[1,10]|")
MAC, NEAR, FAR, FLASH = 4.0, 2.0, 50.0, 20.0


def toml(**more: Any) -> dict[str, Any]:
    return {
        "kind": "estimate",
        "source": "made up",
        "error": 1.0,
        "active_mw": 100.0,
        "idle_mw": 10.0,
        "weight_pj_per_byte": 0.0,
        "pj_per_mac": {"f32": MAC, "i8": 0.5},
        "levels": [
            {"name": "L1", "size_bytes": 4096, "pj_per_byte": NEAR},
            {"name": "DRAM", "size_bytes": 0, "pj_per_byte": FAR},
        ],
        **more,
    }


def test_operations_and_bytes() -> None:
    moved = 4 * (64 + 10)
    expected = (640 * MAC + (moved + 4 * 640) * NEAR) / 1e9
    assert EnergyModel.from_toml(toml()).kernel_mj(LINEAR) == pytest.approx(expected)
    flash = EnergyModel.from_toml(toml(weight_pj_per_byte=FLASH))
    assert flash.kernel_mj(LINEAR) == pytest.approx(
        (640 * MAC + moved * NEAR + 4 * 640 * FLASH) / 1e9
    )
    far = EnergyModel.from_toml(toml(levels=[{"name": "DRAM", "pj_per_byte": FAR}]))
    assert far.kernel_mj(LINEAR) == pytest.approx((640 * MAC + (moved + 4 * 640) * FAR) / 1e9)


def test_a_view_costs_nothing() -> None:
    view = KernelSignature.parse("plain:Reshape|f32[1,64]|f32[64]|")
    assert EnergyModel.from_toml(toml()).kernel_mj(view) == 0.0


def test_a_network_adds_the_power_while_it_runs() -> None:
    model = EnergyModel.from_toml(toml())
    predictor = LatencyPredictor(profile([row(k) for k in table_kernels(2)], energy=model))
    space = TinySpace()
    kernels = predictor.kernels(space.operations(space.original))
    own = sum(map(model.kernel_mj, kernels))
    assert predictor.energy_mj(kernels, 3.0) == pytest.approx(own + 100.0 * 3.0 / 1e3)
    assert LatencyPredictor(profile()).energy_mj(kernels, 3.0) is None


def test_average_power() -> None:
    model = EnergyModel.from_toml(toml())
    assert model.average_mw(5.0, 100.0, 2.0) == pytest.approx(10.0 + 0.8 * 10.0)
    with pytest.raises(ProfileError, match="at most 10 do"):
        model.average_mw(5.0, 100.0, 11.0)


def test_to_toml_is_the_inverse() -> None:
    model = EnergyModel.from_toml(toml())
    assert model.to_toml() == toml()
    assert EnergyModel.from_toml(model.to_toml()) == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"kind": "guess"}, "one of estimate, measured", id="kind"),
        pytest.param({"source": 1}, "source is 1; it must be a text", id="source"),
        pytest.param({"error": 0.0}, "error is 0.0", id="error"),
        pytest.param({"pj_per_mac": {"i8": 1.0}}, "lacks 'f32'", id="no-float"),
        pytest.param({"levels": []}, "list them from the smallest", id="no-level"),
        pytest.param(
            {"levels": [{"name": "L1", "size_bytes": 4096, "pj_per_byte": 1.0}]},
            "for what holds everything", id="no-last-level",
        ),
        pytest.param({"volts": 3.3}, "'volts', which is not understood", id="unknown"),
    ],
)  # fmt: skip
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        EnergyModel.from_toml(toml(**change))
